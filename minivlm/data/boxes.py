"""Boxes: where in the picture a question looks, as shares of the picture's sides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minivlm.data.scenes import Scenes, boxes
from minivlm.data.tasks import Question

Box = tuple[float, float, float, float]  # left, top, right, bottom
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def boxes_of(
    questions: Sequence[Sequence[Question]], scenes: Scenes, size: int | tuple[int, int] = 64
) -> list[list[Box | None]]:
    """For each question on each scene the smallest box round all that it is about, tight at `size`, (H, W) or one side
    in pixels. A question on the background is about the whole picture, one on what is not there has None."""
    if len(questions) != len(scenes):
        raise ValueError(f"got questions on {len(questions)} scenes, but {len(scenes)} scenes: give a list for each")
    height, width = (size, size) if isinstance(size, int) else size
    found = boxes(scenes, size).cpu() / torch.tensor([width, height, width, height])  # (B, 9, 4)
    return [[_box(question, row) for question in asked] for asked, row in zip(questions, found, strict=True)]


def _box(question: Question, found: Tensor) -> Box | None:
    if not question.objects:
        return WHOLE if question.task == "COARSE" else None
    edges = found[list(question.objects)]  # (objects, 4)
    return tuple(edges[:, :2].amin(dim=0).tolist() + edges[:, 2:].amax(dim=0).tolist())
