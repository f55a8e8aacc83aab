"""Evaluation: exact-match accuracy per task with its interval, retrieval, zero-shot classification.

A question counts as right when every word of its answer, and the end after it, is the likeliest one given those before:
exactly when greedy decoding would have said that answer. One forward pass tells, for many questions at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.batch import Batch, Encodes, each_apart
from minivlm.model import VLM, Output, answer_positions

_LEAST = 1e-12  # chance of another answer, at least


@runtime_checkable
class Question(Protocol):
    """What evaluation reads of a question; `minivlm.data.tasks.Question` has it all."""

    task: str
    text: str
    answer: str
    chance: float
    novel: bool


@dataclass(frozen=True)
class Score:
    """`right` of `total` answers, where guessing would get the share `chance`."""

    right: int
    total: int
    chance: float

    @property
    def accuracy(self) -> float:
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.right, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.accuracy:6.1%}  [{low:.1%}, {high:.1%}]  chance {self.chance:.1%}  n {self.total}"


def wilson(right: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion; (0, 1) where nothing was counted. `z` 1.96 gives 95 %."""
    if total == 0:
        return 0.0, 1.0
    share, shrink = right / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def answered(output: Output, batch: Batch) -> list[list[bool]]:
    """For every sample, for every one of its questions in order: was each word of the answer the likeliest?"""
    rows, columns, targets = answer_positions(output.layout, batch.labels)
    hit = output.logits[rows, output.layout.predecessor()[rows, columns]].argmax(dim=-1) == targets
    return [[all(words) for words in sample] for sample in _by_question(output, rows, columns, hit)]


def margins(output: Output, batch: Batch) -> list[list[float]]:
    """For every sample, for every one of its questions in order: the log-odds of its answer, log P - log(1 - P), where
    P is the chance that the model would say just that answer and then end.

    One pass tells this; what the other answers would get would take one for each. Above 0 the answer is likelier than
    all else together, hence right; below, it may still be the likeliest. The odds are of the answer as a whole: the sum
    over words would mostly tell how sure the end is, which all models are of. P is taken as at most 1 - 1e-12, so that
    margins end at 27.6.
    """
    rows, columns, targets = answer_positions(output.layout, batch.labels)
    scores = output.logits[rows, output.layout.predecessor()[rows, columns]].double().log_softmax(dim=-1)
    words = scores.gather(1, targets[:, None])[:, 0]
    log_p = [[sum(question) for question in sample] for sample in _by_question(output, rows, columns, words)]
    return [[p - math.log(max(-math.expm1(p), _LEAST)) for p in sample] for sample in log_p]


def _by_question(
    output: Output, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], values: Tensor
) -> list[list[list[float]]]:
    """Of every sample, of every one of its questions, the values of the words of its answer."""
    found: list[dict[int, list[float]]] = [{} for _ in range(len(output.logits))]
    segments = output.layout.segment[rows, columns]
    for row, segment, value in zip(rows.tolist(), segments.tolist(), values.tolist(), strict=True):
        found[row].setdefault(segment, []).append(value)
    return [list(sample.values()) for sample in found]


@dataclass(frozen=True)
class Graded:
    """A question, whether it was answered `right`, and by which `margin`."""

    question: Question
    right: bool
    margin: float


@torch.no_grad()
def grade(
    model: VLM,
    tokenizer: Encodes,
    questions: Sequence[Sequence[Question]],
    features: Float[Tensor, "S M N D"] | None,
    blind: bool = False,
    batch_size: int = 64,
    told: Sequence[str] | None = None,
) -> list[Graded]:
    """Every question on S pictures (as `VLM.features` made them), in order, and what came of it.

    `blind` leaves the pictures out; `told` are texts to read instead of them, or beside them.
    """
    found = []
    device = next(model.parameters()).device
    some = [i for i, sample in enumerate(questions) if sample]  # a picture may have none
    for start in range(0, len(some), batch_size):
        chosen = some[start : start + batch_size]
        asked = [questions[i] for i in chosen]
        dialogs = [[(q.text, q.answer) for q in sample] for sample in asked]
        pictures = torch.tensor(chosen)
        if model.connector.conditioned:
            dialogs, pictures = each_apart(dialogs, pictures)
        seen = None if blind or features is None else features[pictures]
        contexts = None if told is None else [told[i] for i in pictures.tolist()]
        batch = Batch.pack(tokenizer, dialogs, features=seen, contexts=contexts).to(device)
        output = model(batch)
        right, margin = (sum(made(output, batch), []) for made in (answered, margins))
        flat = [question for sample in asked for question in sample]
        found += [Graded(*one) for one in zip(flat, right, margin, strict=True)]
    return found


