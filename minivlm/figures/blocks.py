"""Attention in the large: which part of the sequence reads which, and how far a picture tower looks."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from minivlm.attribution import decoder_attention
from minivlm.batch import Batch
from minivlm.figures.common import PALETTE
from minivlm.model import Output, answer_positions


def block_matrix(batch: Batch, output: Output, sample: int = 0) -> tuple[Figure, str]:
    """One panel a decoder block: which part of the sequence (row) gives which share of its attention to which part.

    Parts are the begin mark or shared text, each picture, and each question with its answer; mean over heads and over
    the positions of the reading part, sum over those of the part read, so every row sums to 1.
    """
    parts = _parts(batch, output, sample)
    member = torch.stack([torch.isin(torch.arange(output.layout.kind.shape[1]), p) for p in parts.values()]).float()
    panels = []
    for weights in decoder_attention(output):
        mean = weights[sample].mean(dim=0).detach().cpu().float()  # (L, L)
        panels.append((member @ mean @ member.T) / member.sum(dim=1, keepdim=True))  # (parts, parts)
    size = (1.0 + len(panels) * (0.36 * len(parts) + 0.5), 0.36 * len(parts) + 1.7)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for number, (ax, panel) in enumerate(zip(axes[0], panels, strict=True), start=1):
        drawn = ax.imshow(panel, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(f"block {number}", fontsize=9)
        ax.set_xticks(range(len(parts)), parts, rotation=60, ha="right", fontsize=8)
        ax.set_yticks(range(len(parts)), parts, fontsize=8)
    axes[0, 0].set_ylabel("reads", fontsize=9)
    figure.colorbar(drawn, ax=list(axes[0]), label="share of attention")
    return figure, _blocks_told(list(parts), torch.stack(panels))


def _parts(batch: Batch, output: Output, sample: int) -> dict[str, Tensor]:
    """The positions of each part of a sample's sequence, by its name."""
    layout = output.layout
    taught = torch.zeros_like(layout.is_text)
    if batch.labels is not None:
        rows, columns, _ = answer_positions(layout, batch.labels)
        taught[rows, columns] = True
    segment, image, text = layout.segment[sample], layout.image[sample], layout.is_text[sample]
    found = {"begin": text & (segment == 0)}
    found |= {f"picture {m + 1}": image == m for m in range(int(image.max()) + 1)}
    for n in range(1, int(segment.max()) + 1):
        found[f"question {n}"] = text & (segment == n) & ~taught[sample]
        found[f"answer {n}"] = text & (segment == n) & taught[sample]
    return {name: where.nonzero().flatten().cpu() for name, where in found.items() if where.any()}


def _blocks_told(names: list[str], panels: Float[Tensor, "blocks parts parts"]) -> str:
    pictures = [i for i, name in enumerate(names) if name.startswith("picture")]
    readers = [i for i in range(len(names)) if names[i].startswith(("question", "answer", "picture"))]
    shares = panels[:, :, pictures].sum(dim=-1)  # (blocks, parts)
    told = [f"{names[i]} " + ", ".join(f"{float(share):.0%}" for share in shares[:, i]) for i in readers]
    return f"Share of attention to the picture, block by block ({len(panels)}): " + "; ".join(told) + "."


def attention_distance(maps: Mapping[str, Tensor], grid: tuple[int, int]) -> tuple[Figure, str]:
    """How far each head of a picture tower looks: the mean distance, in patches, between a patch and what it attends
    to; one point a head, one column a block (Dosovitskiy et al. 2020, figure 7). A class token is left out.

    `maps` are those of a pass with `capture=True` through a model whose tower is called `vision`.
    """
    layers = [value for name, value in maps.items() if name.startswith("vision.blocks.") and name.endswith("weights")]
    if not layers:
        raise ValueError("no maps of a picture tower: call the model on pictures with capture=True")
    rows, cols = grid
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij"), dim=-1).flatten(0, 1)
    apart = torch.cdist(place.float(), place.float())  # (N, N)
    means = []
    for weights in layers:
        patches = weights[..., -rows * cols :, -rows * cols :].detach().cpu().float()  # (B, H, N, N)
        patches = patches / patches.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        means.append((patches * apart).sum(dim=-1).mean(dim=(0, 2)))  # (H,)
    figure, axes = plt.subplots(figsize=(1.0 + 0.9 * len(means), 2.8), layout="constrained")
    for number, heads in enumerate(means, start=1):
        axes.scatter([number] * len(heads), heads.tolist(), color=PALETTE["blue"], alpha=0.7)
    axes.axhline(float(apart.mean()), color="black", linewidth=1, linestyle="--", label="attention spread evenly")
    top = 1.15 * max(float(apart.mean()), max(float(heads.max()) for heads in means))
    axes.set(xlabel="block", ylabel="mean distance (patches)", xticks=range(1, len(means) + 1), ylim=(0, top))
    axes.legend(frameon=False, fontsize=8)
    told = "; ".join(
        f"block {n} {float(h.mean()):.1f} (heads {float(h.min()):.1f} to {float(h.max()):.1f})"
        for n, h in enumerate(means, start=1)
    )
    return figure, f"Mean attention distance in patches: {told}; spread evenly it would be {float(apart.mean()):.1f}."
