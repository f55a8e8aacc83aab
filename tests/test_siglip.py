"""SigLIP's loss in pieces: the value and gradients of all pairs at once, in memory that grows with the batch alone."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from references import assert_same
from torch import Tensor

from minivlm.contrastive.siglip import PIECE, sigmoid_loss
from minivlm.memory import Memory

WIDTH = 8


def pairs(count: int) -> tuple[Tensor, ...]:
    """Pictures and texts of length 1, a scale and a bias, all of which learn."""
    chance = torch.Generator().manual_seed(count)
    image, text = (F.normalize(torch.randn(count, WIDTH, generator=chance), dim=-1) for _ in range(2))
    return tuple(x.requires_grad_() for x in (image, text, torch.tensor(3.0), torch.tensor(-2.0)))


def slow_loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> float:
    total = 0.0
    for i, picture in enumerate(image.tolist()):
        for j, words in enumerate(text.tolist()):
            logit = float(scale) * sum(a * b for a, b in zip(picture, words, strict=True)) + float(bias)
            total += math.log1p(math.exp(-logit if i == j else logit))
    return total / len(image)


@pytest.mark.parametrize("count", [1, 5, PIECE, PIECE + 1, 2 * PIECE + 37])
def test_in_pieces_as_at_once(count):
    given = pairs(count)
    image, text, scale, bias = given
    logits = scale * image @ text.T + bias
    at_once = -F.logsigmoid(torch.where(torch.eye(count, dtype=torch.bool), logits, -logits)).sum() / count
    got = sigmoid_loss(*given)
    assert_same(got, at_once, 1e-4)
    for own, other in zip(torch.autograd.grad(got, given), torch.autograd.grad(at_once, given), strict=True):
        assert_same(own, other, 1e-4)
    if count <= PIECE + 1:
        assert float(got.detach()) == pytest.approx(slow_loss(*(x.detach() for x in given)), rel=1e-5)


def test_memory_grows_with_the_batch_and_not_with_its_square():
    peaks = {}
    for count in (4 * PIECE, 8 * PIECE, 16 * PIECE):
        given = pairs(count)
        with Memory() as memory:
            sigmoid_loss(*given).backward()
        peaks[count] = memory.peak
    small, middle, large = peaks.values()
    assert 1.7 < middle / small < 2.1 and 1.7 < large / middle < 2.1
    assert large < 4 * (16 * PIECE) ** 2 / 2, "half of the numbers of all pairs were held"
