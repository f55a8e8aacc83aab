"""Boxes of questions: round the objects that the words name, and nothing else."""

from __future__ import annotations

import pytest
import torch

from minivlm.data.boxes import WHOLE, boxes_of
from minivlm.data.scenes import Object, Scene, Scenes, masks, sample_scenes
from minivlm.data.tasks import ask


@pytest.mark.parametrize("size", [64, (50, 96)])
def test_a_box_touches_the_objects_that_a_question_is_about(size):
    generator = torch.Generator().manual_seed(4)
    scenes = sample_scenes(60, generator, "test")
    questions = ask(scenes, generator, per_scene=20, split="test")
    height, width = (size, size) if isinstance(size, int) else size
    kinds = set()
    for asked, found, mask in zip(questions, boxes_of(questions, scenes, size), masks(scenes, size), strict=True):
        for question, box in zip(asked, found, strict=True):
            if question.objects:
                rows, columns = mask[list(question.objects)].any(dim=0).nonzero(as_tuple=True)
                pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                shares = [int(edge) / side for edge, side in zip(pixels, (width, height) * 2, strict=True)]
                assert box == pytest.approx(shares, abs=1e-6)
            else:
                assert box == (WHOLE if "background" in question.text else None), question
            kinds.add((question.task, len(question.objects) > 1, box is None))
    assert {("LOC", False, False), ("COUNT", True, False), ("SPATIAL", True, False), ("EXIST", False, True)} <= kinds
    assert {("COARSE", False, False), ("COARSE", True, False)} <= kinds  # the background, the most common colour


def test_scenes_without_their_questions_are_refused():
    scenes = Scenes.from_list([Scene((Object(0, 0, 0, 0.5, 0.5),), 0)])
    with pytest.raises(ValueError, match="got questions on 2 scenes, but 1"):
        boxes_of([[], []], scenes)
