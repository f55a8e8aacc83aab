"""Evaluation: what counts as right is what the model would have said, and every number is the one counted slowly."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import pytest
import tiny
import torch
from references import pictures, randomise
from torch import Tensor, nn

from minivlm.batch import Batch
from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.connector import Connector
from minivlm.connectors.qformer import InstructQFormerConfig
from minivlm.evaluate import (
    Score,
    answered,
    evaluate,
    grade,
    margins,
    mean_accuracy,
    retrieval,
    table,
    wilson,
    zero_shot,
)
from minivlm.language.llama import LlamaConfig
from minivlm.model import VLM


class Numbers:
    """A tokenizer whose words are the ids themselves."""

    pad_id, bos_id, eos_id, image_id = range(4)

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


@dataclass(frozen=True)
class Asked:
    text: str
    answer: str
    task: str = "A"
    chance: float = 0.25
    novel: bool = False


WORDS = 14  # so few that the end, one of them, comes soon by chance


@pytest.fixture(scope="module", params=["sees all", "reads the question"])
def model(request) -> VLM:
    language = LlamaConfig(WORDS, width=16, depth=2, heads=2, kv_heads=1, mlp_width=24)
    config = replace(tiny.vlm().config, language=language)
    if request.param == "reads the question":
        bert = BertConfig(width=12, depth=2, heads=2, mlp_width=16)
        config = replace(config, connector=InstructQFormerConfig(3, VocabularyConfig(WORDS, context=8), bert))
    return randomise(config.build(), seed=10)  # one that ends what it says


@pytest.fixture(scope="module")
def features(model) -> Tensor:
    with torch.no_grad():
        return model.features(pictures(8, 1, 3, 16, 16))


def generated(model: VLM, question: str, features: Tensor | None, limit: int = 16) -> list[int]:
    """What the model says to one question alone, with its end if it comes to one."""
    return model.generate(Batch.pack(Numbers(), [[(question, "")]], features=features), limit)[0].tolist()


def answers_about(said: list[int]) -> list[str]:
    """What was said, and answers near it: without its last word, with one more, with another first or last word."""
    words = said[:-1]
    other = [[(word + 1 - 4) % (WORDS - 4) + 4 for word in part] for part in (words[:1], words[-1:])]
    near = [words, words[:-1], words + [5], other[0] + words[1:], words[:-1] + other[1]]
    return [" ".join(map(str, answer)) for answer in near if answer]


@pytest.fixture(scope="module")
def dialogs(model, features) -> list[list[Asked]]:
    """For each picture the questions that the model ends an answer to, each with several answers, right and wrong."""
    chance = torch.Generator().manual_seed(0)
    asked = []
    for seen in features.split(1):
        sample = []
        for length in (3,) * 6 + (0,):  # no question: a caption, whose first word follows the picture
            question = " ".join(map(str, torch.randint(4, WORDS, (length,), generator=chance).tolist()))
            said = generated(model, question, seen)
            if len(said) > 1 and said[-1] == Numbers.eos_id and Numbers.image_id not in said:
                sample += [Asked(question, answer) for answer in answers_about(said)]
        asked.append(sample)
    return asked


def truth(model: VLM, sample: list[Asked], seen: Tensor | None) -> list[bool]:
    """Does the model, asked this question alone, say this answer and then end?"""
    wanted = [Numbers().encode(q.answer) + [Numbers.eos_id] for q in sample]
    return [generated(model, q.text, seen, len(ids)) == ids for q, ids in zip(sample, wanted, strict=True)]


@pytest.fixture(scope="module")
def truths(model, features, dialogs) -> dict[bool, list[list[bool]]]:
    """For each picture, whether each answer is what the model would have said; under True, said blind."""
    seen = list(zip(dialogs, features.split(1), strict=True))
    return {blind: [truth(model, sample, None if blind else one) for sample, one in seen] for blind in (False, True)}


@torch.no_grad()
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "apart"])
def test_right_is_what_the_model_would_have_said(model, features, dialogs, truths, packed):
    wanted = truths[False]
    if packed and model.connector.conditioned:
        pytest.skip("its questions cannot be packed: each needs visual tokens of its own")
    if packed:
        batch = Batch.pack(Numbers(), [[(q.text, q.answer) for q in sample] for sample in dialogs], features=features)
        found = answered(model(batch), batch)
    else:
        found = [[] for _ in dialogs]
        for i, sample in enumerate(dialogs):
            for question in sample:
                batch = Batch.pack(Numbers(), [[(question.text, question.answer)]], features=features[i : i + 1])
                found[i] += answered(model(batch), batch)[0]
    assert found == wanted
    flat = [(q, hit) for pair in zip(dialogs, wanted, strict=True) for q, hit in zip(*pair, strict=True)]
    long = [(q, hit) for q, hit in flat if len(q.answer.split()) > 1]
    assert sum(hit for _, hit in long) >= 5 and sum(not hit for _, hit in long) >= 20
    assert {hit for q, hit in flat if not q.text} == {True, False}


# --- margins --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def odds(model: VLM, question: Asked, seen: Tensor | None) -> float:
    """Log-odds of an answer and its end, said word by word in a pass of its own each, the chances multiplied."""
    said, chance = "", 1.0
    alone = Batch.pack(Numbers(), [[(question.text, "")]], features=seen)
    reading = dict(instruction=alone.instruction, instruction_mask=alone.instruction_mask)  # never of the answer
    for word in [*Numbers().encode(question.answer), Numbers.eos_id]:
        batch = Batch.pack(Numbers(), [[(f"{question.text} {said}", "")]], features=seen)
        output = model(replace(batch, labels=None, **reading))
        chance *= float(output.logits[0, output.layout.lengths[0] - 1].double().softmax(dim=0)[word])
        said += f" {word}"
    return math.log(chance / (1 - chance))


@pytest.mark.parametrize("blind", [False, True], ids=["seeing", "blind"])
def test_a_margin_is_the_odds_of_the_whole_answer(model, features, dialogs, blind):
    dialogs = [sample[:6] if i < 4 else [] for i, sample in enumerate(dialogs)]
    graded = grade(model, Numbers(), dialogs, features, blind, batch_size=3)
    assert [one.question for one in graded] == [question for sample in dialogs for question in sample]
    wanted = [
        odds(model, question, None if blind else seen)
        for sample, seen in zip(dialogs, features.split(1), strict=True)
        for question in sample
    ]
    assert [one.margin for one in graded] == pytest.approx(wanted, abs=2e-4)
    assert all(one.right for one in graded if one.margin > 0)
    assert blind or {one.right for one in graded} == {True, False}
    assert len({len(one.question.answer.split()) for one in graded}) > 1


@pytest.mark.parametrize(
    ("sure", "margin"), [(1e3, 27.63), (-1e3, -2e3), (20.0, math.log(1 / (2 * 13 * math.exp(-20))))]
)
def test_a_margin_is_a_number_however_sure_the_model_is(sure, margin):
    """Two words, each so much likelier than each of 13 others."""
    model = tiny.vlm()
    batch = Batch.pack(Numbers(), [[("5", "6")]])
    output = model(batch)
    logits = torch.zeros(1, 4, WORDS)  # begin, 5, 6, end
    logits[0, 1, 6] = logits[0, 2, Numbers.eos_id] = sure
    assert margins(replace(output, logits=logits), batch) == [[pytest.approx(margin, rel=1e-2)]]


# --- accuracy per task ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blind", [False, True], ids=["seeing", "blind"])
@pytest.mark.parametrize("novel", [None, True, False])
def test_every_question_is_counted_once_under_its_task(model, features, dialogs, truths, novel, blind):
    tasks = ("A", "B", "C")
    asked = [
        [
            replace(q, task=tasks[(i + j) % 3], chance=1 / (2 + j % 3), novel=(i + 2 * j) % 5 < 2)
            for j, q in enumerate(s)
        ]
        for i, s in enumerate(dialogs)
    ]
    asked[3] = []  # a picture that nobody asks about
    wanted = {}
    for sample, hits in zip(asked, truths[blind], strict=True):
        for question, hit in zip(sample, hits, strict=bool(sample)):
            if novel is None or question.novel is novel:
                wanted.setdefault(question.task, []).append((hit, question.chance))
    for batch_size in (1, 3, 64):
        scores = evaluate(model, Numbers(), asked, features, blind, novel, batch_size)
        assert list(scores) == sorted(wanted)
        for task, found in wanted.items():
            assert (scores[task].right, scores[task].total) == (sum(hit for hit, _ in found), len(found))
            assert scores[task].chance == pytest.approx(sum(chance for _, chance in found) / len(found))


class Deaf(Connector, nn.Module):
    """A connector that is told the question and does not listen."""

    conditioned = True

    def __init__(self, connector: nn.Module):
        super().__init__()
        self.connector, self.told = connector, 0
        self.layout = connector.layout

    def forward(self, features: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        self.told += len(ids)
        return self.connector(features)


@pytest.mark.parametrize("model", ["sees all"], indirect=True)
def test_the_same_answers_are_right_whether_questions_are_packed_or_apart(model, features, dialogs):
    packed = evaluate(model, Numbers(), dialogs, features)
    apart = copy.copy(model)
    apart._modules = {**model._modules, "connector": Deaf(model.connector)}
    assert evaluate(apart, Numbers(), dialogs, features, batch_size=3) == packed
    assert apart.connector.told == sum(map(len, dialogs)) == packed["A"].total


def test_no_questions_no_scores(model, features):
    assert evaluate(model, Numbers(), [[] for _ in features], features) == {}


def test_tasks_count_alike_in_the_mean():
    scores = {"A": Score(1, 2, 0.5), "B": Score(3, 30, 0.5), "C": Score(4, 4, 0.5)}
    assert mean_accuracy(scores) == pytest.approx((0.5 + 0.1 + 1) / 3)
    assert mean_accuracy(scores, ["A", "C"]) == pytest.approx(0.75)


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_of_published_values(right, total, low, high):
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3."""
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (1, 3), (7, 9), (450, 500), (1, 100_000)])
def test_wilson_holds_what_a_score_test_does_not_reject(right, total):
    """Its ends are where the share lies z standard errors away, the error being that of the end itself."""
    for end in wilson(right, total):
        assert 0 <= end <= 1
        assert (right / total - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / total, abs=1e-12)


