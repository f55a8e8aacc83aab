"""Exercises of lesson 01: attention, the loss of CLIP, and naming with many captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minivlm.attention import attend
from minivlm.contrastive.clip import softmax_loss
from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """The package's attention, without its masks and its capture: (B, H, L, d) each, to (B, H, L, dv)."""
    return attend(q, k, v, is_causal=causal)[0]


def check_attention(answer: Callable) -> None:
    q, k, v = (draw(2, 3, 5, width, seed=width) for width in (4, 4, 6))
    scores = q @ k.transpose(-2, -1)  # (B, H, L, L)
    scaled = scores / 2
    classics = {
        "The scores are not divided by sqrt(d): with wide heads the softmax picks one place and stops learning.":
            scores.softmax(-1) @ v,
        "Divided by d, not by sqrt(d).": (scores / 4).softmax(-1) @ v,
        "The softmax runs over the wrong axis: each QUERY shares out its attention among the keys, the last axis.":
            scaled.softmax(-2) @ v,
        "The softmax runs over the wrong axis (heads): each query shares out its attention among the keys.":
            scaled.softmax(1) @ v,
        "There is no softmax: the weights of a query must be positive and sum to 1.": scaled @ v,
    }  # fmt: skip
    compare(answer(q, k, v, False), attention(q, k, v), classics)
    _check_causal(answer, q, k, v, scaled)


def _check_causal(answer: Callable, q: Tensor, k: Tensor, v: Tensor, scaled: Tensor) -> None:
    ones = torch.ones_like(scaled, dtype=torch.bool)

    def masked(allowed: Tensor) -> Tensor:
        return scaled.masked_fill(~allowed, -1e9).softmax(-1) @ v

    classics = {
        "There is no causal mask: with causal=True a word must not see those after it.": scaled.softmax(-1) @ v,
        "The causal mask is shifted: it lets each word see the NEXT one.": masked(ones.tril(1)),
        "The causal mask is shifted: a word may also see itself, so the diagonal is allowed.": masked(ones.tril(-1)),
        "The causal mask is upside down: it lets each word see only itself and those AFTER it.": masked(ones.triu()),
        "The mask comes after the softmax, so the weights no longer sum to 1: mask the scores.":
            scaled.softmax(-1).tril() @ v,
        "Masked scores are set to 0, which is a score like any other: set them to minus infinity.":
            scaled.tril().softmax(-1) @ v,
    }  # fmt: skip
    compare(answer(q, k, v, True), attention(q, k, v, causal=True), classics)


def check_loss(answer: Callable) -> None:
    image, text = (F.normalize(draw(5, 8, seed=seed), dim=-1) for seed in (1, 2))
    scale = torch.tensor(7.0, device=image.device)
    right = torch.arange(5, device=image.device)
    cosines = image @ text.T
    per_image, per_text = F.cross_entropy(scale * cosines, right), F.cross_entropy(scale * cosines.T, right)
    shifted = F.cross_entropy(scale * cosines, right.roll(1)) + F.cross_entropy(scale * cosines.T, right.roll(1))
    classics = {
        "One direction only: pictures choose among texts, but texts must choose among pictures as well.": per_image,
        "One direction only, and the softmax over the wrong axis for it: texts choose among pictures, but pictures "
        "must choose among texts as well.": per_text,
        "The cosines are not multiplied by `scale`.": softmax_loss(image, text, scale / scale),
        "Divided by `scale`: it multiplies the cosines.": softmax_loss(image, text, 1 / scale),
        "The two directions are added: the loss is their mean.": per_image + per_text,
        "The targets are wrong: picture i belongs to text i, so the right class of row i is i.": shifted / 2,
        "The targets are wrong: picture i belongs to text i, not every picture to text 0.":
            (F.cross_entropy(scale * cosines, 0 * right) + F.cross_entropy(scale * cosines.T, 0 * right)) / 2,
        "Softmax taken twice: `cross_entropy` takes logits, and does the softmax itself.":
            (F.cross_entropy((scale * cosines).softmax(1), right)
             + F.cross_entropy((scale * cosines.T).softmax(1), right)) / 2,
        "The sign is wrong: a loss is minus the log of the probability.": -(per_image + per_text) / 2,
    }  # fmt: skip
    compare(answer(image, text, scale), softmax_loss(image, text, scale), classics)


def classify(images: Tensor, prompts: Sequence[Tensor]) -> Tensor:
    """The class of every picture (I, E), each class given by the vectors of its captions (P, E), all of length 1."""
    classes = F.normalize(torch.stack([vectors.mean(dim=0) for vectors in prompts]), dim=-1)  # (C, E)
    return (images @ classes.T).argmax(dim=1)


def check_zero_shot(answer: Callable) -> None:
    chance = draw(4, 6, seed=3)
    prompts = [F.normalize(centre + spread * draw(count, 6, seed=count), dim=-1)
               for centre, spread, count in zip(chance, (0.1, 2.0, 0.5, 1.0), (3, 7, 4, 5), strict=True)]  # fmt: skip
    images = F.normalize(draw(200, 6, seed=4), dim=-1)
    means = torch.stack([vectors.mean(dim=0) for vectors in prompts])
    classes = F.normalize(means, dim=-1)
    every = torch.stack([(images @ vectors.T).amax(dim=1) for vectors in prompts], dim=1)  # (I, C)
    first = torch.stack([vectors[0] for vectors in prompts])
    classics = {
        "The mean of unit vectors is shorter than 1, and the more the captions differ the shorter: bring it back to "
        "length 1, or classes with varied captions lose.": (images @ means.T).argmax(1),
        "The captions are added up, not averaged and brought back to length 1: a class with more captions wins.":
            (images @ torch.stack([vectors.sum(dim=0) for vectors in prompts]).T).argmax(1),
        "It picks the FARTHEST class: the nearest has the largest dot product.": (images @ classes.T).argmin(1),
        "It takes the single nearest caption: a class is the mean of all its captions.": every.argmax(1),
        "It reads only the first caption of each class.": (images @ first.T).argmax(1),
        "The largest is taken over the wrong axis: each PICTURE gets a class.": (images @ classes.T).argmax(0),
    }  # fmt: skip
    compare(answer(images, prompts), classify(images, prompts), classics)


EXERCISES = {
    "01.attention": ExerciseSpec("Attention, in five lines", 3, attention, check_attention),
    "01.loss": ExerciseSpec("The loss of CLIP", 3, softmax_loss, check_loss),
    "01.zero_shot": ExerciseSpec("Naming with many captions", 2, classify, check_zero_shot),
}
