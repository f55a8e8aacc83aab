"""An explorer of a run on paper: other GPUs, their state in parts or whole on each, more samples at once.

It reads what was counted of the run once; no model is built or run by moving a control.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.planning import plan_panels
from minivlm.planning import A100, H100, Plan, Run

GPUS = tuple(2**n for n in range(3, 10))  # 8 to 512
AT_ONCE = (1, 4, 16, 64)
UTILISATIONS = (0.1, 0.2, 0.35, 0.5)


def planning_explorer(run: Run, price: float) -> Explorer:
    """The run on 8 to 512 GPUs, as far as its batch can be divided. `price` is that of a GPU for an hour, whichever.
    ValueError where the batch does not split over 8."""
    if not _divided(run, 1):
        raise ValueError(f"a batch of {run.batch_size} does not split over {GPUS[0]} GPUs: make it a multiple of it")
    controls = {
        "gpu": buttons("GPU", [(gpu.name, gpu) for gpu in (A100, H100)]),
        "sharded": buttons("State", [("in parts (FSDP)", True), ("whole on each (DDP)", False)]),
        "at_once": slider("Samples at once", [(str(n), n) for n in AT_ONCE if _divided(run, n)]),
        "utilisation": slider("Of the peak", [(f"{share:.0%}", share) for share in UTILISATIONS], 0.2),
    }

    def draw(at_once: int, sharded: bool, **how: object) -> tuple[Figure, str]:
        gpus = _divided(run, at_once)
        plans = [Plan(run, gpus=n, price=price, at_once=at_once, sharded=sharded, **how) for n in gpus]
        figure, told = plan_panels(plans)
        whose = "in parts" if sharded else "whole on each"
        ends = f" A batch of {run.batch_size} ends at {gpus[-1]} GPUs." if gpus[-1] < GPUS[-1] else ""
        return figure, f"{run.design}, state {whose}. {told}{ends}"

    return Explorer("Planning explorer", controls, draw)


def _divided(run: Run, at_once: int) -> list[int]:
    """The numbers of GPUs over which a batch splits, with so many samples at once on each."""
    return [gpus for gpus in GPUS if run.batch_size % (gpus * at_once) == 0]
