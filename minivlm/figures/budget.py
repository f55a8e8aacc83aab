"""What designs cost, as bars: operations by part, keys and values by picture and words, and the memory of a card."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minivlm.budget import Budget
from minivlm.figures.common import PALETTE

CARDS = (8, 16, 80)  # GB of common accelerators
_PARTS = {
    "vision": PALETTE["sky"], "connector": PALETTE["orange"], "fusion": PALETTE["green"], "language": PALETTE["blue"],
}  # fmt: skip


def budget_bars(budgets: Mapping[str, Budget]) -> tuple[Figure, str]:
    """A bar a budget in three panels: operations of reading pictures and words by part, KV cache of pictures and of
    words, and memory (weights and cache in 16 bits) with lines where a card of 8, 16 or 80 GB ends."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 1.5 + 0.34 * len(budgets)), sharey=True, layout="constrained")
    values = list(budgets.values())
    parts = [part for part in _PARTS if any(part in b.flops for b in values)]
    work = {part: [b.flops.get(part, 0) / 1e12 for b in values] for part in parts}
    cache = {
        "pictures": [b.image_cache_bytes / 2**20 for b in values],
        "words": [b.text_cache_bytes / 2**20 for b in values],
    }
    memory = {
        "weights": [(b.memory_bytes - b.cache_bytes) / 1e9 for b in values],
        "KV cache": [b.cache_bytes / 1e9 for b in values],
    }
    _stacked(axes[0], work, [_PARTS[part] for part in parts], "operations (TFLOP)")
    _stacked(axes[1], cache, [PALETTE["sky"], PALETTE["blue"]], "KV cache (MiB)")
    ends = [card for card in CARDS if card < 1.3 * max(b.memory_bytes for b in values) / 1e9]
    for card in ends:
        told = f"cards of {' and '.join(map(str, ends))} GB" if card == ends[0] else None
        axes[2].axvline(card, color="black", linewidth=1, linestyle="--", label=told)
    _stacked(axes[2], memory, [PALETTE["blue"], PALETTE["orange"]], "memory in 16 bits (GB)")
    axes[0].set_yticks(range(len(budgets)), list(budgets), fontsize=8)
    axes[0].invert_yaxis()
    return figure, " ".join(_told(name, b) for name, b in budgets.items())


def _stacked(axes: Axes, parts: Mapping[str, list[float]], fills: list[str], label: str) -> None:
    left = [0.0] * len(next(iter(parts.values())))
    for (name, lengths), fill in zip(parts.items(), fills, strict=True):
        axes.barh(range(len(lengths)), lengths, left=left, label=name, color=fill, height=0.7)
        left = [a + b for a, b in zip(left, lengths, strict=True)]
    axes.set_xlabel(label, fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def fits(budget: Budget) -> str:
    """On which of the common cards weights and cache have room: "fits on 16 GB and 80 GB"."""
    roomy = [f"{card} GB" for card in CARDS if budget.fits(card)]
    return f"fits on {' and '.join(roomy)}" if roomy else f"does not fit on {CARDS[-1]} GB"


def _told(name: str, b: Budget) -> str:
    return (
        f"{name}: {b.visual_tokens:,} visual tokens, {_short(sum(b.flops.values()) / 1e12)} TFLOP, KV cache "
        f"{_short(b.image_cache_bytes / 2**20)} MiB of pictures and {_short(b.text_cache_bytes / 2**20)} MiB of words, "
        f"{_short(b.memory_bytes / 1e9)} GB in all, {fits(b)}."
    )


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