def test_wilson_of_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Score(0, 0, 0.5).accuracy)


def test_scores_as_text():
    scores = {"COLOR": Score(95, 100, 0.1), "SPATIAL": Score(0, 0, 0.5)}
    blind = {"COLOR": Score(10, 100, 0.1), "SPATIAL": Score(1, 2, 0.5)}
    assert table(scores).splitlines() == [
        "task      accuracy  [95 % interval]   chance  questions",
        "COLOR       95.0%   [ 88.8%,  97.8%]    10.0%        100",
        "SPATIAL      nan%   [  0.0%, 100.0%]    50.0%          0",
    ]
    assert table(scores, blind).splitlines() == [
        "task      accuracy  [95 % interval]     blind   chance  questions",
        "COLOR       95.0%   [ 88.8%,  97.8%]     10.0%    10.0%        100",
        "SPATIAL      nan%   [  0.0%, 100.0%]     50.0%    50.0%          0",
    ]
    assert str(scores["COLOR"]) == " 95.0%  [88.8%, 97.8%]  chance 10.0%  n 100"


# --- two towers -----------------------------------------------------------------------------------------------------


def slow_retrieval(near: Tensor, texts: list[int], k: int) -> int:
    """How many rows have one of the same text among the `k` nearest columns, the wrong before the right where equal."""
    hits = 0
    for i, row in enumerate(near.tolist()):
        ranked = sorted(range(len(row)), key=lambda j: (-row[j], texts[j] == texts[i]))
        hits += any(texts[j] == texts[i] for j in ranked[:k])
    return hits


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("texts", [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 0, 4, 0, 6], [0, 0, 2, 2, 2, 5, 5]], ids=str)
def test_retrieval_counted_slowly(texts, k):
    """Whole numbers, so that many pairs are exactly equally near."""
    found = []
    for seed in range(30):
        chance = torch.Generator().manual_seed(seed)
        image = torch.randint(-1, 2, (7, 3), generator=chance).float()
        text = torch.cat([torch.randint(-1, 2, (7, 3), generator=chance).float(), torch.eye(7)], dim=1)[texts]
        image = torch.cat([image, torch.zeros(7, 7)], dim=1)  # the last columns only tell texts apart
        near = image @ text.T
        scores = retrieval(image, text, k)
        found += [score.right for score in scores]
        assert [score.right for score in scores] == [slow_retrieval(near, texts, k), slow_retrieval(near.T, texts, k)]
        assert {(score.total, score.chance) for score in scores} == {(7, k / 7)}
    assert 0 < sum(found) < 7 * len(found)


