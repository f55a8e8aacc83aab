"""How training time grows with what is read: a step against the operations counted in it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minivlm import mini
from minivlm.batch import Batch
from minivlm.bench.rivals import labels_of, texts
from minivlm.bench.timing import alternate
from minivlm.bench.training import step_of


@dataclass(frozen=True)
class Growth:
    """A training step, frozen encoder's features given, as one thing grows: `what` has these `sizes`, and takes these
    `flops` (operations of forward and backward pass, a multiply-add counts as two; of causal attention only the pairs
    that are seen) and `milliseconds` (medians). Fitted: milliseconds = `fixed` + `rate` * flops."""

    what: str
    sizes: list[int]
    flops: list[int]
    milliseconds: list[float]
    fixed: float
    rate: float

    @property
    def misfit(self) -> float:
        """The largest difference of a measured time from the fitted one, as a share of that."""
        fitted = [self.fixed + self.rate * flops for flops in self.flops]
        return max(abs(time / fit - 1) for time, fit in zip(self.milliseconds, fitted, strict=True))


def visual_tokens(count: int, samples: int = 4) -> tuple[nn.Module, Batch]:
    """LLaVA-1.5 and pictures that are so many patches, 16 words each; ValueError for no square of a number."""
    side = round(count**0.5)
    if side * side != count:
        raise ValueError(f"pictures are square here, so their patches are 16, 64, 256, ..., not {count}")
    config = mini.llava15()
    size = (side * config.vision.patch_size,) * 2
    return _with_batch(replace(config, vision=replace(config.vision, image_size=size)), samples, 1, 16)


def frames(count: int, samples: int = 4) -> tuple[nn.Module, Batch]:
    """DeCo, 16 tokens a frame, and videos of so many frames, 16 words each."""
    return _with_batch(mini.deco(), samples, count, 16)


def words(count: int, samples: int = 4) -> tuple[nn.Module, Batch]:
    """LLaVA-1.5 and texts of so many words, each with one picture of 64 patches."""
    return _with_batch(mini.llava15(), samples, 1, count)


GROWING = {"visual tokens": visual_tokens, "frames": frames, "words": words}


def _with_batch(config: mini.VLMConfig, samples: int, pictures: int, length: int) -> tuple[nn.Module, Batch]:
    torch.manual_seed(0)
    model = config.build()
    model.vision.requires_grad_(False)
    ids = texts(samples, length, pictures, torch.Generator().manual_seed(0))
    features = torch.randn(samples, pictures, config.num_features, config.vision.width)
    return model, Batch(None, ids, labels_of(ids), features=features)


def growth(what: str, sizes: Sequence[int], rounds: int, device: str = "cpu") -> Growth:
    """Measure one of `GROWING`; ValueError for another, or for fewer than three sizes, through which any line goes."""
    if what not in GROWING:
        raise ValueError(f"unknown {what!r}: what grows is one of {', '.join(GROWING)}")
    if len(sizes) < 3:
        raise ValueError(f"three sizes or more say how {what} grow, got {len(sizes)}")
    made = {size: GROWING[what](size) for size in sizes}
    flops = [operations(*made[size]) for size in sizes]
    steps = {str(size): step_of(*_learning(*made[size], device)) for size in sizes}
    took = alternate(steps, rounds)
    times = [statistics.median(took[str(size)]) for size in sizes]
    return Growth(what, list(sizes), flops, times, *fitted(flops, times))


def _learning(model: nn.Module, batch: Batch, device: str) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    model, batch = model.to(device), batch.to(device)
    return model, lambda: model.loss(batch)


def operations(model: nn.Module, batch: Batch) -> int:
    """Of forward and backward pass, with attention written out, of which the counter sees all pairs of places; fused
    attention computes those that causality leaves, of L places (L + 1) / 2L. The decoder's is the only one here."""
    with FlopCounterMode(display=False) as counter:
        output = model(batch, capture=True)
        output.loss.backward()
    model.zero_grad()
    counted, length = counter.get_flop_counts()["Global"], output.logits.shape[1]
    pairs = sum(flops for kind, flops in counted.items() if "bmm" in str(kind))
    return sum(counted.values()) - pairs * (length - 1) // (2 * length)


def fitted(flops: Sequence[int], milliseconds: Sequence[float]) -> tuple[float, float]:
    """(fixed, rate) of the line fixed + rate * flops that is nearest to the times as shares of them."""
    x, y = (torch.tensor(values, dtype=torch.float64) for values in (flops, milliseconds))
    unit = x.mean()
    line = torch.stack([1 / y, x / unit / y], dim=1)  # (n, 2): each row divided by its time
    fixed, slope = torch.linalg.lstsq(line, torch.ones(len(x), 1, dtype=torch.float64)).solution[:, 0].tolist()
    return fixed, slope / float(unit)
