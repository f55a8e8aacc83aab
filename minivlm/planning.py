"""A training run on paper: memory a GPU, hours and cost, from what `budget` counts of one sample.

Of operations a forward pass is one part; the gradient that goes through a part is as much again, and that of its
weights as much again. What is made anew to save memory counts for nothing, as it teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from minivlm.budget import Budget, budget
from minivlm.costs import kept_bytes

LEARNING, FROZEN = 4 + 4 + 8, 4  # bytes a weight, in 32 bits: weight, gradient, AdamW's two numbers; the weight alone


@dataclass(frozen=True)
class GPU:
    """Memory in bytes, and operations a second at its best: dense products of 16-bit numbers, as its maker says."""

    name: str
    memory: float
    peak: float


A100 = GPU("A100 SXM 80 GB", 80e9, 312e12)  # NVIDIA A100 Tensor Core GPU data sheet
H100 = GPU("H100 SXM", 80e9, 989e12)  # NVIDIA H100 Tensor Core GPU data sheet: 1,979e12 with sparsity, half without


@dataclass(frozen=True)
class Run:
    """`samples` of one picture and `words` words, all passes over them together, in batches of `batch_size`, from which
    the parts `trains` of a published design learn. ValueError for parts that it does not have."""

    design: str
    samples: int
    batch_size: int
    words: int
    trains: tuple[str, ...]

    def __post_init__(self):
        if min(self.samples, self.batch_size, self.words) < 1:
            got = f"{self.samples}, {self.batch_size} and {self.words}"
            raise ValueError(f"samples, batch_size and words must be at least 1, got {got}")
        unknown = sorted(set(self.trains) - set(self.budget.weights))
        if unknown or not self.trains:
            parts = ", ".join(self.budget.weights)
            raise ValueError(f"{self.design} has {parts} to train, got {', '.join(unknown) or 'none'}")

    @property
    def budget(self) -> Budget:
        return _counted(self.design, self.words)

    @cached_property
    def flops(self) -> int:
        """Of the whole run. Where a fusion's layers stand between the decoder's, a gradient goes through both."""
        first = min(self._depth(part) for part in self.trains)
        passes = {part: 1 + (part in self.trains) + (self._depth(part) >= first) for part in self.budget.flops}
        return self.samples * sum(passes[part] * count for part, count in self.budget.flops.items())

    @staticmethod
    def _depth(part: str) -> int:
        """How far from the picture it stands."""
        return {"vision": 0, "connector": 1, "separators": 1}.get(part, 2)

    @cached_property
    def state_bytes(self) -> int:
        """Of weights, gradients and what AdamW keeps, on all GPUs together if sharded, else on each."""
        weights = self.budget.weights
        return sum(count * (LEARNING if part in self.trains else FROZEN) for part, count in weights.items())

    @cached_property
    def sample_bytes(self) -> int:
        """What one sample takes in 16 bits while its states are kept for the backward pass."""
        return kept_bytes(self.budget.sample, self.trains)


@lru_cache(maxsize=16)
def _counted(design: str, words: int) -> Budget:
    """Made once: a model of billions of weights takes a second to describe."""
    return budget(design, words=words)


@dataclass(frozen=True)
class Plan:
    """A run on so many GPUs, each with `at_once` samples at a time; `sharded`: each with its part of the state (FSDP),
    else all of it (DDP). `utilisation` is the share of its peak that a GPU reaches: measure it in a short run, it falls
    as more GPUs wait for one another. `price` is that of a GPU for an hour. ValueError where a batch does not split."""

    run: Run
    gpu: GPU
    gpus: int
    utilisation: float
    price: float
    at_once: int = 1
    sharded: bool = True

    def __post_init__(self):
        if not 0 < self.utilisation <= 1 or min(self.gpus, self.at_once) < 1 or self.price < 0:
            raise ValueError(
                f"need utilisation in (0, 1], at least one GPU and sample at once and no price below 0, got "
                f"{self.utilisation}, {self.gpus}, {self.at_once} and {self.price}"
            )
        if self.run.batch_size % (self.gpus * self.at_once):
            raise ValueError(
                f"a batch of {self.run.batch_size} does not split over {self.gpus} GPUs with {self.at_once} samples at "
                f"a time: make it a multiple of {self.gpus * self.at_once}"
            )

    @property
    def micro_batches(self) -> int:
        """Passes that each GPU makes for one update."""
        return self.run.batch_size // (self.gpus * self.at_once)

    @property
    def memory_bytes(self) -> float:
        """On each GPU, less what is gathered of a block while it runs, and what kernels and allocator need."""
        return self.run.state_bytes / (self.gpus if self.sharded else 1) + self.at_once * self.run.sample_bytes

    @property
    def fits(self) -> bool:
        return self.memory_bytes <= self.gpu.memory

    @property
    def hours(self) -> float:
        return self.run.flops / (self.gpus * self.gpu.peak * self.utilisation) / 3600

    @property
    def cost(self) -> float:
        """In the currency of the price."""
        return self.hours * self.gpus * self.price


def plans_table(plans: Sequence[Plan]) -> str:
    """Memory, time and cost of each, as Markdown."""
    head = [
        "| GPUs | GB a GPU | fits | samples at once | passes a step | hours | cost |",
        "|---:|---:|---|---:|---:|---:|---:|",
    ]
    return "\n".join(
        head
        + [
            f"| {plan.gpus:,} {plan.gpu.name} | {plan.memory_bytes / 1e9:,.1f} | {'yes' if plan.fits else 'no'} | "
            f"{plan.at_once} | {plan.micro_batches} | {plan.hours:,.1f} | {plan.cost:,.0f} |"
            for plan in plans
        ]
    )


@dataclass(frozen=True)
class Reported:
    """What somebody says that a stage of training took: hours on so many GPUs. How long its texts were is not said."""

    design: str
    stage: str
    samples: int
    batch_size: int
    trains: tuple[str, ...]
    gpus: int
    gpu: GPU
    hours: float
    source: str

    def run(self, words: int) -> Run:
        """The stage, if a sample had so many words."""
        return Run(self.design, self.samples, self.batch_size, words, self.trains)

    def utilisation(self, words: int) -> float:
        """The share of their peak that the GPUs then reached."""
        return self.run(words).flops / (self.hours * 3600 * self.gpus * self.gpu.peak)

    def cost(self, price: float) -> float:
        """At that price of a GPU for an hour."""
        return self.hours * self.gpus * price


_LLAVA = "https://github.com/haotian-liu/LLaVA, README, Train: LLaVA-v1.5-7B on 8 A100, one epoch a stage"
LLAVA15 = (
    Reported("llava15", "align", 558_000, 256, ("connector",), 8, A100, 3.5, _LLAVA),
    Reported("llava15", "instruct", 665_000, 128, ("connector", "language"), 8, A100, 10.0, f"{_LLAVA} (of 40 GB)"),
)