def evaluate(
    model: VLM,
    tokenizer: Encodes,
    questions: Sequence[Sequence[Question]],
    features: Float[Tensor, "S M N D"] | None,
    blind: bool = False,
    novel: bool | None = None,
    batch_size: int = 64,
    told: Sequence[str] | None = None,
) -> dict[str, Score]:
    """A `Score` for each task; see `grade`. `novel` True / False counts only questions about held-out / known
    combinations."""
    graded = grade(model, tokenizer, questions, features, blind, batch_size, told)
    return scores([one for one in graded if novel is None or one.question.novel == novel])


def scores(graded: Sequence[Graded]) -> dict[str, Score]:
    """A `Score` for each task."""
    tasks: dict[str, list[Graded]] = {}
    for one in graded:
        tasks.setdefault(one.question.task, []).append(one)
    return {
        task: Score(sum(one.right for one in found), len(found), sum(one.question.chance for one in found) / len(found))
        for task, found in sorted(tasks.items())
    }


@torch.no_grad()
def score_episodes(model: VLM, batch: Batch, others: Int[Tensor, " B"]) -> Score:
    """How often is the answer of an episode likelier than its other label, whose id is in `others`? Guessing gets
    half."""
    output = model(batch)
    rows, columns, targets = answer_positions(output.layout, batch.labels)
    scores = output.logits[rows, output.layout.predecessor()[rows, columns]]  # (B, V)
    own, other = (scores.gather(1, ids[:, None]) for ids in (targets, others))
    return Score(int((own > other).sum()), len(targets), 0.5)


def mean_accuracy(scores: dict[str, Score], tasks: Sequence[str] | None = None) -> float:
    """The mean over tasks, each counting the same."""
    chosen = tasks or list(scores)
    return sum(scores[task].accuracy for task in chosen) / len(chosen)


def table(scores: dict[str, Score], blind: dict[str, Score] | None = None) -> str:
    """The scores as text, a task a line, the blind model's accuracy beside them."""
    lines = [f"{'task':8}  accuracy  [95 % interval]" + ("     blind" if blind else "") + "   chance  questions"]
    for task, score in scores.items():
        low, high = score.interval
        beside = f"   {blind[task].accuracy:7.1%}" if blind else ""
        lines.append(
            f"{task:8}  {score.accuracy:7.1%}   [{low:6.1%}, {high:6.1%}]{beside}  {score.chance:7.1%}  {score.total:9}"
        )
    return "\n".join(lines)


def zero_shot(
    image_embeds: Float[Tensor, "I E"], class_embeds: Float[Tensor, "C E"], target: Int[Tensor, " I"]
) -> tuple[Score, Int[Tensor, " I"]]:
    """Each picture gets the class whose text is nearest; returns the score and the classes given. ValueError for NaN,
    which is the mean of a class without texts."""
    if not (image_embeds.isfinite().all() and class_embeds.isfinite().all()):
        raise ValueError("embeddings hold NaN or infinite values: is there a class without a single text?")
    given = (image_embeds @ class_embeds.T).argmax(dim=1)
    return Score(int((given == target).sum()), len(target), 1 / len(class_embeds)), given


def retrieval(image_embeds: Float[Tensor, "N E"], text_embeds: Float[Tensor, "N E"], k: int = 1) -> tuple[Score, Score]:
    """Is a picture's own text among its `k` nearest (image-to-text), and a text's own picture among its `k`?

    Row i of both belongs together. Equal rows of `text_embeds` (the same caption twice) are the same text: to find
    either, or a picture of either, is right. Among equally near ones the wrong come first, so all alike finds nothing.
    """
    similarity = image_embeds @ text_embeds.T
    text = torch.unique(text_embeds, dim=0, return_inverse=True)[1]
    own = text[:, None] == text[None, :]  # (pictures, texts)
    hits = []
    for near, right in ((similarity, own), (similarity.T, own.T)):
        best = near.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        hits.append(((near >= best) & ~right).sum(dim=1) < k)
    return tuple(Score(int(hit.sum()), len(text), k / len(text)) for hit in hits)
