"""Where a model looks: heat over the picture, and how much of its attention each word gives to the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivlm.attribution import decoder_attention, picture_attention, word_heat
from minivlm.batch import Batch
from minivlm.figures.common import PALETTE, told_apart, words_at, wrapped
from minivlm.model import Output


def heat_maps(
    images: Float[Tensor, "B 3 H W"], heats: Mapping[str, Float[Tensor, "B rows cols"]], titles: Sequence[str]
) -> tuple[Figure, str]:
    """A row a picture: the picture, then each kind of heat as shares of its sum, one colour scale for all."""
    if len(titles) != len(images):
        raise ValueError(f"{len(images)} pictures and {len(titles)} titles: give one to each")
    shares = {name: _shares(heat) for name, heat in heats.items()}
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(share.max()) for share in shares.values()))  # else one peak dims all
    size = (1.7 * (len(heats) + 1) + 0.9, 2.1 * len(images))
    figure, axes = plt.subplots(len(images), len(heats) + 1, figsize=size, squeeze=False, layout="constrained")
    for row, (line, title) in enumerate(zip(axes, titles, strict=True)):
        _picture(line[0], images[row], *next(iter(heats.values())).shape[1:])
        line[0].set_xlabel(wrapped(title, 22), fontsize=8)
        for ax, (name, share) in zip(line[1:], shares.items(), strict=True):
            drawn = ax.imshow(share[row].cpu(), cmap="cividis", norm=norm, interpolation="nearest")
            ax.set_title(name if row == 0 else "", fontsize=9)
            ax.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=list(axes.flat), label="share of the heat in a patch", shrink=0.8)
    return figure, " ".join(_told(name, share) for name, share in shares.items())


def _check_pictured(batch: Batch) -> None:
    if batch.images is None:
        raise ValueError("attention is drawn beside its picture: give a batch with images")


def _picture(axes: Axes, image: Float[Tensor, "3 H W"], rows: int, cols: int) -> None:
    """A picture with the lines between its patches, which count from 0 along both axes."""
    extent = (-0.5, cols - 0.5, rows - 0.5, -0.5)
    axes.imshow(image.permute(1, 2, 0).clamp(0, 1).cpu(), extent=extent, interpolation="nearest", aspect="auto")
    axes.set_xticks(np.arange(cols + 1) - 0.5, [""] * (cols + 1))
    axes.set_yticks(np.arange(rows + 1) - 0.5, [""] * (rows + 1))
    axes.grid(color="#808080", linewidth=0.3)
    axes.tick_params(length=0)
    axes.set_box_aspect(image.shape[1] / image.shape[2])


def _shares(heat: Float[Tensor, "B rows cols"]) -> Float[Tensor, "B rows cols"]:
    """Each map as shares of its sum."""
    return heat / heat.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def _summed_up(share: Float[Tensor, "B rows cols"]) -> tuple[float, str, list[tuple[int, int]]]:
    """The mean mass of the hottest eighth of the patches, that eighth in words, and the hottest patch of each map, row
    and column counted from 1."""
    flat = share.flatten(1)
    few = max(1, flat.shape[1] // 8)
    mass = float(flat.topk(few, dim=1).values.sum(dim=1).mean())
    peaks = [divmod(int(i), share.shape[2]) for i in flat.argmax(dim=1)]
    return mass, f"{few} of {flat.shape[1]} patches", [(row + 1, col + 1) for row, col in peaks]


def _told(name: str, share: Float[Tensor, "B rows cols"]) -> str:
    mass, few, peaks = _summed_up(share)
    places = "; ".join(f"row {row}, column {col}" for row, col in peaks)
    return f"{name}: {mass:.0%} of the heat in {few}, peaks at {places}."


def attention_maps(
    batch: Batch,
    output: Output,
    decode: Callable[[list[int]], str],
    places: Sequence[int] | None = None,
    sample: int = 0,
    method: str = "attention",
    layer: int | None = None,
    head: int | None = None,
) -> tuple[Figure, str]:
    """The picture, then for each word (default: every word but the begin mark) its heat over the patches, as
    `attribution.word_heat` reads it from the maps. `batch` needs its images."""
    _check_pictured(batch)
    if places is None:
        places = output.layout.is_text[sample].nonzero().flatten().tolist()[1:]
    heats = torch.stack([word_heat(output, batch, place, method, sample, layer, head) for place in places]).cpu()
    share = _shares(heats)
    names, panels = words_at(batch, output, decode, sample, places), len(places) + 1
    rows = -(-panels // 8)
    per_row = -(-panels // rows)
    size = (1.35 * per_row + 0.9, 1.65 * rows + 0.2)
    figure, axes = plt.subplots(rows, per_row, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[panels:]:
        ax.axis("off")
    _picture(axes.flat[0], batch.images[sample, 0], *share.shape[1:])
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(share.max()), 1e-12))
    for ax, name, heat in zip(axes.flat[1:], names, share, strict=False):
        ax.set(xticks=[], yticks=[])
        drawn = ax.imshow(heat, cmap="cividis", norm=norm, interpolation="nearest")
        ax.set_title(name, fontsize=9)
    figure.colorbar(drawn, ax=list(axes.flat), label="share of the word's heat", shrink=0.8)
    mass, few, peaks = _summed_up(share)
    told = "; ".join(f"{name} {peak}" for name, peak in zip(names, peaks, strict=True))
    one = len(places) == 1
    return figure, (
        f"{_site(method, layer, head)}: {mass:.0%} of {'the' if one else 'a'} word's heat is in {few}"
        f"{'' if one else ' (mean)'}; the hottest patch (row, column){'' if one else ' of each word'}: {told}."
    )


def _site(method: str, layer: int | None, head: int | None) -> str:
    block = "all blocks" if layer is None else f"block {layer + 1}"
    return f"{method.capitalize()} in {block}, {'all heads' if head is None else f'head {head + 1}'}"


def words_of_patch(
    batch: Batch,
    output: Output,
    decode: Callable[[list[int]], str],
    row: int,
    col: int,
    sample: int = 0,
    layer: int | None = None,
    head: int | None = None,
) -> tuple[Figure, str]:
    """The other way round: how much of the attention of each word but the begin mark goes to the patch at (`row`,
    `col`), counted from 0."""
    _check_pictured(batch)
    places = output.layout.is_text[sample].nonzero().flatten().tolist()[1:]
    reached = picture_attention(output, layer, head)[sample].detach().cpu()  # (L, rows, cols)
    share = reached[places, row, col]  # (words,)
    rows, cols = reached.shape[1:]
    names = told_apart(words_at(batch, output, decode, sample, places))
    size = (0.42 * len(names) + 3.2, 2.6)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=size, width_ratios=(1.6, 0.42 * len(names)), layout="constrained"
    )
    _picture(left, batch.images[sample, 0], rows, cols)
    left.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=PALETTE["vermilion"], linewidth=2.5))
    right.bar(range(len(names)), share.tolist(), color=PALETTE["blue"])
    right.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    right.set(ylabel="share of its attention", ylim=(0, max(0.02, float(share.max()) * 1.1)))
    first = share.argsort(descending=True)[:3].tolist()
    most = ", ".join(f"{names[i]} {float(share[i]):.1%}" for i in first)
    return figure, f"The patch in row {row + 1}, column {col + 1} gets most attention from: {most}."


def picture_share(
    batch: Batch, output: Output, decode: Callable[[list[int]], str], sample: int = 0
) -> tuple[Figure, str]:
    """For every word of a sample and every block, the share of its attention that goes to the picture (mean over
    heads). `output` needs maps."""
    layout = output.layout
    words = layout.is_text[sample].nonzero().flatten()
    picture = layout.is_visual[sample]
    layers = torch.stack([weights[sample].mean(dim=0) for weights in decoder_attention(output)])  # (layers, L, L)
    share = layers[:, words][:, :, picture].sum(dim=-1).detach().cpu()  # (layers, words)
    names = words_at(batch, output, decode, sample, words.tolist())
    figure, axes = plt.subplots(figsize=(0.5 * len(names) + 2.2, 0.3 * len(share) + 1.3), layout="constrained")
    drawn = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set(yticks=range(len(share)), yticklabels=[f"block {i + 1}" for i in range(len(share))])
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    figure.colorbar(drawn, label="share to the picture")
    mean = np.asarray(share.mean(dim=0))
    told = ", ".join(f"{name} {value:.0%}" for name, value in zip(names, mean, strict=True))
    return figure, f"Share of each word's attention that goes to the picture, mean over blocks: {told}."
