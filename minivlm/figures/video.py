"""Videos: frames with their tokens under them, how many frames a context holds, and what the context token of each
frame looks at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivlm.figures.common import PALETTE, colours, wrapped
from minivlm.layout import Kind
from minivlm.model import Output, VLMConfig
from minivlm.queries import query_attention
from minivlm.vision.film import FilmConfig

SITE = "connector.context"  # the map of LLaMA-VID's context token: its queries over the patches of a frame
PER_ROW = 16
_UNIT = 0.25  # side of a token, in sides of a frame, where there is room
_KINDS = {
    Kind.PATCH: ("#bbbbbb", "a patch"),
    Kind.CELL: (PALETTE["green"], "a mean of patches"),
    Kind.LATENT: (PALETTE["purple"], "of no place of its own"),
}


def frames_that_fit(tokens: int, context: int, words: int = 64) -> int:
    """Whole frames of so many `tokens` that have room beside the words in a context of so many positions. ValueError
    for frames without tokens, and for words that have no room themselves."""
    if tokens < 1 or not 0 <= words <= context:
        raise ValueError(f"{tokens} tokens a frame (1 or more) and {words} words (0 to the context's {context})")
    return (context - words) // tokens


def film_strip(frames: Float[Tensor, "T 3 H W"], configs: Mapping[str, VLMConfig]) -> tuple[Figure, str]:
    """The frames of a video in a row; under them a row a design, with the tokens that it makes of each frame, or all
    along the row where it reads the video as one film. ValueError for a film of another number of frames."""
    count = len(frames)
    kinds = {name: _by_frame(config, count) for name, config in configs.items()}
    heights = [1.0, *(min(1.0, max(0.3, _side(each[0]) * _UNIT)) for each in kinds.values())]
    size = (1.1 * count + 1.6, 0.8 + 1.2 * sum(heights))
    figure, axes = plt.subplots(
        len(heights), count, figsize=size, squeeze=False, height_ratios=heights, layout="constrained"
    )
    _frames(axes[0], frames)
    for line, (name, each) in zip(axes[1:], kinds.items(), strict=True):
        line[0].set_ylabel(wrapped(name, 18), fontsize=8, rotation=0, ha="right", va="center")
        for ax, own in zip(line, each, strict=True):
            _tokens(ax, own)
    there = {kind for each in kinds.values() for own in each for kind in own}
    marks = [Rectangle((0, 0), 1, 1, color=fill, label=name) for kind, (fill, name) in _KINDS.items() if kind in there]
    figure.legend(handles=marks, frameon=False, loc="outside lower center", ncols=3, fontsize=8)
    told = (
        f"{name}: {sum(map(len, kinds[name]))} tokens, "
        + ("of the video whole" if isinstance(config.vision, FilmConfig) else f"{len(kinds[name][0])} a frame")
        for name, config in configs.items()
    )
    return figure, f"{count} frames and their tokens. {'; '.join(told)}."


def _by_frame(config: VLMConfig, count: int) -> list[list[int]]:
    """The kinds of the tokens of each frame; of a film, as even a part of all as can be."""
    film = isinstance(config.vision, FilmConfig)
    if film and config.vision.frames != count:
        raise ValueError(f"this design reads a film of {config.vision.frames} frames, here are {count}")
    with torch.device("meta"):
        connector = config.make_connector()
    layout = config.separators.build(1).arrange(config.vision.views(config.vision.image_size), connector)[0]
    parts = layout.kind.tensor_split(count) if film else [layout.kind] * count
    return [part.tolist() for part in parts]


def _frames(line: Iterable[Axes], frames: Float[Tensor, "T 3 H W"]) -> None:
    for number, (ax, frame) in enumerate(zip(line, frames, strict=True), start=1):
        _picture(ax, frame)
        ax.set_title(f"frame {number}", fontsize=8)


def _picture(axes: Axes, frame: Float[Tensor, "3 H W"], shown: bool = True) -> None:
    axes.imshow(frame.permute(1, 2, 0).clamp(0, 1).cpu(), extent=(0, 1, 1, 0), alpha=1 if shown else 0.15,
                interpolation="nearest", aspect=frame.shape[1] / frame.shape[2])  # fmt: skip
    axes.set(xticks=[], yticks=[])


def _side(tokens: Sequence[int]) -> int:
    """Columns, and at most as many rows, in which so many tokens stand."""
    return math.isqrt(max(len(tokens) - 1, 0)) + 1


def _tokens(axes: Axes, kinds: Sequence[int]) -> None:
    """A square a token, row by row; what is over in the last row stays white."""
    side = _side(kinds)
    rows = max(1, -(-len(kinds) // side))
    fills = np.ones((rows * side, 3))
    fills[: len(kinds)] = [to_rgb(_KINDS[Kind(kind)][0]) for kind in kinds]
    axes.pcolormesh(fills.reshape(rows, side, 3), edgecolors="white", linewidth=1)
    axes.set(xlim=(0, max(side, 1 / _UNIT)), ylim=(rows, 0), xticks=[], yticks=[], aspect="equal", anchor="NW")
    axes.spines[:].set_visible(False)


def context_bars(tokens: Mapping[str, int], contexts: Mapping[str, int], words: int = 64) -> tuple[Figure, str]:
    """How many frames fit, beside so many words, for each number of tokens a frame (by the name of what makes it), a
    colour for each of the contexts."""
    figure, axes = plt.subplots(figsize=(7.4, 1.4 + 0.32 * len(tokens) * len(contexts)), layout="constrained")
    height, told = 0.8 / len(contexts), []
    for number, ((name, context), colour) in enumerate(zip(contexts.items(), colours(contexts), strict=True)):
        fit = [frames_that_fit(each, context, words) for each in tokens.values()]
        places = [row + (number - (len(contexts) - 1) / 2) * height for row in range(len(fit))]
        axes.barh(places, fit, height, color=colour, label=f"{name}: {context:,} positions")
        for place, frames in zip(places, fit, strict=True):
            axes.annotate(f"{frames:,}", (max(frames, 1), place), (3, 0), textcoords="offset points", va="center",
                          fontsize=8)  # fmt: skip
        each = "; ".join(f"{design} {frames:,}" for design, frames in zip(tokens, fit, strict=True))
        told.append(f"Frames that fit into {name} ({context:,} positions, {words} of them words): {each}.")
    labels = [f"{name}, {each} a frame" for name, each in tokens.items()]
    axes.set_yticks(range(len(tokens)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="frames", xlim=(0.9, 4 * max(contexts.values()) / min(tokens.values())))
    figure.legend(frameon=False, loc="outside upper center", ncols=2, fontsize=8)
    return figure, " ".join(told)


def frames_in_context(
    frames: Float[Tensor, "T 3 H W"], tokens: int, context: int, words: int = 64
) -> tuple[Figure, str]:
    """All frames of a video, those in colour that fit into the context at so many tokens a frame; the others are pale:
    the model never sees them. Under them a bar: the context, and what words and frames take of it."""
    count, fit = len(frames), min(len(frames), frames_that_fit(tokens, context, words))
    rows, cols = -(-count // PER_ROW), min(count, PER_ROW)
    figure = plt.figure(figsize=(0.62 * cols + 0.3, 0.62 * rows + 1.0), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[0.62 * rows + 0.2, 0.8])
    axes = above.subplots(rows, cols, squeeze=False)
    for ax in axes.flat[count:]:
        ax.axis("off")
    for number, (ax, frame) in enumerate(zip(axes.flat, frames, strict=False)):
        _picture(ax, frame, shown=number < fit)
    _context(below.subplots(), context, words, fit * tokens)
    each, needed, used = "1 token" if tokens == 1 else f"{tokens} tokens", count * tokens + words, fit * tokens + words
    return figure, (
        f"{count} frames of {each} and {words} words take {needed:,} positions; the context has {context:,}. "
        f"{'All' if fit == count else fit} of the frames fit, in {used:,} positions; {count - fit} are never seen."
    )


def _context(axes: Axes, context: int, words: int, visual: int) -> None:
    """The positions of a context as a bar as wide as the axes."""
    axes.barh(0, words, color="#bbbbbb", label=f"words {words:,}")
    axes.barh(0, visual, left=words, color=PALETTE["purple"], label=f"frames {visual:,}")
    axes.set(xlim=(0, context), yticks=[])
    axes.set_xticks([0, context], ["0", f"context {context:,}"], fontsize=8)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=8)


def context_gaze(output: Output, config: VLMConfig, sample: int = 0) -> Float[Tensor, "T rows cols"]:
    """What the context token of each frame of a sample is made of: the mean over its queries of their attention, each
    frame's a share of 1. ValueError for an output without that map."""
    pictures = int(output.layout.image[sample].max()) + 1
    gazes = [query_attention(output, config, SITE, sample, frame).patches.mean(dim=0) for frame in range(pictures)]
    return torch.stack(gazes)


