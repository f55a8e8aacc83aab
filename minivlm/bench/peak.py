"""How much of what the machine can multiply a training step makes use of."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch

from minivlm.bench.growth import operations, visual_tokens
from minivlm.bench.timing import alternate
from minivlm.bench.training import step_of
from minivlm.runtime import pick_dtype


@dataclass(frozen=True)
class Share:
    """Operations a second of a training step, and of one large product of matrices in the same number type, in
    teraflops; what `share` the first is of the second, and should be at least."""

    what: str
    step: float
    peak: float
    wanted: float

    @property
    def share(self) -> float:
        return self.step / self.peak


def share_of_peak(samples: int, side: int, rounds: int, wanted: float, device: str = "cpu") -> Share:
    """LLaVA-1.5 with its encoder's features given, 64 patches and 16 words a sample, beside square matrices of that
    `side`; both in turns, the medians."""
    model, batch = visual_tokens(64, samples)
    model, batch = model.to(device), batch.to(device)
    matrix = torch.randn(side, side, device=device, dtype=pick_dtype(torch.device(device)))
    works = {"step": step_of(model, lambda: model.loss(batch)), "product": lambda: matrix @ matrix}
    took = {name: statistics.median(times) for name, times in alternate(works, rounds).items()}
    flops = operations(*visual_tokens(64, 1)) * samples
    step, peak = flops / took["step"] / 1e9, 2 * side**3 / took["product"] / 1e9  # per millisecond, so tera
    return Share(f"training step, {samples} samples", step, peak, wanted)
