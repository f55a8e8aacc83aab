"""Exercises of lesson 00: how many tokens a picture is, what they cost in memory, and how a decoder answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from minivlm.course.exercise import ExerciseSpec, Mistake


def visual_tokens(height: int, width: int, patch: int) -> int:
    """Whole patches of `patch` x `patch` pixels in a picture: what a projection hands to the decoder."""
    return (height // patch) * (width // patch)


def check_tokens(answer: Callable) -> None:
    for height, width, patch in ((64, 64, 8), (336, 336, 14), (32, 96, 16), (30, 50, 7)):
        up = -(-height // patch) * -(-width // patch)
        classics = {
            height * width // patch: "A picture is cut along both of its sides: divide height AND width by the patch.",
            height // patch + width // patch: "Rows and columns are added: a grid has rows TIMES columns cells.",
            visual_tokens(height, width, patch) + 1:
                "One too many: the class token is no patch, and LLaVA drops it before the decoder.",
            (height // patch) ** 2: "Only the height is looked at: this picture is not square.",
            (width // patch) ** 2: "Only the width is looked at: this picture is not square.",
            up: "Rounded up: pixels beyond the last whole patch are not looked at.",
            height * width // patch**2:
                "Rounded too late: each side is rounded down to whole patches by itself, then rows times columns.",
        }  # fmt: skip
        said = answer(height, width, patch)
        _compare(said, visual_tokens(height, width, patch), classics, f"{height}x{width} pixels, patches of {patch}")


def cache_bytes(positions: int, depth: int, kv_heads: int, head_dim: int, bytes_per_number: int = 2) -> int:
    """Keys and values of every position in every block: two vectors of `kv_heads * head_dim` numbers."""
    return 2 * positions * depth * kv_heads * head_dim * bytes_per_number


def check_cache(answer: Callable) -> None:
    for sizes in ((100, 6, 3, 16, 4), (640, 32, 32, 128, 2)):
        positions, depth, kv_heads, head_dim, size = sizes
        right = cache_bytes(*sizes)
        classics = {
            right // 2: "Half of it is missing: keys AND values are kept.",
            right // depth: "That is one block: every block keeps its own keys and values.",
            right // positions: "That is one position: every position of the sequence is kept.",
            right // size: "These are numbers, not bytes: each number takes `bytes_per_number` bytes.",
            right * 8: "These are bits: the answer is in bytes.",
            right // head_dim: "Each head keeps a vector of `head_dim` numbers, not a single number.",
            right // kv_heads: "That is one head: every key-value head keeps its own vectors.",
        }
        _compare(answer(*sizes), right, classics, f"{positions} positions in {depth} blocks")


def greedy(next_logits: Callable[[list[int]], Tensor], ids: list[int], eos_id: int, max_new_tokens: int) -> list[int]:
    """The likeliest next word, again and again, until the end mark; returns the new words without it."""
    said: list[int] = []
    while len(said) < max_new_tokens:
        word = int(next_logits(ids + said).argmax())
        if word == eos_id:
            break
        said.append(word)
    return said


def check_greedy(answer: Callable) -> None:
    """Against a made-up model that counts up from the last id, and says its end mark (9) after 6."""

    def counting(ids: list[int]) -> Tensor:
        scores = torch.linspace(-1, -0.1, 10)
        scores[9 if ids[-1] >= 6 else ids[-1] + 1] = 3.0
        return scores

    classics = {
        (3, 4, 5, 6): "The question is given back as well: return only the new words.",
        (4, 5, 6, 9): "The end mark is part of the answer: stop before it.",
        (4, 4, 4, 4, 4, 4, 4, 4): "The same word again and again: each new word must be added to what is read next.",
        (0, 0, 0, 0, 0, 0, 0, 0): "The LEAST likely word is taken: argmax, not argmin.",
    }
    said = answer(counting, [3], 9, 8)
    said = tuple(int(word) for word in said) if isinstance(said, (list, tuple)) else said
    if isinstance(said, tuple) and said[:4] == (4, 5, 6, 9) and len(said) > 4:
        raise Mistake("It goes on after the end mark: stop there.")
    _compare(said, (4, 5, 6), classics, "a model that counts up from 3 and ends after 6")
    short = answer(counting, [1, 2], 9, 2)
    if len(short) != 2:
        raise Mistake(f"With max_new_tokens=2 it must stop after 2 new words, got {len(short)}.")
    _compare(tuple(int(word) for word in short), (3, 4), {}, "the same model from 2, two words")


def _compare(got: object, want: object, classics: Mapping[object, str], when: str) -> None:
    """Pass if equal; else raise Mistake: the message of the classic mistake that gives `got`, or both values."""
    if isinstance(got, Tensor):
        raise Mistake(f"It must give {want!r} for {when}, a plain Python value; got a tensor {tuple(got.shape)}.")
    if type(got) is float and got == want:
        raise Mistake(f"The number is right, but a count is an int: use // and not /, got {got!r}.")
    if got == want:
        return
    named = [message for wrong, message in classics.items() if wrong == got]
    raise Mistake(named[0] if named else f"For {when} it must give {want!r}, got {got!r}.")


EXERCISES = {
    "00.tokens": ExerciseSpec("How many tokens is a picture?", 1, visual_tokens, check_tokens),
    "00.cache": ExerciseSpec("What does the decoder remember?", 1, cache_bytes, check_cache),
    "00.greedy": ExerciseSpec("Let it speak", 2, greedy, check_greedy),
}
