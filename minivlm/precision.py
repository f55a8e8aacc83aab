"""Precision: the same model in fewer bits on a CPU, in bfloat16 or its decoder in 8-bit integers, and what that costs.

int8 is dynamic: weights have a scale for each row, activations one for each place, found as they come (LLM.int8(),
Dettmers et al. 2022, arXiv:2208.07339, without its outliers apart).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import median

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.batch import Batch
from minivlm.model import VLM

PRECISIONS = ("fp32", "bf16", "int8")


class Int8Linear(nn.Module):
    """A linear map in 8 bits: y = s_x s_w (X W), X and W whole numbers from -127 to 127, summed exactly."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        whole, scale = rounded(linear.weight.detach())
        self.register_buffer("weight", whole)  # (out, in)
        self.register_buffer("scale", scale)  # (out, 1)

    def forward(self, x: Float[Tensor, "*B Din"]) -> Float[Tensor, "*B Dout"]:
        whole, scale = rounded(x.flatten(0, -2))
        y = torch._int_mm(whole, self.weight.T) * scale * self.scale.T  # (places, out)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1).to(x.dtype)


def rounded(x: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N D"], Float[Tensor, "N 1"]]:
    """Rows as whole numbers of 8 bits, the largest of each 127, and what a row is to be multiplied by again."""
    x = x.float()  # in 16 bits the largest could become 128
    scale = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (x / scale).round().to(torch.int8), scale


def in_precision(model: VLM, precision: str) -> VLM:
    """A copy of the model for answering: as it is ("fp32"), all of it in "bf16", or the maps of its decoder's blocks in
    "int8", adapters and output layer apart. ValueError for another precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    copy = deepcopy(model).eval().requires_grad_(False)
    if precision == "bf16":
        return copy.to(torch.bfloat16)
    if precision == "int8":
        blocks = copy.language.inner.blocks
        for name, linear in list(blocks.named_modules()):
            if isinstance(linear, nn.Linear) and ".lora_" not in name and not hasattr(linear, "base_layer"):
                blocks.set_submodule(name, Int8Linear(linear))
    return copy


@dataclass(frozen=True)
class PrecisionCost:
    """What a precision saves and costs beside fp32.

    megabytes     of all weights
    milliseconds  to read a batch, the median
    agreement     the share of places whose likeliest next word is the same
    difference    the mean distance of scores, of those places, in logits
    accuracy      of the model on what it was asked, or None where it was asked nothing
    """

    precision: str
    megabytes: float
    milliseconds: float
    agreement: float
    difference: float
    accuracy: float | None


@torch.no_grad()
def precision_costs(
    model: VLM, batch: Batch, accuracy: Callable[[VLM], float] | None = None, rounds: int = 3
) -> list[PrecisionCost]:
    """A model that is on the CPU in all `PRECISIONS`, reading the same batch `rounds` times each."""
    costs, truth = [], None
    for precision in PRECISIONS:
        one = in_precision(model, precision)
        times, output = [], None
        for _ in range(rounds):
            start = time.perf_counter()
            output = one(like(batch, one))
            times.append(1e3 * (time.perf_counter() - start))
        scores = output.logits[output.layout.valid].float()  # (places, V)
        truth = scores if truth is None else truth
        same = (scores.argmax(dim=-1) == truth.argmax(dim=-1)).float().mean()
        right = accuracy(one) if accuracy is not None else None
        costs.append(PrecisionCost(precision, megabytes(one), median(times), float(same),
                                   float((scores - truth).abs().mean()), right))  # fmt: skip
    return costs


def like(batch: Batch, model: VLM) -> Batch:
    """The batch with its pictures, or their features, in the model's number type."""
    dtype = next(model.parameters()).dtype
    images, features = (x if x is None else x.to(dtype) for x in (batch.images, batch.features))
    return replace(batch, images=images, features=features)


def megabytes(model: nn.Module) -> float:
    """Of all weights, those in 8 bits too, each counted once; a megabyte is 10^6 bytes."""
    return sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers())) / 1e6


def precision_table(costs: Sequence[PrecisionCost]) -> str:
    """The costs as a Markdown table."""
    head = ("precision", "MB", "ms", "same next word", "mean difference of logits", "accuracy")
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for cost in costs:
        right = "-" if cost.accuracy is None else f"{cost.accuracy:.1%}"
        cells = (f"{cost.megabytes:.0f}", f"{cost.milliseconds:.0f}", f"{cost.agreement:.1%}", f"{cost.difference:.3f}")
        lines.append(f"| {cost.precision} | {' | '.join(cells)} | {right} |")
    return "\n".join(lines)
