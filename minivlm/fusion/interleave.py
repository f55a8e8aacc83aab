"""Interleaving: visual tokens take their place among the words of one sequence, and the decoder reads on (LLaVA).

Token count: a text of T ids with M `<image>` ids and K visual tokens a picture becomes T - M + M * K positions; where
pictures differ in size, each has a K of its own.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.layout import Kind, Layout, VisualLayout


def interleave(
    input_ids: Int[Tensor, "B T"],
    text_mask: Bool[Tensor, "B T"],
    segments: Int[Tensor, "B T"],
    visual: VisualLayout | None,
    image_id: int,
    one_place: bool = False,
) -> Layout:
    """The layout of the whole sequence: each `<image>` id opens into the tokens of `visual`, that of every picture or
    the stack of all (None: it stays a word); padding goes to the right. With `one_place` all patches of a picture are
    told the same position."""
    is_image = (input_ids == image_id) & text_mask
    numbers = is_image.cumsum(dim=1) - 1  # (B, T): of the latest picture
    widths = text_mask.long()
    if visual is not None:
        visual = _of_each(visual, numbers)
        rows = torch.arange(len(input_ids), device=input_ids.device)[:, None]
        counts = (visual.kind != Kind.PAD).sum(dim=-1)  # (B, M)
        widths = torch.where(is_image, counts[rows, numbers.clamp(min=0)], widths)  # (B, T)
    ends = widths.cumsum(dim=1)
    length = int(ends[:, -1].max())
    place = torch.arange(length, device=input_ids.device).expand(len(input_ids), -1).contiguous()  # (B, L)
    valid = place < ends[:, -1:]
    source = torch.searchsorted(ends, place, right=True).clamp(max=input_ids.shape[1] - 1)  # (B, L): which id
    offset = place - (ends - widths).gather(1, source)  # (B, L): how far into it
    at_image = is_image.gather(1, source) & valid
    opened = at_image & (visual is not None)

    def visual_or(name: str, text: Tensor | int) -> Tensor:
        if visual is None:
            return torch.full_like(place, text)
        field = getattr(visual, name)[rows, number.clamp(min=0), offset.clamp(0, len(visual) - 1)]  # (B, L)
        return torch.where(opened, field, text)

    number = numbers.gather(1, source)  # (B, L)
    kind = visual_or("kind", Kind.TEXT).where(valid, Kind.PAD)
    further = (kind == Kind.PATCH) & (torch.roll(kind, 1, dims=1) == Kind.PATCH) & (offset > 0)
    segment = segments.gather(1, source).where(valid, -1)
    return Layout(
        kind=kind,
        image=number.where(at_image, -1),
        view=visual_or("view", 0).where(valid, 0),
        row=visual_or("row", -1).where(valid, -1),
        col=visual_or("col", -1).where(valid, -1),
        index=torch.where(opened, offset, source).where(valid, -1),
        segment=segment,
        position=count_places(segment, valid & ~further if one_place else valid).where(valid, 0),
        latest=number.where(valid, -1),
    )


def _of_each(visual: VisualLayout, numbers: Int[Tensor, "B T"]) -> VisualLayout:
    """The layout of each picture, (B, M, K), on the device of `numbers`: they share one, or have come as a stack."""
    columns = (getattr(visual, f.name).to(numbers.device) for f in fields(VisualLayout))
    if visual.kind.ndim > 1:
        return VisualLayout(*columns)
    images = max(1, int(numbers.max()) + 1)
    return VisualLayout(*(column.expand(len(numbers), images, -1) for column in columns))


def count_places(segment: Int[Tensor, "B L"], counts: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Positions 0, 1, 2, ... along the shared part, each place that `counts` one further than the last; every later
    segment counts on from the end of the shared part."""
    place = counts.long().cumsum(dim=1) - 1
    shared = ((segment == 0) & counts).sum(dim=1, keepdim=True)  # (B, 1)
    starts = torch.where(segment != torch.roll(segment, 1, dims=1), place, 0).cummax(dim=1).values  # (B, L)
    return torch.where(segment == 0, place, shared + place - starts)


def merge(
    layout: Layout, text: Float[Tensor, "B T D"], visual: Float[Tensor, "B M K D"] | None
) -> Float[Tensor, "B L D"]:
    """Vectors for every position of `layout`: words from `text`, visual tokens from `visual`, zeros for padding."""
    rows = torch.arange(len(text), device=text.device)[:, None]
    index = layout.index.clamp(min=0)
    merged = text[rows, index.clamp(max=text.shape[1] - 1)]  # (B, L, D)
    if visual is not None:
        placed = visual[rows, layout.image.clamp(min=0), index.clamp(max=visual.shape[2] - 1)]  # (B, L, D)
        merged = torch.where(layout.is_visual[..., None], placed.to(merged.dtype), merged)
    return merged * layout.valid[..., None]
