"""Attribution: where in the picture did an answer come from? Four ways to give every patch a number, and their score
against where the thing really is.

"attention"   how much the position that says the answer attends to the patch, mean over layers and heads
"rollout"     the same through all layers, each mixed half and half with what passes it by (Abnar and Zuidema 2020,
              arXiv:2005.00928)
"gradient"    attention to the patch, by whatever position, times how much it raised the answer's score (after Chefer et
              al. 2021, arXiv:2103.15679)
"occlusion"   how much less likely the answer is when the patch is painted over: no reading of attention, but an
              experiment, and so the measure of the other three

The first three read one forward pass with its maps; occlusion runs the model once a patch. `attribute` explains the
answers of a batch, `word_heat` any word that was read, and in one layer or head if so asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.batch import Batch
from minivlm.evaluate import Score
from minivlm.model import VLM, Output, answer_positions

READINGS = ("attention", "rollout", "gradient")  # of the maps of a pass
METHODS = (*READINGS, "occlusion")


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
        said, layers = _said(output, batch), decoder_attention(output)
        if method == "gradient":
            heat = _helped(said.log_probability, layers)
        else:
            reached = _mean(layers) if method == "attention" else _rollout(layers)
            heat = reached[torch.arange(len(batch)), said.position]
    return _on_grid(output, heat)


def word_heat(
    output: Output,
    batch: Batch,
    place: int,
    method: str = "attention",
    sample: int = 0,
    layer: int | None = None,
    head: int | None = None,
) -> Float[Tensor, "rows cols"]:
    """Heat of each patch for the word at `place` of a sample's sequence, read from maps that are there: nothing is run.

    "attention" and "rollout" say what that position attends to, in block `layer` (rollout: in all up to it) and `head`,
    or in the mean over all; "gradient" says what made the word itself likelier, of that block and head, or of all.
    ValueError for an unknown method, a place without a word, maps without a graph where gradients are asked for, and a
    design that does not keep one token a patch.
    """
    if method not in READINGS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(READINGS)}")
    if not 0 <= place < output.layout.kind.shape[1] or not output.layout.is_text[sample, place]:
        raise ValueError(f"no word at place {place} of sample {sample}: see Layout.is_text for those that are")
    layers = decoder_attention(output)
    if method == "gradient":
        heat = _helped(_log_probability(output, batch, sample, place), layers, layer, head)
    elif method == "rollout":
        heat = _rollout(_chosen(layers if layer is None else layers[: layer + 1], None, head))[:, place]
    else:
        heat = _mean(_chosen(layers, layer, head))[:, place]
    return _on_grid(output, heat)[sample].detach()


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


def picture_attention(
    output: Output, layer: int | None = None, head: int | None = None
) -> Float[Tensor, "B L rows cols"]:
    """What every position attends to in the picture, patch by patch, in one block and head or in the mean over all."""
    reached = _mean(_chosen(decoder_attention(output), layer, head))  # (B, L, L)
    return _on_grid(output, reached.transpose(1, 2)).movedim(-1, 1)


def _chosen(layers: list[Tensor], layer: int | None, head: int | None) -> list[Tensor]:
    """Those maps of one block (None: of all), of one head (None: all)."""
    kept = layers if layer is None else [layers[layer]]
    return kept if head is None else [weights[:, [head]] for weights in kept]


@dataclass(frozen=True)
class _Said:
    """Of each sample's first labelled word: the position that says it, and its log-probability."""

    position: Int[Tensor, " B"]
    log_probability: Float[Tensor, " B"]


def _said(output: Output, batch: Batch) -> _Said:
    rows, columns, targets = answer_positions(output.layout, batch.labels)
    samples = torch.arange(len(batch), device=rows.device)
    if not torch.isin(samples, rows).all():
        raise ValueError("a sample has no labelled word, so nothing to explain")
    first = torch.searchsorted(rows, samples)  # rows are in order
    position = output.layout.predecessor()[samples, columns[first]]
    words = output.logits[samples, position].log_softmax(dim=-1)
    return _Said(position, words[samples, targets[first]])


def _log_probability(output: Output, batch: Batch, sample: int, place: int) -> Float[Tensor, ""]:
    """Of the word that stands at a place, given what comes before."""
    before = int(output.layout.predecessor()[sample, place])
    if before < 0:
        raise ValueError(f"nothing comes before place {place}, so nothing can have made its word likelier")
    word = batch.input_ids[sample, output.layout.index[sample, place]]
    return output.logits[sample, before].log_softmax(dim=-1)[word]


def _mean(layers: list[Float[Tensor, "B H L L"]]) -> Float[Tensor, "B L L"]:
    return torch.stack(layers).mean(dim=(0, 2))


def _rollout(layers: list[Float[Tensor, "B H L L"]]) -> Float[Tensor, "B L L"]:
    flow = None
    for weights in layers:
        mixed = weights.mean(dim=1) + torch.eye(weights.shape[-1], device=weights.device)  # (B, L, L)
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)  # a padded row attends to nothing but itself
        flow = mixed if flow is None else mixed @ flow
    return flow


def _helped(
    score: Float[Tensor, "*B"],
    layers: list[Float[Tensor, "B H L L"]],
    layer: int | None = None,
    head: int | None = None,
) -> Float[Tensor, "B L"]:
    """What each position gave to `score`, over whoever attended to it, in the chosen block and head."""
    if not all(weights.requires_grad for weights in layers):
        raise ValueError("these maps were made without gradients: call the model outside of torch.no_grad()")
    gradients = torch.autograd.grad(score.sum(), layers, retain_graph=True)
    helped = [(weights * gradient).clamp(min=0) for weights, gradient in zip(layers, gradients, strict=True)]
    return torch.stack(_chosen(helped, layer, head)).sum(dim=(0, 2, 3)).detach()  # (B, L)


def _on_grid(output: Output, heat: Float[Tensor, "B L *rest"]) -> Float[Tensor, "B rows cols *rest"]:
    """The heat of the visual tokens, laid out as the patches they are."""
    layout = output.layout
    rows, cols = int(layout.row.max()) + 1, int(layout.col.max()) + 1
    counts = layout.is_visual.sum(dim=1)
    if not rows or (counts != rows * cols).any() or (layout.row[layout.is_visual] < 0).any():
        raise ValueError("this batch does not hold one token for each patch of one picture, so heat has no place in it")
    return heat[layout.is_visual].view(len(heat), rows, cols, *heat.shape[2:])


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
