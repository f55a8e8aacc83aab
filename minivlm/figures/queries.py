"""What the visual tokens of a connector look at: the maps of its queries, how alike they are, what a question changes,
the points that a query samples, and receptive fields side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from minivlm.figures.common import PALETTE, colours, wrapped
from minivlm.model import Output, VLMConfig
from minivlm.queries import QueryAttention, query_attention, query_statistics

PER_ROW = 8


def query_maps(
    output: Output,
    images: Float[Tensor, "B M 3 H W"],
    config: VLMConfig,
    site: str | None = None,
    sample: int = 0,
    picture: int = 0,
    head: int | None = None,
) -> tuple[Figure, str]:
    """The picture, then for each query of a resampler what it attends to, over the picture in grey, as
    `queries.query_attention` reads it from the maps. What is no patch is not drawn, but told."""
    seen, image = query_attention(output, config, site, sample, picture, head), images[sample, picture].cpu()
    panels = len(seen.patches) + 1
    rows = -(-panels // PER_ROW)
    per_row = -(-panels // rows)
    size = (1.25 * per_row + 0.9, 1.5 * rows + 0.2)
    figure, axes = plt.subplots(rows, per_row, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    _picture(axes.flat[0], image)
    norm = PowerNorm(0.5, vmin=0, vmax=float(seen.patches.max()))  # else one peak dims all
    for number, (ax, share) in enumerate(zip(axes.flat[1:], seen.patches, strict=False), start=1):
        drawn = _over(ax, image, share, cmap="cividis", norm=norm)
        ax.set_title(f"query {number}", fontsize=8)
    bar = figure.colorbar(drawn, ax=list(axes.flat), label="share of the query's attention")
    bar.solids.set_alpha(1)
    return figure, f"{_site(seen, head)} {_looked_at(seen)}"


def query_similarity(
    output: Output,
    config: VLMConfig,
    site: str | None = None,
    sample: int = 0,
    picture: int = 0,
    head: int | None = None,
) -> tuple[Figure, str]:
    """How alike the maps of the queries are, two by two, and over how many patches each is spread."""
    seen = query_attention(output, config, site, sample, picture, head)
    found, patches = query_statistics(seen.patches.flatten(1)), seen.patches[0].numel()
    queries = len(found.entropy)
    size = (0.26 * queries + 5.0, 0.13 * queries + 2.0)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained")
    drawn = left.imshow(found.similarity, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, ax=left, label="cosine of two maps")
    ticks = np.arange(0, queries, max(1, queries // 8))
    left.set_xticks(ticks, ticks + 1, fontsize=8)
    left.set_yticks(ticks, ticks + 1, fontsize=8)
    left.set(xlabel="query", ylabel="query", title=f"collapse {found.collapse:.2f}")
    right.barh(range(1, queries + 1), found.spread.tolist(), color=PALETTE["blue"])
    right.set_yticks(ticks + 1, ticks + 1, fontsize=8)
    right.set(xlim=(0, patches), ylim=(queries + 0.5, 0.5), xlabel="patches that it is spread over")
    right.set_title(f"coverage {found.coverage:.0%}")
    return figure, (
        f"{_site(seen, head)} Two different maps have a cosine of {found.collapse:.2f} in the mean (1: all look at the "
        f"same); {found.coverage:.0%} of the patches get more than an even share from some query; a map is spread over "
        f"{float(found.spread.mean()):.1f} of {patches} patches in the mean ({float(found.spread.min()):.1f} to "
        f"{float(found.spread.max()):.1f})."
    )


def question_maps(
    outputs: Mapping[str, Output],
    images: Float[Tensor, "B M 3 H W"],
    config: VLMConfig,
    query: int,
    site: str | None = None,
    sample: int = 0,
    picture: int = 0,
    head: int | None = None,
) -> tuple[Figure, str]:
    """The picture, then what one query (counted from 0) attends to in each of `outputs` (by the question that was asked
    about the same pictures), on one colour scale; of two of them also what the second adds and takes away.

    ValueError for a query that is not there."""
    seen = {name: query_attention(output, config, site, sample, picture, head) for name, output in outputs.items()}
    for name, found in seen.items():
        if not 0 <= query < len(found.patches):
            raise ValueError(f"no query {query} in {name}: there are {len(found.patches)}, counted from 0")
    shares = {name: found.patches[query] for name, found in seen.items()}
    image, panels = images[sample, picture].cpu(), 1 + len(shares) + (len(shares) == 2)
    figure, axes = plt.subplots(1, panels, figsize=(2.3 * panels + 1.6, 2.8), layout="constrained")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    _picture(axes[0], image)
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(share.max()) for share in shares.values()))
    for ax, (name, share) in zip(axes[1:], shares.items(), strict=False):
        drawn = _over(ax, image, share, cmap="cividis", norm=norm)
        ax.set_title(wrapped(name, 26), fontsize=8)
    bar = figure.colorbar(drawn, ax=list(axes[: 1 + len(shares)]), label="share of the query's attention")
    bar.solids.set_alpha(1)
    if len(shares) == 2:
        first, second = shares.values()
        most = max(float((second - first).abs().max()), 1e-6)
        drawn = _over(axes[-1], image, second - first, cmap="PuOr", vmin=-most, vmax=most)
        axes[-1].set_title("second minus first", fontsize=8)
        figure.colorbar(drawn, ax=axes[-1]).solids.set_alpha(1)
    told = " ".join(f'"{name}": {_looked(share)}' for name, share in shares.items())
    site = _site(next(iter(seen.values())), head)
    return figure, f"{site} query {query + 1}. {told} {_compared(list(shares.values()))}".rstrip()


def sampling_points(
    output: Output,
    images: Float[Tensor, "B M 3 H W"],
    query: int,
    site: str | None = None,
    sample: int = 0,
    picture: int = 0,
) -> tuple[Figure, str]:
    """Where one query (counted from 0) of a D-Abstractor samples the picture: a colour a head, a point the larger the
    more it weighs. `site` is a layer's map of points (None: the last layer's)."""
    sites = [name for name in output.maps if name.startswith("connector.") and name.endswith(".points")]
    if not sites or site not in (None, *sites):
        raise ValueError(
            f"no map {'' if site is None else site + ' '}of sampling points; there are: {', '.join(sites) or 'none'}. "
            "Call a model that has a D-Abstractor with capture=True"
        )
    site = site or sites[-1]
    points, weights = (
        output.maps[name].detach().cpu().unflatten(0, (len(output.layout.kind), -1))[sample, picture, query]
        for name in (site, site.removesuffix("points") + "weights")
    )  # (heads, points, 2), (heads, points)
    figure, axes = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
    _picture(axes, images[sample, picture].cpu())
    heads = [f"head {number + 1}" for number in range(len(points))]
    for name, colour, place, weight in zip(heads, colours(heads), points, weights, strict=True):
        axes.scatter(*place.T, s=10 + 150 * weight, color=colour, edgecolors="white", linewidths=0.8, label=name)
    axes.set(xticks=[], yticks=[], title=f"query {query + 1}")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8, markerscale=0.8)
    return figure, f"{site}: query {query + 1} {_sampled(points, weights)}"


def receptive_fields(fields: Mapping[str, Float[Tensor, "rows cols"]]) -> tuple[Figure, str]:
    """Receptive fields of visual tokens, as `receptive_field` measures them, side by side on one colour scale."""
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(field.max()) for field in fields.values()))
    size = (1.9 * len(fields) + 1.0, 2.2)
    figure, axes = plt.subplots(1, len(fields), figsize=size, squeeze=False, layout="constrained")
    for ax, (name, field) in zip(axes[0], fields.items(), strict=True):
        drawn = ax.imshow(field.cpu(), cmap="cividis", norm=norm, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(name, fontsize=9)
    figure.colorbar(drawn, ax=list(axes[0]), label="share of the gradient", shrink=0.9)
    return figure, " ".join(f"{name}: {_heard(field)}" for name, field in fields.items())


def _picture(axes: Axes, image: Float[Tensor, "3 H W"]) -> None:
    """A picture whose corners are (0, 0), the upper left, and (1, 1)."""
    pixels, aspect = image.permute(1, 2, 0).clamp(0, 1), image.shape[1] / image.shape[2]
    axes.imshow(pixels, extent=(0, 1, 1, 0), interpolation="nearest", aspect=aspect)


def _over(axes: Axes, image: Float[Tensor, "3 H W"], share: Float[Tensor, "rows cols"], **heat: object) -> AxesImage:
    """A map over its picture in grey."""
    _picture(axes, image.mean(dim=0, keepdim=True).expand(3, -1, -1))
    return axes.imshow(share, extent=(0, 1, 1, 0), aspect=axes.get_aspect(), alpha=0.8, interpolation="nearest", **heat)


def _site(seen: QueryAttention, head: int | None) -> str:
    return f"{seen.site}, {'all heads' if head is None else f'head {head + 1}'}:"


def _looked_at(seen: QueryAttention) -> str:
    flat, cols = seen.patches.flatten(1), seen.patches.shape[2]
    peaks = [divmod(int(i), cols) for i in flat.argmax(dim=1)]
    places = "; ".join(f"query {n} ({row + 1}, {col + 1})" for n, (row, col) in enumerate(peaks, start=1))
    looking = "1 query looks" if len(flat) == 1 else f"{len(flat)} queries look"
    others = "".join(f", {float(share.mean()):.0%} at the {name}" for name, share in seen.others.items())
    return (
        f"{looking} at {flat.shape[1]} patches with {float(flat.sum(dim=1).mean()):.0%} of the "
        f"attention{others} (mean); the hottest patch (row, column) of each: {places}."
    )


def _looked(share: Float[Tensor, "rows cols"]) -> str:
    """Where one query looks, in words."""
    place, value = _first(share)
    return f"{float(share.sum()):.0%} of its attention on {share.numel()} patches, most at {place} ({value:.1%})."


def _compared(shares: Sequence[Float[Tensor, "rows cols"]]) -> str:
    """How alike some maps of one query are; nothing of a single one."""
    if len(shares) < 2:
        return ""
    alike = query_statistics(torch.stack(list(shares)).flatten(1)).collapse
    if len(shares) > 2:
        return f"Two of these maps have a cosine of {alike:.2f} in the mean."
    change = shares[1] - shares[0]
    if change.abs().max() < 1e-6:
        return "The two maps are the same."
    (more, gained), (less, lost) = _first(change), _first(-change)
    return (
        f"The two maps have a cosine of {alike:.2f}; the second looks most of all more at {more} (+{gained:.1%}) and "
        f"less at {less} (-{lost:.1%})."
    )


def _first(share: Float[Tensor, "rows cols"]) -> tuple[str, float]:
    """Where a map is highest, in words, and how high it is there."""
    row, col = divmod(int(share.argmax()), share.shape[1])
    return f"row {row + 1}, column {col + 1}", float(share[row, col])


def _sampled(points: Float[Tensor, "heads points 2"], weights: Float[Tensor, "heads points"]) -> str:
    outside = ((points < 0) | (points > 1)).any(dim=-1)  # (heads, points)
    x, y = (points * weights[..., None]).sum(dim=(0, 1)) / len(points)
    lost = float(weights[outside].sum() / len(points))
    return (
        f"samples {weights.numel()} points in {len(points)} heads, around {float(x):.0%} from the left and "
        f"{float(y):.0%} from the top; {int(outside.sum())} lie outside the picture, with {lost:.0%} of the weight."
    )


def _heard(field: Float[Tensor, "rows cols"]) -> str:
    """In words: how many patches make nine tenths of it, and which is the first."""
    ordered = field.flatten().sort(descending=True).values
    needed = int((ordered.cumsum(dim=0) < 0.9 - 1e-6).sum()) + 1
    row, col = divmod(int(torch.argmax(field)), field.shape[1])
    return (
        f"{needed} of {field.numel()} patches make 90% of it, most in row {row + 1}, column {col + 1} "
        f"({float(ordered[0]):.0%})."
    )
