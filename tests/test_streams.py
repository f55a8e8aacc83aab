"""Streams: a step is the same whoever asks, its parts are parts of it, and its words are those of its pictures."""

from __future__ import annotations

import pytest
import tiny
import torch
from references import assert_same
from torch import Tensor

from minivlm.batch import Batch
from minivlm.data.captions import caption
from minivlm.data.scenes import CELLS, COLOR_NAMES, Scenes, render, sample_scenes
from minivlm.language.tokenizer import Tokenizer
from minivlm.streams import Bank, CaptionPairs, Descriptions, Dialogs, Telegrams, generator
from minivlm.train import Source, Step

T = tiny.TOKENIZER


def said(ids: Tensor) -> str:
    return T.decode(ids.tolist())


def streams(seed: int = 0) -> dict[str, Source]:
    bank = tiny.bank(tiny.vlm())
    return {
        "pairs": CaptionPairs(T, 6, context=40, seed=seed, objects=(1, 3), size=16),
        "captions": Dialogs(T, bank, 6, captions=True, seed=seed),
        "questions": Dialogs(T, bank, 6, seed=seed),
        "apart": Dialogs(T, bank, 6, apart=True, seed=seed),
        "blind": Dialogs(T, bank, 6, blind=True, seed=seed),
        "descriptions": Descriptions(T, 6, per_scene=3, seed=seed),
        "telegrams": Telegrams(T, 6, per_scene=3, seed=seed),
    }


NAMES = ("pairs", "captions", "questions", "apart", "blind", "descriptions", "telegrams")
LEARNING = NAMES[1:]


def samples(step: Step) -> list[list[Tensor]]:
    """What each sample of a step holds, without padding."""
    if not isinstance(step.inputs[0], Batch):
        return [list(sample) for sample in zip(*step.inputs, strict=True)]
    batch = step.inputs[0]
    found = []
    for i in range(len(batch)):
        words = batch.text_mask[i]
        texts = [getattr(batch, name)[i][words] for name in ("input_ids", "labels", "segments")]
        found.append(texts + ([batch.features[i]] if batch.features is not None else []))
    return found