def test_retrieval_of_what_belongs_together():
    embeddings = torch.eye(6)
    assert [score.right for score in retrieval(embeddings, embeddings)] == [6, 6]
    assert [score.right for score in retrieval(embeddings, embeddings.roll(1, dims=0))] == [0, 0]


@pytest.mark.parametrize("count", [7, 9, 17, 33])
def test_the_same_caption_is_as_right_whatever_rounding_does(count):
    """Equal rows need not have equal products to the last digit; whichever is found, it is the right caption."""
    chance = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(1, 33, generator=chance), dim=1).expand(count, -1)
    image = torch.nn.functional.normalize(torch.randn(count, 33, generator=chance), dim=1)
    assert [score.right for score in retrieval(image, text.contiguous())] == [count, count]


def test_pictures_that_all_look_alike_find_nothing():
    text = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    scores = retrieval(torch.ones(9, 5), text)
    assert scores[0].right == 1 and scores[1].right == 0  # all of them are nearest to one text


@pytest.mark.parametrize("seed", range(5))
def test_zero_shot_counted_slowly(seed):
    chance = torch.Generator().manual_seed(seed)
    images = torch.randint(-1, 2, (40, 2), generator=chance).float()  # equally near classes are common
    classes = torch.randint(-1, 2, (4, 2), generator=chance).float()
    target = torch.randint(4, (40,), generator=chance)
    score, given = zero_shot(images, classes, target)
    right = 0
    for image, own, chosen in zip(images, target, given, strict=True):
        near = [float(image @ c) for c in classes]
        assert int(chosen) == near.index(max(near))  # the first of the nearest
        right += int(chosen) == int(own)
    assert (score.right, score.total, score.chance) == (right, 40, 0.25)
