"""Where vision meets language: which words see which picture, how much of a state comes from pictures, how far gates
open, and whose maps each place passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from minivlm.batch import Batch
from minivlm.figures.common import PALETTE, colours, told_apart, words_at
from minivlm.layout import Kind
from minivlm.model import Output

_GATED = "fusion.layers."


def sight_matrix(
    batch: Batch, output: Output, decode: Callable[[list[int]], str], sample: int = 0
) -> tuple[Figure, str]:
    """Which word (row) looks at which picture (column) in gated cross attention: the share of its attention that each
    picture gets, mean over heads and layers. A row of zeros is a word that sees none.

    Reads the maps of a pass with `capture=True`; ValueError where there are none of gated layers.
    """
    seen = torch.stack(_of_layers(output, "attention.weights"))[:, sample].mean(dim=(0, 1)).detach().cpu()  # (L, M*K)
    pictures = int(batch.num_images.max())
    length, own = int(output.layout.lengths[sample]), int(batch.num_images[sample])
    shares = seen.unflatten(1, (pictures, -1)).sum(dim=2)[:length, :own]  # (words, pictures)
    words = words_at(batch, output, decode, sample, range(length))
    begins = (output.layout.image[sample, :length] >= 0).tolist()
    words = told_apart(["<image>" if begin else word for word, begin in zip(words, begins, strict=True)])
    figure, axes = plt.subplots(figsize=(1.9 + 0.5 * own, 1.0 + 0.22 * length), layout="constrained")
    drawn = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks(range(own), [f"picture {m + 1}" for m in range(own)], rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(length), words, fontsize=8)
    figure.colorbar(drawn, ax=axes, label="share of the word's attention")
    blind = int((shares.sum(dim=1) == 0).sum())
    told = [f"picture {m + 1} is looked at by {_words(int((shares[:, m] > 0).sum()))}" for m in range(own)]
    return figure, f"{'; '.join(told)}; {_words(blind)} of {length} see no picture."


def _words(count: int) -> str:
    return f"{count} word" if count == 1 else f"{count} words"


def residual_shares(output: Output) -> tuple[Figure, str]:
    """For each gated layer, the share of what is added to a state that comes from pictures: the length of the layer's
    update beside that of the self-attention right after it, mean over the places that see a picture."""
    cross, own = _of_layers(output, "cross_update"), _of_layers(output, "self_update")
    sees = torch.stack(_of_layers(output, "attention.weights")).sum(dim=(0, 2, 4)) > 0  # (B, L)
    shares = [float(look_share(c.detach(), s.detach(), sees)) for c, s in zip(cross, own, strict=True)]
    names = [f"layer {number}" for number in range(1, len(shares) + 1)]
    figure, axes = plt.subplots(figsize=(1.5 + 0.9 * len(shares), 2.8), layout="constrained")
    axes.bar(names, shares, color=PALETTE["orange"], width=0.6)
    axes.set(ylabel="share that comes from pictures", ylim=(0, 1))
    told = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
    return figure, f"Share of the update that comes from pictures, beside the self-attention's: {told}."


def look_share(
    cross: Float[Tensor, "B L D"], own: Float[Tensor, "B L D"], sees: Bool[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """The share that the length of a look's update has beside that of self-attention's, mean over the places that
    `sees`."""
    looked, read = cross.norm(dim=-1)[sees], own.norm(dim=-1)[sees]  # (places,) each
    return (looked / (looked + read)).mean()


def gate_curves(gates: Mapping[str, Sequence[float]]) -> tuple[Figure, str]:
    """How far each gate is open, by its name, at every step of a training: 0 is shut, 1 and -1 wholly open."""
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axes.axhline(0, color="black", linewidth=1)
    told = []
    for (name, values), colour in zip(gates.items(), colours(gates), strict=True):
        axes.plot(values, label=name, color=colour)
        told.append(f"{name} goes from {values[0]:+.2f} to {values[-1]:+.2f}")
    axes.set(xlabel="step", ylabel="tanh of the gate")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(frameon=False, loc="outside right center")
    return figure, f"How far gates are open in {max(map(len, gates.values()))} steps: {'; '.join(told)}."


def _of_layers(output: Output, what: str) -> list[Tensor]:
    """That map of every gated layer, the first layer's first."""
    found = [value for name, value in output.maps.items() if name.startswith(_GATED) and name.endswith(what)]
    if not found:
        raise ValueError("no maps of gated layers: call a design with gated cross attention on pictures, capture=True")
    return found


def route_mosaic(
    batch: Batch, output: Output, decode: Callable[[list[int]], str], sample: int = 0, per_row: int = 16
) -> tuple[Figure, str]:
    """Every place of a sample's sequence in the colour of the maps that it passes: the experts of pictures, or the
    decoder's own. ValueError for an output without a route: not of experts, or not captured."""
    if "fusion.route" not in output.maps:
        raise ValueError("no route: call a design with experts with capture=True")
    route, length = output.maps["fusion.route"][sample].tolist(), int(output.layout.lengths[sample])
    kinds = [Kind(kind) for kind in output.layout.kind[sample].tolist()]
    rows = -(-length // per_row)
    figure, axes = plt.subplots(figsize=(per_row * 0.55, rows * 0.55 + 0.5), layout="constrained")
    axes.set(xlim=(0, per_row), ylim=(rows, 0), aspect="equal")
    axes.axis("off")
    fills = {True: PALETTE["orange"], False: PALETTE["sky"]}
    for place in range(length):
        x, y = place % per_row, place // per_row
        axes.add_patch(Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, color=fills[bool(route[place])]))
        name = kinds[place].name.lower()
        if kinds[place] == Kind.TEXT:
            [name] = words_at(batch, output, decode, sample, [place])
        size = min(8, 44 / max(1, len(name)))
        axes.text(x + 0.5, y + 0.5, name, ha="center", va="center", fontsize=size)
    labels = {True: "through the experts", False: "through the decoder's own maps"}
    figure.legend(
        handles=[Patch(color=fills[way], label=labels[way]) for way in (True, False)],
        loc="outside upper center", ncols=2, frameon=False, fontsize=8,
    )  # fmt: skip
    seen = sum(map(bool, route[:length]))
    pictures = sum(kind > Kind.TEXT for kind in kinds[:length])
    return figure, (
        f"Of {length} places {seen} pass through the experts and {length - seen} through the decoder's own maps; "
        f"{pictures} are of pictures and {length - pictures} are words."
    )
