"""Pictures of a size drawn for each batch: a step is the same whoever asks, and only the pictures' size changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import tiny
import torch

from minivlm.batch import Batch
from minivlm.sized import SizedDialogs

STREAM = SizedDialogs(tiny.TOKENIZER, 6, sizes=(16, 24, 40), per_scene=3, objects=(1, 2), seed=5)


def batch_at(stream: SizedDialogs, step: int, rows: range = range(6)) -> Batch:
    return stream(step, rows).inputs[0]


def test_every_size_of_the_list_is_drawn_as_often_and_no_other():
    sides = [batch_at(replace(STREAM, batch_size=1), step, range(1)).images.shape[3:] for step in range(300)]
    drawn = Counter((height, width) for height, width in sides)
    assert set(drawn) == {(16, 16), (24, 24), (40, 40)}
    assert all(70 < times < 130 for times in drawn.values())


def test_a_step_is_the_same_whoever_asks_and_whenever():
    forwards = [batch_at(STREAM, step) for step in range(4)]
    torch.manual_seed(9)
    backwards = [batch_at(replace(STREAM), step) for step in (3, 2, 1, 0)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.input_ids, other.input_ids)
    assert not torch.equal(forwards[0].input_ids, batch_at(replace(STREAM, seed=6), 0).input_ids)


def test_the_parts_of_a_step_are_the_whole_and_have_its_size():
    for step in range(6):
        whole, parts = batch_at(STREAM, step), [batch_at(STREAM, step, rows) for rows in (range(2), range(2, 6))]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        ids = [part.input_ids[row, part.text_mask[row]].tolist() for part in parts for row in range(len(part))]
        assert ids == [whole.input_ids[row, whole.text_mask[row]].tolist() for row in range(6)]
        weights = [STREAM(step, rows).weight for rows in (range(2), range(2, 6), range(6))]
        assert weights[0] + weights[1] == weights[2] == int((whole.labels >= 0).sum())


def test_scenes_and_questions_do_not_depend_on_the_sizes():
    """What one arm of an experiment learns from one size, the other learns from several: nothing else differs."""
    single = replace(STREAM, sizes=(40,))
    for step in range(6):
        ours, theirs = batch_at(STREAM, step), batch_at(single, step)
        assert torch.equal(ours.input_ids, theirs.input_ids)
        if ours.images.shape == theirs.images.shape:
            assert torch.equal(ours.images, theirs.images)


def test_pictures_are_those_of_the_scenes_that_the_questions_are_about():
    """The colour that an answer names is in the picture: single objects, whose colour is the only answer."""
    from minivlm.data.scenes import BACKGROUNDS, COLORS

    batch = batch_at(replace(STREAM, sizes=(64,), tasks=("COLOR",), objects=(1, 1), per_scene=1), 0)
    for row in range(6):
        answer = tiny.TOKENIZER.decode(batch.labels[row][batch.labels[row] >= 0][:1].tolist())
        pixels = batch.images[row, 0].flatten(1).T  # (H * W, 3)
        background = min(BACKGROUNDS.values(), key=lambda c: float((pixels[0] - torch.tensor(c)).abs().sum()))
        farthest = pixels[(pixels - torch.tensor(background)).abs().sum(dim=1).argmax()]
        named = min(COLORS, key=lambda name: float((farthest - torch.tensor(COLORS[name])).abs().sum()))
        assert named == answer


@pytest.mark.parametrize("sizes", [(), (64, 0)])
def test_sizes_that_no_picture_has_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes are one or more sides in pixels, each at least 1; got"):
        replace(STREAM, sizes=sizes)
