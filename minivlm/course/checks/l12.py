"""Exercises of lesson 12: a block that works on a few places, who decides when the future is unknown, and what skipping
saves."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec, Mistake
from minivlm.language.routed import highest, on_picked
from minivlm.runtime import pick_device

Block = Callable[[Tensor, Tensor], Tensor]


def routed(block: Block, x: Tensor, r: Tensor, n: int) -> Tensor:
    """The package's routed block on one sequence: states (L, D) and scores (L,) to states (L, D)."""
    places = torch.arange(len(x), device=x.device)[None, None, :, None]

    def inside(few: Tensor, angles: tuple[Tensor, Tensor], **_: object) -> Tensor:
        return block(few[0], angles[0][0, 0, :, 0])[None]

    there = torch.ones_like(r, dtype=torch.bool)[None]
    picked = highest(r[None], there, [n])
    return on_picked(inside, x[None], r[None], picked, n, None, True, (places, places), None)[0]


def _block(x: Tensor, place: Tensor) -> Tensor:
    """A block in little: what it adds to a state depends on where it stands, and on what came before it."""
    before = x.cumsum(dim=0) / torch.arange(1, len(x) + 1, device=x.device)[:, None]
    return x + torch.tanh(before + 0.3 * place[:, None])


def check_routed(answer: Callable) -> None:
    x, n = draw(7, 3, seed=121), 3
    r = torch.tensor([0.2, 1.6, -0.4, 0.9, -1.1, 2.3, 0.5], device=pick_device())
    order, place = r.topk(n).indices, torch.arange(len(x), device=x.device)
    few = order.sort().values
    lowest = (-r).topk(n).indices.sort().values

    def to(index: Tensor, states: Tensor) -> Tensor:
        return x.index_copy(0, index, states)

    def scaled(index: Tensor, by: Tensor, where: Tensor, read: Tensor = x) -> Tensor:
        added = _block(read[index], where) - read[index]
        return to(index, x[index] + by[:, None] * added)

    whole = _block(x, place) - x
    classics = {
        "The block reads its places in the order of their scores: it looks back, so it needs them in their own order.":
            scaled(order, r[order], order),
        "The places are counted anew, from 0: each stands where it stood in the sequence.":
            scaled(few, r[few], torch.arange(n, device=x.device)),
        "What the block adds is not multiplied by r: without that the router has no gradient and learns nothing.":
            to(few, _block(x[few], few)),
        "r multiplies the state as well: x + r f(x), where f is what the block adds to its input.":
            to(few, r[few, None] * _block(x[few], few)),
        "r multiplies all that the block gives, on top of x: take the block's input off first.":
            to(few, x[few] + r[few, None] * _block(x[few], few)),
        "r has passed a softmax: the paper takes the score as it is.": scaled(few, r.softmax(0)[few], few),
        "r has passed a softmax over the few: the paper takes the score as it is.":
            scaled(few, r[few].softmax(0), few),
        "r has passed a sigmoid: the paper takes the score as it is.": scaled(few, r.sigmoid()[few], few),
        "The lowest scores are picked: it is the highest.": scaled(lowest, r[lowest], lowest),
        "The block has read every place, and most was thrown away: nothing is saved, and the few see the others.":
            to(few, x[few] + r[few, None] * whole[few]),
        "All places are changed: those that are not picked stay as they are.": x + r[:, None] * whole,
        "Those that are not picked have become 0: they pass by, unchanged.":
            torch.zeros_like(x).index_copy(0, few, scaled(few, r[few], few)[few]),
    }  # fmt: skip
    _check_reads(answer, x, r, n)
    compare(answer(_block, x, r, n), routed(_block, x, r, n), classics)


def _check_reads(answer: Callable, x: Tensor, r: Tensor, n: int) -> None:
    """Whatever comes out: has a block of twice the work been asked for?"""
    read: list[int] = []

    def counting(few: Tensor, place: Tensor) -> Tensor:
        read.append(len(few))
        return _block(few, place)

    answer(counting, x, r, n)
    if len(read) > 1 and sum(read) == n:
        raise Mistake("The block reads its places one by one: they attend to one another, so it reads them at once.")


