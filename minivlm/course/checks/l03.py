"""Exercises of lesson 03: the projection, patches among the words, and what the loss is taken on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minivlm.batch import IGNORE, Batch
from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec, Mistake
from minivlm.fusion.interleave import interleave, merge
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.layout import VisualLayout


def project(features: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """LLaVA-1.5's connector with given weights: patches (B, N, D) to visual tokens (B, N, Dout)."""
    return F.linear(F.gelu(F.linear(features, w1, b1)), w2, b2)


def check_projection(answer: Callable) -> None:
    features = draw(2, 5, 4, seed=1)
    w1, b1, w2, b2 = draw(6, 4, seed=2), draw(6, seed=3), draw(6, 6, seed=4), draw(6, seed=5)
    hidden = F.linear(features, w1, b1)
    mean = features.mean(dim=1, keepdim=True).expand_as(features)
    classics = {
        "There is no activation between the two maps: two linear maps in a row are only one.":
            F.linear(hidden, w2, b2),
        "The activation is a ReLU; LLaVA-1.5 has a GELU.": F.linear(hidden.relu(), w2, b2),
        "The activation stands at the end as well: a visual token may be any vector, as a word is.":
            F.gelu(project(features, w1, b1, w2, b2)),
        "The activation stands at the end; it belongs between the two maps.": F.gelu(F.linear(hidden, w2, b2)),
        "It mixes the patches: all of a picture become the same token, and each must be mapped by itself.":
            project(mean, w1, b1, w2, b2),
        "It mixes the patches: one token a picture is left, and there must be one for each patch.":
            project(features.mean(dim=1), w1, b1, w2, b2),
        "The biases are missing.": F.linear(F.gelu(F.linear(features, w1)), w2),
        "The second matrix stands the wrong way round: a weight is (out, in), so multiply by its transpose.":
            F.gelu(hidden) @ w2 + b2,
    }  # fmt: skip
    compare(answer(features, w1, b1, w2, b2), project(features, w1, b1, w2, b2), classics)


def merge_row(words: Tensor, ids: Tensor, visual: Tensor, image_id: int) -> Tensor:
    """The package's `interleave` and `merge` for one row: words (T, D) and visual tokens (K, D) to (T - 1 + K, D)."""
    ids = ids[None]
    picture = VisualLayout.patches((1, len(visual)))
    layout = interleave(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids), picture, image_id)
    return merge(layout, words[None], visual[None, None])[0]


def check_merge(answer: Callable) -> None:
    for place in (2, 0, 5):  # in the middle first: there a slip shows most plainly
        words, visual = draw(6, 4, seed=1), draw(3, 4, seed=2)
        ids = torch.tensor([7, 8, 9, 9, 8, 7], device=words.device)
        ids[place] = 3
        _compare_rows(answer(words, ids, visual, 3), words, visual, place)


def _compare_rows(got: object, words: Tensor, visual: Tensor, place: int) -> None:
    before, after = words[:place], words[place + 1 :]
    rest = torch.cat([before, after])
    classics = {
        "The placeholder is still there, before the picture: its K tokens come INSTEAD of the <image> word.":
            torch.cat([words[: place + 1], visual, after]),
        "The placeholder is still there, after the picture: its K tokens come INSTEAD of the <image> word.":
            torch.cat([before, visual, words[place:]]),
        "Off by one: the word before <image> is lost.": torch.cat([words[: max(place - 1, 0)], visual, after]),
        "Off by one: the word after <image> is lost.": torch.cat([before, visual, words[place + 2 :]]),
        "Off by one: the picture stands one word too late, and a word stands where it should begin.":
            torch.cat([words[: place + 1], visual, words[place + 2 :]]),
        "Off by one: the picture stands one word too early.":
            torch.cat([words[: max(place - 1, 0)], visual, words[place:]]),
        "The wrong place: the picture stands at the front. Put it where <image> stood.": torch.cat([visual, rest]),
        "The wrong place: the picture stands at the end. Put it where <image> stood.": torch.cat([rest, visual]),
        "The visual tokens are in reverse order.": torch.cat([before, visual.flip(0), after]),
        "Only the first visual token was put in: all K of them belong there.":
            torch.cat([before, visual[:1], after]),
    }  # fmt: skip
    compare(got, torch.cat([before, visual, after]), classics)


def answer_labels(tokenizer: Tokenizer, dialog: Sequence[tuple[str, str]]) -> list[int]:
    """The labels that `Batch.pack` gives a row: <bos> <image>, then question, answer and end of every turn."""
    none = torch.empty(1, 1, 0, 0)
    return Batch.pack(tokenizer, [dialog], features=none).labels[0].tolist()


def check_labels(answer: Callable) -> None:
    tokenizer = mini_tokenizer()
    for dialog in ([("what color is the circle ?", "red"), ("where ?", "top left")], [("", "a small red circle")]):
        _compare_labels(answer(tokenizer, dialog), tokenizer, dialog)


def _compare_labels(got: object, tokenizer: Tokenizer, dialog: Sequence[tuple[str, str]]) -> None:
    if isinstance(got, Tensor):
        got = got.tolist()
    if not isinstance(got, (list, tuple)):
        raise Mistake(f"It must return a list of whole numbers, got {type(got).__name__}.")
    got, want = list(got), answer_labels(tokenizer, dialog)
    if got == want:
        return
    for message, wrong in _wrong_labels(tokenizer, dialog, want).items():
        if got == wrong:
            raise Mistake(message)
    if len(got) != len(want):
        raise Mistake(f"One label for each id of the row: {len(want)} for this dialog, got {len(got)}.")
    place = next(i for i, (one, other) in enumerate(zip(got, want, strict=True)) if one != other)
    raise Mistake(f"The label at place {place} should be {want[place]}, got {got[place]!r}.")


def _wrong_labels(tokenizer: Tokenizer, dialog: Sequence[tuple[str, str]], want: list[int]) -> dict[str, list[int]]:
    """What the classic mistakes give, by their messages."""
    ids = [tokenizer.bos_id, tokenizer.image_id]
    no_end = [IGNORE, IGNORE]
    for question, said in dialog:
        asked, told = tokenizer.encode(question), tokenizer.encode(said)
        ids += asked + told + [tokenizer.eos_id]
        no_end += [IGNORE] * len(asked) + told + [IGNORE]
    return {
        "The loss is taken on everything, the question and the picture as well: only answers are to be learned.": ids,
        "The loss is taken on the question as well: it is only read. Its labels are IGNORE.":
            [IGNORE, IGNORE, *ids[2:]],
        "The loss is taken on the picture: no word is right there, so the label of <image> is IGNORE.":
            [IGNORE, tokenizer.image_id, *want[2:]],
        "The loss is taken on the picture and on what comes before it: only answers are to be learned.":
            ids[:2] + want[2:],
        "Off by one: the labels are shifted to the left. The model's loss does that itself, so label each place with "
        "the word that stands there.": [*want[1:], IGNORE],
        "Off by one: the labels are shifted to the right.": [IGNORE, *want[:-1]],
        "The end of the answer is not learned: a model that never learns to stop talks on.": no_end,
        "The answers are ignored and the rest is learned: it is the other way round.":
            [IGNORE if label != IGNORE else id for label, id in zip(want, ids, strict=True)],
    }  # fmt: skip


EXERCISES = {
    "03.projection": ExerciseSpec("The connector of LLaVA-1.5", 2, project, check_projection),
    "03.merge": ExerciseSpec("Patches among the words", 2, merge_row, check_merge),
    "03.labels": ExerciseSpec("What the loss is taken on", 3, answer_labels, check_labels),
}
