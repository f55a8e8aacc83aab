"""A run on paper, as pictures: memory of a GPU, hours, and cost, against the number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minivlm.figures.common import PALETTE
from minivlm.planning import Plan, Reported


def plan_panels(plans: Sequence[Plan], reported: Reported | None = None) -> tuple[Figure, str]:
    """Plans of one run on more and more GPUs: what each GPU must hold (its part of weights, gradients and AdamW's
    numbers, and what its samples keep) against what it has (dashed), the hours, and the cost. A star is what somebody
    `reported` of a stage, whose samples are counted as the run's. ValueError for no plan."""
    if not plans:
        raise ValueError("nothing to draw: give a plan or more")
    figure, (memory, hours, cost) = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
    _memory(memory, plans)
    gpus = [plan.gpus for plan in plans]
    for axes, values, label in ((hours, [plan.hours for plan in plans], "hours"),
                                (cost, [plan.cost for plan in plans], "cost")):  # fmt: skip
        axes.plot(gpus, values, color=PALETTE["blue"], marker="o", label="planned")
        axes.set_xscale("log", base=2)
        axes.set(xlabel="GPUs", ylabel=label, xticks=gpus, xticklabels=gpus)
        axes.tick_params(labelsize=8)
    hours.set_yscale("log")
    costs = [plan.cost for plan in plans]
    if reported:
        costs.append(reported.cost(plans[0].price))
        star = dict(color=PALETTE["vermilion"], marker="*", markersize=13, linestyle="none", label="reported")
        hours.plot([reported.gpus], [reported.hours], **star)
        cost.plot([reported.gpus], costs[-1:], **star)
        hours.legend(frameon=False, fontsize=8)
    cost.set_ylim(0, 1.3 * max(costs))
    return figure, _told(plans, reported)


def _memory(axes: Axes, plans: Sequence[Plan]) -> None:
    places, samples = range(len(plans)), [plan.at_once * plan.run.sample_bytes / 1e9 for plan in plans]
    state = [plan.memory_bytes / 1e9 - kept for plan, kept in zip(plans, samples, strict=True)]
    axes.bar(places, state, color=PALETTE["blue"], label="weights, gradients, AdamW")
    axes.bar(places, samples, bottom=state, color=PALETTE["orange"], label="kept of samples")
    room, most = plans[0].gpu.memory / 1e9, max(plan.memory_bytes for plan in plans) / 1e9
    axes.axhline(room, color="black", linestyle="dashed", linewidth=1, label="there is")
    axes.set(xlabel="GPUs", ylabel="GB on each GPU", ylim=(0, 1.45 * max(room, most)))
    axes.set_xticks(places, [plan.gpus for plan in plans], fontsize=8)
    axes.legend(frameon=False, fontsize=7, loc="upper right")


def _told(plans: Sequence[Plan], reported: Reported | None) -> str:
    first = plans[0]
    lines = [
        f"{plan.gpus}: {plan.memory_bytes / 1e9:,.1f} GB on each ({'fits' if plan.fits else 'does not fit'}), "
        f"{plan.hours:,.2f} hours, cost {plan.cost:,.0f}"
        for plan in plans
    ]
    how = f"{first.utilisation:.1%} of the peak and {first.price:g} for an hour of a GPU"
    many = f"{first.at_once} sample{'s' if first.at_once > 1 else ''} at once"
    said = f"{first.gpu.name}, {many}, {how}; by number of GPUs: {'; '.join(lines)}."
    if reported:
        said += f" Reported: {reported.hours:g} hours on {reported.gpus}, cost {reported.cost(first.price):,.0f}."
    return said