def surprise(guess: Tensor, r: Tensor, n: int) -> Tensor:
    """The package's second loss: how wrong the guesses (L,) were about which scores (L,) are the n highest."""
    picked = highest(r[None], torch.ones_like(r, dtype=torch.bool)[None], [n])[0]
    return F.binary_cross_entropy_with_logits(guess, picked.to(guess.dtype))


def check_surprise(answer: Callable) -> None:
    guess, r, n = draw(9, seed=122), draw(9, seed=123) - 0.4, 3
    picked = torch.zeros_like(r).index_fill(0, r.topk(n).indices, 1.0)
    wrong = F.binary_cross_entropy_with_logits(guess, picked, reduction="none")
    classics = {
        "The target is a score above 0: it is to be one of the n highest.":
            F.binary_cross_entropy_with_logits(guess, (r > 0).to(guess.dtype)),
        "The target is the score itself: it is 1 for the n highest and 0 for all others.":
            F.binary_cross_entropy_with_logits(guess, r),
        "The target is 1 for those that are passed by: it is 1 for those picked.":
            F.binary_cross_entropy_with_logits(guess, 1 - picked),
        "The score is judged, not the guess.": F.binary_cross_entropy_with_logits(r, picked),
        "A sigmoid is taken twice: `binary_cross_entropy_with_logits` takes one itself.":
            F.binary_cross_entropy_with_logits(guess.sigmoid(), picked),
        "Summed over the places: take the mean.": wrong.sum(),
        "The n highest of the guesses are the target: it is those of the scores.":
            surprise(guess, guess, n),
        "A softmax over the places: each place is a question of its own, yes or no.":
            F.cross_entropy(guess, picked / n),
        "Only the picked count: a place that is wrongly let through must cost as well.":
            wrong[picked.bool()].mean(),
    }  # fmt: skip
    compare(answer(guess, r, n), surprise(guess, r, n), classics)


def operations(places: int, width: int, mlp_width: int) -> int:
    """Of a Llama's block on so many places: four square maps, three of the MLP, and two products a pair of places."""
    return 2 * places * (4 * width**2 + 3 * width * mlp_width) + 4 * places**2 * width


def saved(length: int, n: int, width: int, mlp_width: int) -> float:
    """The share of a block's operations that it saves by working on n places of so many."""
    return 1 - operations(n, width, mlp_width) / operations(length, width, mlp_width)


def check_saved(answer: Callable) -> None:
    length, n, width, mlp_width = 600, 150, 32, 96
    maps, pairs = 2 * (4 * width**2 + 3 * width * mlp_width), 4 * width

    def share(few: float, whole: float) -> Tensor:
        return torch.tensor(1 - few / whole)

    def cost(places: int, maps: float = maps) -> float:
        return places * maps + pairs * places**2

    want = torch.tensor(saved(length, n, width, mlp_width))
    classics = {
        "That is what is left: the share saved is one less it.": 1 - want,
        "Attention falls with the square: it is forgotten here, or the few look at all, not at one another alone.":
            share(n, length),
        "Attention alone is counted: the maps of attention and MLP cost a place each, too.": share(n**2, length**2),
        "A multiply-add is two operations in the maps as well.": share(cost(n, maps / 2), cost(length, maps / 2)),
        "The MLP of a Llama has three maps: gate, up and down.": share(
            cost(n, 2 * (4 * width**2 + 2 * width * mlp_width)),
            cost(length, 2 * (4 * width**2 + 2 * width * mlp_width)),
        ),
        "The MLP is forgotten.": share(cost(n, 8 * width**2), cost(length, 8 * width**2)),
        "Attention makes two products for each pair: queries with keys, and weights with values.":
            share(n * maps + pairs * n**2 / 2, length * maps + pairs * length**2 / 2),
    }  # fmt: skip
    got = answer(length, n, width, mlp_width)
    if isinstance(got, (int, float)) and not isinstance(got, bool):
        got = torch.tensor(float(got))
    compare(got, want, classics)


EXERCISES = {
    "12.routed": ExerciseSpec("A block for a few", 3, routed, check_routed),
    "12.surprise": ExerciseSpec("A guess that does not look ahead", 2, surprise, check_surprise),
    "12.saved": ExerciseSpec("What skipping saves", 2, saved, check_saved),
}
