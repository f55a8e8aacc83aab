"""Attribution: where in the picture did an answer come from? Four ways to give every patch a number, and their score
against where the thing really is.

"attention"   how much the position that says the answer attends to the patch, mean over layers and heads
"rollout"     the same through all layers, each mixed half and half with what passes it by (Abnar and Zuidema 2020,
              arXiv:2005.00928)
"gradient"    attention to the patch, by whatever position, times how much it raised the answer's score (after Chefer et
              al. 2021, arXiv:2103.15679)
"occlusion"   how much less likely the answer is when the patch is painted over: no reading of attention, but an
              experiment, and so the measure of the other three

The first three read one forward pass with its maps; occlusion runs the model once a patch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.evaluate import Score
from minivlm.model import VLM, Batch, Output, answer_positions

METHODS = ("attention", "rollout", "gradient", "occlusion")


@dataclass(frozen=True)
class Pointing:
    """How well heat points at an object.

    hits  pictures whose hottest patch touches the object; chance: the share of patches that do
    mass  mean share of the heat on the object's pixels
    area  mean share of the object's pixels in the picture, which is the mass of heat spread evenly
    """

    hits: Score
    mass: float
    area: float


def attribute(model: VLM, batch: Batch, method: str) -> Float[Tensor, "B rows cols"]:
    """Heat of each patch for the first labelled word of each sample: never negative, zeros where nothing speaks for it.

    For designs that keep one token a patch, in a batch of one picture a sample. ValueError for an unknown method, for
    another design, and for a sample without a label.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if batch.images is None or batch.images.shape[1] != 1 or batch.labels is None:
        raise ValueError("attribution needs images, one a sample, and labels: the word to be explained")
    if method == "occlusion":
        return _occlusion(model, batch)
    with torch.set_grad_enabled(method == "gradient"):
        output = model(batch, capture=True)
        said = _said(output, batch)
        heat = {"attention": _attention, "rollout": _rollout, "gradient": _gradient}[method](output, said)
    return _on_grid(model, output, heat)


def pointing_game(heat: Float[Tensor, "B rows cols"], mask: Bool[Tensor, "B H W"]) -> Pointing:
    """Score heat against the pixels of the object that each answer is about (Zhang et al. 2016, arXiv:1608.00507)."""
    patch = (mask.shape[1] // heat.shape[1], mask.shape[2] // heat.shape[2])
    touched = F.max_pool2d(mask[:, None].float(), patch)[:, 0].flatten(1)  # (B, rows*cols)
    hit = touched.gather(1, heat.flatten(1).argmax(dim=1, keepdim=True))
    inside = F.avg_pool2d(mask[:, None].float(), patch)[:, 0]  # (B, rows, cols): share of a patch that is object
    total = heat.sum(dim=(1, 2)).clamp(min=torch.finfo(heat.dtype).tiny)
    mass = (heat * inside).sum(dim=(1, 2)) / total
    return Pointing(
        Score(int(hit.sum()), len(heat), float(touched.mean())), float(mass.mean()), float(mask.float().mean())
    )


def decoder_attention(output: Output) -> list[Float[Tensor, "B H L L"]]:
    """The attention of every block of the decoder, first to last. ValueError without maps: run with capture=True."""
    found = [value for name, value in output.maps.items() if name.startswith("language") and name.endswith("weights")]
    if not found:
        raise ValueError("this output has no maps of its decoder: call the model with capture=True")
    return found


@dataclass(frozen=True)
class _Said:
    """Of each sample's first labelled word: the position that says it, its id, and its log-probability."""

    position: Int[Tensor, " B"]
    word: Int[Tensor, " B"]
    log_probability: Float[Tensor, " B"]


def _said(output: Output, batch: Batch) -> _Said:
    rows, columns, targets = answer_positions(output.layout, batch.labels)
    samples = torch.arange(len(batch), device=rows.device)
    if not torch.isin(samples, rows).all():
        raise ValueError("a sample has no labelled word, so nothing to explain")
    first = torch.searchsorted(rows, samples)  # rows are in order
    position = output.layout.predecessor()[samples, columns[first]]
    words = output.logits[samples, position].log_softmax(dim=-1)
    return _Said(position, targets[first], words[samples, targets[first]])


def _attention(output: Output, said: _Said) -> Float[Tensor, "B L"]:
    weights = torch.stack(decoder_attention(output)).mean(dim=(0, 2))  # (B, L, L)
    return weights[torch.arange(len(weights)), said.position]


def _rollout(output: Output, said: _Said) -> Float[Tensor, "B L"]:
    flow = None
    for weights in decoder_attention(output):
        mixed = weights.mean(dim=1) + torch.eye(weights.shape[-1], device=weights.device)  # (B, L, L)
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)  # a padded row attends to nothing but itself
        flow = mixed if flow is None else mixed @ flow
    return flow[torch.arange(len(flow)), said.position]


def _gradient(output: Output, said: _Said) -> Float[Tensor, "B L"]:
    layers = decoder_attention(output)
    gradients = torch.autograd.grad(said.log_probability.sum(), layers)
    helped = [(weights * gradient).clamp(min=0) for weights, gradient in zip(layers, gradients, strict=True)]
    return torch.stack(helped).sum(dim=(0, 2, 3)).detach()  # over layers, heads and whoever attended: (B, L)


def _on_grid(model: VLM, output: Output, heat: Float[Tensor, "B L"]) -> Float[Tensor, "B rows cols"]:
    """The heat of the visual tokens, laid out as the patches they are."""
    rows, cols = model.config.vision.grid
    layout = output.layout
    if int(layout.is_visual[0].sum()) != rows * cols or (layout.row[layout.is_visual] < 0).any():
        raise ValueError("this design does not keep one token a patch, so its heat has no place in the picture")
    return heat[layout.is_visual].view(len(heat), rows, cols)


@torch.no_grad()
def _occlusion(model: VLM, batch: Batch) -> Float[Tensor, "B rows cols"]:
    rows, cols = model.config.vision.grid
    side = model.config.vision.patch_size
    before = _said(model(batch), batch).log_probability
    mean = batch.images.mean(dim=(-2, -1), keepdim=True)  # (B, 1, 3, 1, 1)
    drop = torch.zeros(len(batch), rows, cols, device=before.device)
    for row in range(rows):
        for col in range(cols):
            images = batch.images.clone()
            images[..., row * side : (row + 1) * side, col * side : (col + 1) * side] = mean
            hidden = replace(batch, images=images)
            drop[:, row, col] = before - _said(model(hidden), hidden).log_probability
    return drop.clamp(min=0)
