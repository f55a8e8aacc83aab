"""What a processor of transformers makes of texts and pictures, as our model of the same system takes it.

A processor writes as many ids for a picture as there will be visual tokens; a `Batch` has one, and the model knows how
many that becomes. So what the processor left room for is checked against what ours makes, picture by picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minivlm.batch import Batch, pad_pictures
from minivlm.model import VLM
from minivlm.vision.hybrid import HybridConfig
from minivlm.vision.patches import PatchesConfig
from minivlm.vision.tiles import TilesConfig

Size = tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """Its pixels (3, H, W), centred as the processor does, or its features (N, D); and what it measures."""

    value: Tensor
    size: Size


def batch_of(inputs: Mapping[str, Any], model: VLM) -> Batch:
    """The batch of a processor's output (with `return_tensors="pt"`), for `model` as `minivlm.load` or
    `from_transformers` makes it: those leave centring to the processor. Where a processor hands on tiles, patches or
    two sizes of a picture, the features are made of these.

    ValueError where the places that a processor left for a picture are not as many as ours fills, or where pictures and
    texts do not go together.
    """
    ids = inputs["input_ids"]
    mask = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones_like(ids, dtype=torch.bool)
    marks = inputs["image_embeds_position_mask"].bool() if "image_embeds_position_mask" in inputs else None
    starts = mask & (ids == model.image_token_id if marks is None else marks)
    filled = starts | (mask & torch.isin(ids, torch.tensor(model.config.separators.words, dtype=ids.dtype)))
    sources = _pictures(inputs, model)
    tokens_of = cache(model.config.tokens_of) if model.fusion.opens else lambda size: 1  # seen from outside: its mark
    rows = [_closed(*row, tokens_of) for row in zip(starts, filled, sources, strict=True)]
    left = [picture for source in set(sources) for picture in source if picture.value.any()]  # what is empty is padding
    if left:
        raise ValueError(f"{len(left)} pictures more than the texts have places for: write one <image> for each")
    kept = [kept for kept, _ in rows]
    ids = ids.masked_fill(starts, model.image_token_id)
    return Batch(
        input_ids=pad_sequence([row[at] for row, at in zip(ids, kept, strict=True)], True),
        text_mask=pad_sequence([row[at] for row, at in zip(mask, kept, strict=True)], True),
        **_visual([taken for _, taken in rows], model),
        **_instruction(inputs),
    )


def _closed(
    starts: Tensor, filled: Tensor, pictures: Iterator[Picture], tokens_of: Any
) -> tuple[Tensor, list[Picture]]:
    """Which places of a text stay, one a picture, and its pictures."""
    kept, taken, at = [], [], 0
    while at < len(starts):
        kept.append(at)
        if not starts[at]:
            at += 1
            continue
        picture = next(pictures, None)
        if picture is None:
            raise ValueError(f"a text has places for more than its {len(taken)} pictures, from {at} on")
        wanted = tokens_of(picture.size)
        if not filled[at : at + wanted].all() or at + wanted > len(starts):
            room = int(filled[at:].int().cumprod(0).sum())
            raise ValueError(
                f"a picture of {picture.size} pixels fills {wanted} places here, the processor left {room}"
            )
        taken.append(picture)
        at += wanted
    return torch.tensor(kept), taken


def _pictures(inputs: Mapping[str, Any], model: VLM) -> list[Iterator[Picture]]:
    """Where each sample takes its pictures from: all from one row of them, or each from its own."""
    pixels, samples, vision = inputs.get("pixel_values"), len(inputs["input_ids"]), model.config.vision
    if isinstance(vision, PatchesConfig):
        return [iter(_of_patches(inputs, model))] * samples
    if pixels is None:
        return [iter(())] * samples
    if isinstance(vision, TilesConfig):
        return [iter(_of_tiles(pixels, inputs["image_sizes"].tolist(), model))] * samples
    if isinstance(vision, HybridConfig):
        return [iter(_of_both(pixels, inputs["high_res_pixel_values"], model))] * samples
    if pixels.ndim == 4:
        return [iter([Picture(value, tuple(value.shape[1:])) for value in pixels])] * samples
    inside = inputs.get("pixel_attention_mask", torch.ones_like(pixels[:, :, 0]))
    return [map(_cropped, *pair) for pair in zip(pixels, inside, strict=True)]


def _cropped(pixels: Tensor, inside: Tensor) -> Picture:
    height, width = int(inside.any(dim=1).sum()), int(inside.any(dim=0).sum())
    return Picture(pixels[:, :height, :width], (height, width))


def _of_tiles(pixels: Tensor, sizes: list[list[int]], model: VLM) -> Iterator[Picture]:
    """Of LLaVA-NeXT: the whole picture and the tiles of its canvas, with empty ones behind."""
    vision = model.config.vision
    for tiles, size in zip(pixels, map(tuple, sizes), strict=True):
        count = 1 + math.prod(vision.tiles(size))
        yield Picture(model.vision.of_tiles([tiles[:count]], [size], model.config.layer)[0], size)


def _of_patches(inputs: Mapping[str, Any], model: VLM) -> Iterator[Picture]:
    """Of Fuyu: the patches of all pictures, one a text, whose rows and columns only the ids tell."""
    patches, side = inputs.get("pixel_values", inputs.get("image_patches")), model.config.vision.patch_size
    if patches is None:
        return
    for row in inputs["input_ids"] == model.image_token_id:
        count = int(row.sum())
        cols = int(row[int(row.int().argmax()) :].int().cumprod(0).sum())
        if count:
            own, patches = patches[:count], patches[count:]
            yield Picture(own, (count // cols * side, cols * side))


def _of_both(low: Tensor, high: Tensor, model: VLM) -> Iterator[Picture]:
    """Of DeepSeek-VL 7B: a picture in two sizes, each centred for its encoder, which ours does itself."""
    vision = model.vision
    small, large = (x * tower.std + tower.mean for x, tower in ((low, vision.low), (high, vision.high)))
    seen = vision.low.final_norm(vision.low.hidden(small))
    for value in torch.cat([vision.high_features(large), seen], dim=-1):
        yield Picture(value, vision.config.image_size)


def _visual(taken: list[list[Picture]], model: VLM) -> dict[str, Any]:
    """The pictures of each sample as a `Batch` has them."""
    first = next((picture for own in taken for picture in own), None)
    if first is None:
        return dict(images=None)
    any_size = getattr(model.config.vision, "any_size", False)
    if first.value.ndim == 3:
        images, there, sizes = pad_pictures([[picture.value for picture in own] for own in taken])
        return dict(images=images, image_mask=there, sizes=sizes if any_size else None)
    most, longest = max(map(len, taken)), max(len(picture.value) for own in taken for picture in own)
    features = first.value.new_zeros(len(taken), most, longest, first.value.shape[-1])
    sizes = torch.tensor(first.size).repeat(len(taken), most, 1)
    for b, own in enumerate(taken):
        for m, picture in enumerate(own):
            features[b, m, : len(picture.value)] = picture.value
            sizes[b, m] = torch.tensor(picture.size)
    there = torch.arange(most) < torch.tensor([len(own) for own in taken])[:, None]
    return dict(images=None, features=features, image_mask=there, sizes=sizes if any_size else None)


def _instruction(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """InstructBLIP's question, as its Q-Former reads it."""
    if "qformer_input_ids" not in inputs:
        return {}
    return dict(instruction=inputs["qformer_input_ids"], instruction_mask=inputs["qformer_attention_mask"].bool())
