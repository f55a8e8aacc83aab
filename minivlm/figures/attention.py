"""Where a model looks: heat over the picture, and how much of its attention each word gives to the picture."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from minivlm.attribution import decoder_attention
from minivlm.model import Batch, Output


def heat_maps(
    images: Float[Tensor, "B 3 H W"], heats: Mapping[str, Float[Tensor, "B rows cols"]], titles: Sequence[str]
) -> tuple[Figure, str]:
    """A row a picture: the picture, then each kind of heat as shares of its sum, one colour scale for all."""
    if len(titles) != len(images):
        raise ValueError(f"{len(images)} pictures and {len(titles)} titles: give one to each")
    shares = {name: heat / heat.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12) for name, heat in heats.items()}
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(share.max()) for share in shares.values()))  # else one peak dims all
    size = (1.7 * (len(heats) + 1) + 0.9, 2.1 * len(images))
    figure, axes = plt.subplots(len(images), len(heats) + 1, figsize=size, squeeze=False, layout="constrained")
    height, width = images.shape[2:]
    for row, (line, title) in enumerate(zip(axes, titles, strict=True)):
        line[0].imshow(images[row].permute(1, 2, 0).clamp(0, 1).cpu(), interpolation="nearest")
        line[0].set_xlabel(textwrap.fill(title, 22), fontsize=8)
        for ax, (name, share) in zip(line[1:], shares.items(), strict=True):
            extent = (0, width, height, 0)  # patches over the pixels they stand for
            drawn = ax.imshow(share[row].cpu(), cmap="cividis", norm=norm, extent=extent, interpolation="nearest")
            ax.set_title(name if row == 0 else "", fontsize=9)
        for ax in line:
            ax.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=list(axes.flat), label="share of the heat in a patch", shrink=0.8)
    return figure, " ".join(_told(name, share) for name, share in shares.items())


def _told(name: str, share: Float[Tensor, "B rows cols"]) -> str:
    flat = share.flatten(1)
    few = max(1, flat.shape[1] // 8)
    mass = float(flat.topk(few, dim=1).values.sum(dim=1).mean())
    peaks = [divmod(int(i), share.shape[2]) for i in flat.argmax(dim=1)]
    places = "; ".join(f"row {row + 1}, column {col + 1}" for row, col in peaks)
    return f"{name}: {mass:.0%} of the heat in {few} of {flat.shape[1]} patches, peaks at {places}."


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
    names = [decode([int(batch.input_ids[sample, layout.index[sample, place]])]) or "·" for place in words]
    figure, axes = plt.subplots(figsize=(0.5 * len(names) + 2.2, 0.3 * len(share) + 1.3), layout="constrained")
    drawn = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set(yticks=range(len(share)), yticklabels=[f"block {i + 1}" for i in range(len(share))])
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    figure.colorbar(drawn, label="share to the picture")
    mean = np.asarray(share.mean(dim=0))
    told = ", ".join(f"{name} {value:.0%}" for name, value in zip(names, mean, strict=True))
    return figure, f"Share of each word's attention that goes to the picture, mean over blocks: {told}."
