"""Episodes: a rule holds within each, nothing outside gives it away, and what is scored is the label that was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from references import randomise

from minivlm.batch import Batch
from minivlm.data.episodes import LABELS, Episodes, sample_episodes
from minivlm.data.scenes import sample_scenes
from minivlm.evaluate import evaluate, score_shots
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.streams import Bank, Shots, generator, pack_episodes

T = mini_tokenizer()
SINGLE = sample_scenes(300, generator(3, 0), max_objects=1)


def drawn(n: int = 400, cases: int = 5, seed: int = 0) -> Episodes:
    return sample_episodes(SINGLE, n, cases, generator(seed, 0))


def rules(episodes: Episodes, i: int) -> set[str]:
    """The attributes that tell the answers of an episode: one value where it is 0, another where it is 1."""
    found = set()
    for name in ("color", "shape"):
        values = getattr(SINGLE, name)[episodes.scene[i], 0].tolist()
        sides = [{v for v, a in zip(values, episodes.answer[i].tolist(), strict=True) if a == side} for side in (0, 1)]
        if all(len(side) <= 1 for side in sides) and not sides[0] & sides[1]:
            found.add(name)
    return found


def test_a_rule_tells_the_cases_of_an_episode_and_both_kinds_occur():
    episodes = drawn()
    told = [rules(episodes, i) for i in range(len(episodes))]
    assert all(told)
    assert {"color"} in told and {"shape"} in told
    colors, shapes = (getattr(SINGLE, name)[episodes.scene, 0].unique() for name in ("color", "shape"))
    assert (len(colors), len(shapes)) == (10, 8)
    assert {label for pair in episodes.labels for label in pair} == set(LABELS)
    for name in ("color", "shape"):  # every value is one that a rule is about
        about = [episodes.scene[i] for i in range(len(episodes)) if told[i] == {name}]
        assert len(getattr(SINGLE, name)[torch.stack(about), 0].unique()) == {"color": 10, "shape": 8}[name]
    both = episodes.answer.float().mean(dim=1)
    assert ((both > 0) & (both < 1)).float().mean() == pytest.approx(1 - 2 * 0.5**5, abs=0.05)


def test_nothing_but_earlier_cases_tells_the_label():
    """Each label is on either side as often, whatever the picture shows; each case is a coin toss for itself."""
    episodes = drawn(4000, cases=2)
    first = [labels[answer] for labels, answer in zip(episodes.labels, episodes.answer[:, 0].tolist(), strict=True)]
    red = SINGLE.color[episodes.scene[:, 0], 0] == 0
    for label in LABELS:
        among = torch.tensor([label in pair for pair in episodes.labels])
        right = torch.tensor([given == label for given in first])
        assert float(right[among].float().mean()) == pytest.approx(0.5, abs=0.06)
        assert float(right[among & red].float().mean()) == pytest.approx(0.5, abs=0.2)
    assert float((episodes.answer[:, 0] == episodes.answer[:, 1]).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert all(a != b for a, b in episodes.labels)


def test_what_makes_no_episode_is_refused():
    with pytest.raises(ValueError, match="one object a picture"):
        sample_episodes(sample_scenes(20, generator(0, 0), min_objects=2), 1, 1, generator(0, 0))
    with pytest.raises(ValueError, match="at least one episode of one case, got 2 of 0"):
        sample_episodes(SINGLE, 2, 0, generator(0, 0))
    with pytest.raises(ValueError, match="two colours, or two shapes"):
        sample_episodes(SINGLE[:1], 2, 2, generator(0, 0))


def tiny_bank() -> Bank:
    return Bank(SINGLE, torch.randn(len(SINGLE), 1, 4, 16, generator=generator(1, 0)))


@pytest.mark.parametrize("told", [False, True])
def test_an_episode_reads_as_it_says(told):
    episodes, bank = drawn(6, cases=3), tiny_bank()
    batch = pack_episodes(T, episodes, bank, told)
    for i, (a, b) in enumerate(episodes.labels):
        cases = zip(episodes.scene[i].tolist(), episodes.answer[i].tolist(), strict=True)
        names = [(SINGLE[scene].objects[0].name if told else "<image>", (a, b)[answer]) for scene, answer in cases]
        text = f"{a} or {b} ? " + " ".join(f"{name} is {label} ." for name, label in names)
        assert batch.input_ids[i].tolist() == [T.bos_id, *T.encode(text)]
        learned = batch.labels[i] >= 0
        assert T.decode(batch.input_ids[i][learned].tolist()) == " ".join(label for _, label in names)
        assert torch.equal(batch.labels[i][learned], batch.input_ids[i][learned])
        if not told:
            assert torch.equal(batch.features[i], bank.features[episodes.scene[i], 0])
    assert told == (batch.features is None)


def test_a_stream_of_episodes_is_the_same_for_whoever_asks():
    shots = Shots(T, tiny_bank(), batch_size=6, cases=3)
    whole, part = shots(4, range(6)), shots(4, range(2, 5))
    assert whole.weight == 18 and part.weight == 9
    assert torch.equal(whole.inputs[0].input_ids[2:5], part.inputs[0].input_ids)
    assert not torch.equal(shots(5, range(6)).inputs[0].input_ids, whole.inputs[0].input_ids)


def reader():
    config = tiny.vlm().config
    return randomise(replace(config, language=replace(config.language, vocab_size=len(T))).build())


def test_shots_are_scored_as_if_each_case_were_asked_alone():
    model, episodes, cases = reader(), drawn(40, cases=3), 3
    bank = Bank.make(model, SINGLE)
    batch = pack_episodes(T, episodes, bank)
    others = [[T.encode(pair[1 - answer])[0] for answer in answers]
              for pair, answers in zip(episodes.labels, episodes.answer.tolist(), strict=True)]  # fmt: skip
    scores = score_shots(model, batch, torch.tensor(others))
    with torch.no_grad():
        for case in range(cases):
            right = 0
            for i in range(len(episodes)):
                asked = (batch.input_ids[i] == T.image_id).nonzero().flatten()[case] + 2  # "<image> is"
                here = Batch(None, batch.input_ids[i : i + 1, :asked], features=batch.features[i : i + 1, : case + 1])
                own = T.encode(episodes.labels[i][episodes.answer[i, case]])[0]
                last = model(here).logits[0, -1]
                right += int(last[own] > last[others[i][case]])
            assert (scores[case].right, scores[case].total, scores[case].chance) == (right, 40, 0.5)


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