def context_maps(
    outputs: Mapping[str, Output],
    frames: Float[Tensor, "T 3 H W"],
    config: VLMConfig,
    sample: int = 0,
) -> tuple[Figure, str]:
    """The frames of a video, then a row for each of `outputs` (by the question asked about it): what the context token
    of each frame looks at, over the frame in grey, on one colour scale. ValueError for outputs of other frames."""
    gazes = {name: context_gaze(output, config, sample) for name, output in outputs.items()}
    if not gazes or any(len(gaze) != len(frames) for gaze in gazes.values()):
        raise ValueError(f"{len(frames)} frames, and maps of {[len(gaze) for gaze in gazes.values()]}: give as many")
    size = (1.1 * len(frames) + 1.1, 0.4 + 1.35 * (1 + len(gazes)))
    figure, axes = plt.subplots(1 + len(gazes), len(frames), figsize=size, squeeze=False, layout="constrained")
    _frames(axes[0], frames)
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(gaze.max()) for gaze in gazes.values()))  # else one peak dims all
    for line, (name, gaze) in zip(axes[1:], gazes.items(), strict=True):
        line[0].set_title(wrapped(name, 22 * len(frames)), fontsize=9, loc="left")
        for ax, frame, share in zip(line, frames, gaze, strict=True):
            _picture(ax, frame.mean(dim=0, keepdim=True).expand(3, -1, -1))
            drawn = ax.imshow(share, extent=(0, 1, 1, 0), aspect=ax.get_aspect(), alpha=0.8, interpolation="nearest",
                              cmap="cividis", norm=norm)  # fmt: skip
    figure.colorbar(drawn, ax=list(axes.flat), label="share of a frame's attention", shrink=0.8).solids.set_alpha(1)
    return figure, f"{' '.join(_looked(name, gaze) for name, gaze in gazes.items())}{_moved(list(gazes.values()))}"


def _looked(question: str, gaze: Float[Tensor, "T rows cols"]) -> str:
    peaks = [divmod(int(share.argmax()), gaze.shape[2]) for share in gaze]
    places = ", ".join(f"({row + 1}, {col + 1})" for row, col in peaks)
    most = float(gaze.flatten(1).amax(dim=1).mean())
    return f'"{question}": the hottest patch (row, column) of each frame {places}, with {most:.0%} in the mean.'


def _moved(gazes: Sequence[Float[Tensor, "T rows cols"]]) -> str:
    """Of two questions: how much of the attention is elsewhere for the second."""
    if len(gazes) != 2:
        return ""
    moved = float((gazes[0] - gazes[1]).abs().sum(dim=(1, 2)).mean()) / 2
    return f" Between the two, {moved:.0%} of a frame's attention moves, in the mean."
