"""Episodes: a rule holds within each, nothing outside gives it away, and what is scored is the label that was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from references import randomise

from minivlm.batch import Batch
from minivlm.data.episodes import RULES, Episodes, sample_episodes, tell
from minivlm.data.scenes import COLOR_NAMES, SHAPE_NAMES, sample_scenes
from minivlm.evaluate import evaluate, score_episodes
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.streams import Bank, Shots, generator, pack_episodes

T = mini_tokenizer()
SINGLE = sample_scenes(300, generator(3, 0), max_objects=1)
NAMES = {"color": COLOR_NAMES, "shape": SHAPE_NAMES}
DECIDES = {"color": "shape", "shape": "color"}


def drawn(rule: str, n: int = 400, shots: int = 4, seed: int = 0) -> Episodes:
    return sample_episodes(SINGLE, n, shots, rule, generator(seed, 0))


@pytest.mark.parametrize("rule", RULES)
def test_one_value_of_what_decides_for_each_label(rule):
    episodes = drawn(rule)
    values = getattr(SINGLE, DECIDES[rule])[episodes.scene, 0]  # (B, cases)
    for shown, answers in zip(values.tolist(), episodes.answer.tolist(), strict=True):
        sides = [{v for v, a in zip(shown, answers, strict=True) if a == side} for side in (0, 1)]
        assert all(len(side) <= 1 for side in sides) and not sides[0] & sides[1]
    assert len(values.unique()) == len(NAMES[DECIDES[rule]])
    assert {label for pair in episodes.labels for label in pair} == set(NAMES[rule])
    assert all(a != b for a, b in episodes.labels)
    assert ((episodes.answer.float().mean(dim=1) % 1) > 0).float().mean() == pytest.approx(1 - 2 * 0.5**5, abs=0.05)


@pytest.mark.parametrize("rule", RULES)
def test_nothing_but_the_shots_tells_the_answer(rule):
    """Without them either label is as likely, whatever it is, whatever the picture shows, and whatever colour or shape
    it has itself."""
    episodes = drawn(rule, 6000, shots=1)
    right, wrong = episodes.right(), episodes.wrong()
    own = [NAMES[rule][v] for v in getattr(SINGLE, rule)[episodes.scene[:, -1], 0].tolist()]
    for label in NAMES[rule]:
        share = right.count(label) / (right.count(label) + wrong.count(label))
        assert share == pytest.approx(0.5, abs=0.06)
    theirs = [label == mine for label, mine in zip(right, own, strict=True)]
    assert sum(theirs) / len(theirs) == pytest.approx(1 / len(NAMES[rule]), abs=0.03)
    value = getattr(SINGLE, DECIDES[rule])[episodes.scene[:, -1], 0] == 0
    first = torch.tensor([label == NAMES[rule][0] for label in right])
    assert float(first[value].float().mean()) == pytest.approx(1 / len(NAMES[rule]), abs=0.06)
    assert float((episodes.answer[:, 0] == episodes.answer[:, 1]).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_what_makes_no_episode_is_refused():
    with pytest.raises(ValueError, match="one object a picture"):
        sample_episodes(sample_scenes(20, generator(0, 0), min_objects=2), 1, 1, "color", generator(0, 0))
    with pytest.raises(ValueError, match="at least one episode and no fewer than 0 shots, got 2 of -1"):
        sample_episodes(SINGLE, 2, -1, "color", generator(0, 0))
    with pytest.raises(ValueError, match="two values of color to tell apart"):
        sample_episodes(SINGLE[:1], 2, 2, "shape", generator(0, 0))
    with pytest.raises(ValueError, match="unknown rule 'size'; choose one of color, shape"):
        sample_episodes(SINGLE, 2, 2, "size", generator(0, 0))


def test_an_episode_reads_as_it_says():
    circle, square = (next(i for i in range(300) if int(SINGLE.shape[i, 0]) == v) for v in (0, 1))
    names = [SHAPE_NAMES[0], SHAPE_NAMES[1]]
    colors = Episodes("color", torch.tensor([[circle, square, circle]]), torch.tensor([[0, 1, 0]]), (("red", "blue"),))
    told = torch.tensor([[True, False, True]])
    [text] = tell(colors, SINGLE, told)
    assert text == f"a red {names[0]} , a blue <image> . what color is the {names[0]} ?"
    assert (colors.right(), colors.wrong()) == (["red"], ["blue"])
    own = COLOR_NAMES[int(SINGLE.color[circle, 0])]
    shapes = Episodes("shape", torch.tensor([[square, circle]]), torch.tensor([[1, 0]]), (("ring", "heart"),))
    [text] = tell(shapes, SINGLE, torch.tensor([[False, True]]))
    assert text == f"a <image> heart . what shape is the {own} object ?"
    [text] = tell(shapes, SINGLE, torch.tensor([[False, False]]))
    assert text == "a <image> heart . what shape is the <image> object ?"
    alone = Episodes("color", torch.tensor([[circle]]), torch.tensor([[1]]), (("red", "blue"),))
    assert tell(alone, SINGLE, torch.tensor([[False]])) == ["what color is the <image> ?"]


def tiny_bank() -> Bank:
    return Bank(SINGLE, torch.randn(len(SINGLE), 1, 4, 16, generator=generator(1, 0)))


def test_a_batch_has_the_pictures_that_its_words_call_for():
    episodes, bank = drawn("color", 6, shots=3), tiny_bank()
    told = torch.rand(6, 4, generator=generator(2, 0)) < 0.5
    told[0], told[1] = True, False
    batch = pack_episodes(T, episodes, bank, told)
    texts = tell(episodes, SINGLE, told)
    for i, (text, answer) in enumerate(zip(texts, episodes.right(), strict=True)):
        assert batch.input_ids[i].tolist() == [T.bos_id, *T.encode(f"{text} {answer}")]
        assert batch.labels[i].tolist() == [-100] * (batch.input_ids.shape[1] - 1) + T.encode(answer)
        shown = episodes.scene[i][~told[i]]
        assert int(batch.num_images[i]) == len(shown) == int((batch.input_ids[i] == T.image_id).sum())
        assert torch.equal(batch.features[i, : len(shown)], bank.features[shown, 0])
    words = pack_episodes(T, episodes, bank, torch.ones(6, 4, dtype=torch.bool))
    assert words.features is None and words.image_mask is None and not (words.input_ids == T.image_id).any()


def test_a_stream_of_episodes_is_the_same_for_whoever_asks():
    shots = Shots(T, tiny_bank(), batch_size=6, told=0.5)
    whole, part = shots(4, range(6)), shots(4, range(2, 5))
    assert whole.weight == 6 and part.weight == 3
    assert torch.equal(whole.inputs[0].input_ids[2:5], part.inputs[0].input_ids)
    lengths = {shots(step, range(6)).inputs[0].input_ids.shape[1] for step in range(40)}
    assert lengths == {3 * n + 1 + (n - 1) + 1 + words + 1 for n in range(2, 7) for words in (6, 7)}


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_tells_in_words_what_it_says(asked):
    for step in range(4):
        batch = Shots(T, tiny_bank(), 5, told=float(not asked), asked=asked)(step, range(5)).inputs[0]
        question = next(n for n, i in enumerate(batch.input_ids[0].tolist()) if T.words[i] == "what")
        is_image = batch.input_ids == T.image_id
        assert is_image[:, question:].any() == (not asked)
        assert is_image[:, :question].any() == asked


def reader():
    config = tiny.vlm().config
    return randomise(replace(config, language=replace(config.language, vocab_size=len(T))).build())


@pytest.mark.parametrize("rule", RULES)
def test_episodes_are_scored_as_if_each_were_asked_alone(rule):
    model, episodes = reader(), drawn(rule, 40, shots=2)
    bank = Bank.make(model, SINGLE)
    others = torch.tensor([T.encode(label)[0] for label in episodes.wrong()])
    score = score_episodes(model, pack_episodes(T, episodes, bank), others)
    right = 0
    with torch.no_grad():
        for i, text in enumerate(tell(episodes, SINGLE, torch.zeros(40, 3, dtype=torch.bool))):
            ids = torch.tensor([[T.bos_id, *T.encode(text)]])
            last = model(Batch(None, ids, features=bank.features[episodes.scene[i], 0][None])).logits[0, -1]
            right += int(last[T.encode(episodes.right()[i])[0]] > last[others[i]])
    assert (score.right, score.total, score.chance) == (right, 40, 0.5) and 0 < right < 40


def test_what_is_told_is_read_by_the_questions_of_that_picture():
    from minivlm.data.captions import caption
    from minivlm.data.tasks import ask

    model, scenes = reader(), sample_scenes(12, generator(5, 0), min_objects=3)
    questions = ask(scenes, generator(6, 0), ("COLOR", "LOC"), per_scene=4)
    told = [caption(scenes[i]) for i in range(len(scenes))]
    got = evaluate(model, T, questions, None, told=told, batch_size=5)
    right = {"COLOR": 0, "LOC": 0}
    for text, asked in zip(told, questions, strict=True):
        for question in asked:
            batch = Batch.pack(T, [[(question.text, "")]], contexts=[text])
            said = model.generate(batch, max_new_tokens=2)[0].tolist()
            right[question.task] += said == [*T.encode(question.answer), T.eos_id]
    assert {task: score.right for task, score in got.items()} == right