def same(ours: list[list[Tensor]], theirs: list[list[Tensor]]) -> bool:
    return len(ours) == len(theirs) and all(
        len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_the_same_whoever_asks_and_whenever(name):
    first, other = streams()[name], streams()[name]
    forwards = [samples(first(step, range(6))) for step in range(4)]
    torch.manual_seed(123)
    backwards = [samples(other(step, range(6))) for step in (3, 2, 1, 0)][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert same(a, b)
    assert not any(same(forwards[i], forwards[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_other_batches(name):
    assert not same(samples(streams(0)[name](0, range(6))), samples(streams(1)[name](0, range(6))))


@pytest.mark.parametrize("cuts", [(3,), (1, 2), (2, 4)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_step_are_the_whole(name, cuts):
    stream = streams()[name]
    whole = stream(5, range(6))
    parts = [stream(5, range(start, end)) for start, end in zip((0, *cuts), (*cuts, 6), strict=True)]
    assert same([sample for part in parts for sample in samples(part)], samples(whole))
    assert sum(part.weight for part in parts) == whole.weight


@pytest.mark.parametrize("name", LEARNING)
def test_a_step_weighs_what_its_loss_is_a_mean_over(name):
    """Two parts' losses, weighed, are the whole's loss: the weight is the number of words that the loss counts."""
    stream, model = streams()[name], tiny.vlm()
    whole, *parts = (stream(0, rows) for rows in (range(6), range(1), range(1, 6)))
    assert whole.weight == sum(int((labels >= 0).sum()) for _, labels, *_ in samples(whole))
    with torch.no_grad():
        losses = [model(*step.inputs).loss * step.weight for step in (whole, *parts)]
    assert_same(losses[1] + losses[2], losses[0], 1e-3)  # of several hundred


def test_a_pair_weighs_one():
    assert streams()["pairs"](0, range(2, 5)).weight == 3


@torch.no_grad()
def test_a_bank_holds_the_features_of_its_pictures():
    model = tiny.vlm()
    scenes = sample_scenes(5, generator(3, 0))
    bank = Bank.make(model, scenes, batch_size=2)
    assert bank.scenes is scenes
    for i in range(5):
        image = render(Scenes.from_list([scenes[i]]), 16)
        assert_same(bank.features[i : i + 1], model.features(image[:, None]))
    assert not bank.features.requires_grad


def test_features_belong_to_the_words_beside_them():
    """Every caption names the objects of the very scene whose features stand beside it."""
    model = tiny.vlm()
    bank = tiny.bank(model)
    truths = [set(caption(bank.scenes[i]).split()) for i in range(len(bank.scenes))]
    batch = Dialogs(T, bank, 16, captions=True)(2, range(16)).inputs[0]
    seen = set()
    for i in range(16):
        told = set(said(batch.input_ids[i]).split())
        scene = next(k for k in range(12) if torch.equal(bank.features[k], batch.features[i]))
        seen.add(scene)
        assert told == truths[scene]
    assert len(seen) > 5


def test_questions_are_about_the_scene_beside_them():
    """Where a thing is said to be, there the scene of these features has it."""
    bank = tiny.bank(tiny.vlm())
    batch = Dialogs(T, bank, 16, tasks=("LOC",))(0, range(16)).inputs[0]
    asked = 0
    for i in range(16):
        scene = bank.scenes[next(k for k in range(12) if torch.equal(bank.features[k], batch.features[i]))]
        truth = {f"where is the {o.name} ? {CELLS[o.cell]}" for o in scene.objects}
        for segment in range(1, int(batch.segments[i].max()) + 1):
            words = batch.input_ids[i][(batch.segments[i] == segment) & batch.text_mask[i]]
            assert said(words) in truth
            asked += 1
    assert asked > 30


@pytest.mark.parametrize("rows", [range(6), range(2, 5)], ids=str)
def test_questions_apart_are_the_same_questions_about_the_same_pictures(rows):
    """One after the other, with their own words as the instruction; packed, there is no single one to give."""
    apart, packed = (streams()[name](3, rows) for name in ("apart", "questions"))
    assert apart.weight == packed.weight
    wanted = []
    for ids, labels, segments, features in samples(packed):
        for number in range(1, int(segments.max()) + 1):
            here = (segments == 0) | (segments == number)
            wanted.append([ids[here], labels[here], segments[here].clamp(max=1), features])
    assert same(samples(apart), wanted) and len(wanted) > 2 * len(rows)
    assert packed.inputs[0].instruction is None
    told, mask = apart.inputs[0].instruction, apart.inputs[0].instruction_mask
    for (ids, labels, segments, _), instruction, words in zip(wanted, told, mask, strict=True):
        assert torch.equal(instruction[words], ids[(segments == 1) & (labels < 0)])


def test_a_caption_has_an_instruction_without_words():
    batch = streams()["captions"](0, range(6)).inputs[0]
    assert len(batch.instruction) == 6 and not batch.instruction_mask.any()


def test_blind_is_the_same_words_without_pictures():
    blind, seeing = (samples(streams()[name](1, range(6))) for name in ("blind", "questions"))
    for (ids, labels, _), (ids_seen, labels_seen, *_) in zip(blind, seeing, strict=True):
        words = ids_seen != Tokenizer.image_id
        assert Tokenizer.image_id not in ids
        assert torch.equal(ids, ids_seen[words]) and torch.equal(labels, labels_seen[words])


@pytest.mark.parametrize("size", [16, 24])
def test_captions_are_those_of_their_pictures(size):
    """Picture and caption n are both of scene n, which the seed and the step alone decide."""
    stream = CaptionPairs(T, 8, context=60, seed=4, objects=(2, 3), size=size)
    images, ids = stream(7, range(2, 6)).inputs
    chance = generator(4, 7)
    scenes = sample_scenes(8, chance, min_objects=2, max_objects=3)
    assert torch.equal(images, render(scenes[2:6], size))
    for row, number in zip(ids, range(2, 6), strict=True):
        scene = scenes[number]
        assert 2 <= len(scene.objects) <= 3
        assert sorted(said(row).split()) == sorted(caption(scene).split())


def test_captions_come_in_every_order():
    stream = CaptionPairs(T, 64, context=60, objects=(2, 2), size=16)
    texts = [said(row) for row in stream(0, range(64)).inputs[1]]
    scenes = sample_scenes(64, generator(0, 0), min_objects=2, max_objects=2)
    in_reading_order = sum(text == caption(scenes[i]) for i, text in enumerate(texts))
    assert 16 < in_reading_order < 48


def test_pictures_can_be_described_another_way():
    stream = CaptionPairs(T, 4, context=8, size=16, describe=lambda scene, chance: scene.objects[0].name)
    scenes = sample_scenes(4, generator(0, 0), max_objects=1)
    assert [said(row) for row in stream(0, range(4)).inputs[1]] == [scenes[i].objects[0].name for i in range(4)]


def test_a_description_is_read_and_every_fourth_said_again():
    """The context tells the scene and is not learned; of every fourth it is told again, and that is."""
    stream = Descriptions(T, 8, per_scene=3, seed=2)
    scenes = sample_scenes(8, generator(2, 0))
    for i, (ids, labels, segments) in enumerate(samples(stream(0, range(8)))):
        context = ids[(segments == 0) & (ids != Tokenizer.bos_id)]
        assert said(context) == said(torch.tensor(T.encode(caption(scenes[i]))))
        assert (labels[segments == 0] < 0).all()
        parts = [(ids[segments == n], labels[segments == n]) for n in range(1, int(segments.max()) + 1)]
        if i % 4 == 0:
            again, learned = parts.pop()
            assert torch.equal(learned, again) and torch.equal(again[:-1], context) and again[-1] == Tokenizer.eos_id
        assert all(said(asked).count("?") == 1 for asked, _ in parts)


def test_descriptions_ask_what_they_are_told_to():
    stream = Descriptions(T, 4, tasks=("LOC",), objects=(4, 5), per_scene=6)
    for ids, _, segments in samples(stream(0, range(1, 4))):
        assert 4 <= said(ids[segments == 0]).count(" at ") <= 5
        for number in range(1, int(segments.max()) + 1):
            assert said(ids[segments == number]).startswith("where is the ")


def test_a_telegram_holds_the_answer_beside_the_word_that_asks():
    """Every quiz word stands once in the telegram, and the answer is the other word of its pair."""
    asked, colors_asked = 0, 0
    for ids, labels, segments in samples(Telegrams(T, 8, per_scene=5, objects=(2, 6), seed=3)(1, range(8))):
        pairs = [pair.split() for pair in said(ids[segments == 0]).split(" , ")]
        assert 2 <= len(pairs) <= 6
        for number in range(1, int(segments.max()) + 1):
            word, answer = said(ids[segments == number]).split()
            assert labels[segments == number].tolist() == [-100, *T.encode(answer), Tokenizer.eos_id]
            assert [pair for pair in pairs if word in pair] in ([[word, answer]], [[answer, word]])
            asked += 1
            colors_asked += answer in COLOR_NAMES
    assert asked > 30 and asked / 4 < colors_asked < asked * 3 / 4
