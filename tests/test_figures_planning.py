"""A run on paper, drawn: bars, lines and the star are what the plans and the report say."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
from explorers import small_run, visible

from minivlm.explore import planning_explorer
from minivlm.figures import plan_panels
from minivlm.planning import A100, H100, Plan, Reported, Run

RUN = small_run()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def plans(**change) -> list[Plan]:
    return [Plan(**{**dict(run=RUN, gpu=A100, gpus=n, utilisation=0.25, price=2.0), **change}) for n in (8, 16, 32)]


def test_bars_and_lines_are_those_of_the_plans():
    drawn = plans(at_once=2)
    figure, told = plan_panels(drawn)
    memory, hours, cost = figure.axes
    state, kept = memory.containers
    for plan, below, above in zip(drawn, state, kept, strict=True):
        assert above.get_height() == pytest.approx(2 * RUN.sample_bytes / 1e9)
        assert below.get_height() == pytest.approx(RUN.state_bytes / plan.gpus / 1e9)
        assert above.get_y() + above.get_height() == pytest.approx(plan.memory_bytes / 1e9)
    assert memory.lines[0].get_ydata()[0] == 80
    assert hours.lines[0].get_xydata().tolist() == [[plan.gpus, plan.hours] for plan in drawn]
    assert cost.lines[0].get_xydata().tolist() == [[plan.gpus, plan.cost] for plan in drawn]
    assert len(hours.lines) == len(cost.lines) == 1
    first = drawn[0]
    assert told.startswith("A100 SXM 80 GB, 2 samples at once, 25.0% of the peak and 2 for an hour of a GPU; ")
    assert f"8: {first.memory_bytes / 1e9:,.1f} GB on each (fits), {first.hours:,.2f} hours, cost" in told
    assert "1 sample at once" in plan_panels(plans())[1]


def test_a_star_is_what_was_reported():
    reported = Reported("smolvlm", "all", 10_000, 64, RUN.trains, 16, A100, 5.0, "somewhere")
    figure, told = plan_panels(plans(), reported)
    _, hours, cost = figure.axes
    assert hours.lines[1].get_xydata().tolist() == [[16, 5]] and cost.lines[1].get_xydata().tolist() == [[16, 160]]
    assert cost.get_ylim()[1] > 160 and told.endswith(" Reported: 5 hours on 16, cost 160.")
    with pytest.raises(ValueError, match="nothing to draw"):
        plan_panels([])


def test_the_explorer_begins_in_parts_and_says_what_is_chosen():
    explorer = planning_explorer(RUN, 2.0)
    controls = visible(explorer)
    _, wanted = plan_panels([Plan(RUN, A100, n, 0.2, 2.0) for n in (8, 16, 32, 64)])
    assert explorer.state.words == f"smolvlm, state in parts. {wanted} A batch of 64 ends at 64 GPUs."
    controls["State"].value = False
    whole = Plan(RUN, A100, 8, 0.2, 2.0, sharded=False)
    assert "state whole on each. A100 SXM 80 GB, 1 sample at once, 20.0%" in explorer.state.words
    assert f"8: {whole.memory_bytes / 1e9:,.1f} GB on each" in explorer.state.words
    controls["GPU"].value, controls["Of the peak"].value = H100, 0.5
    assert f"{Plan(RUN, H100, 8, 0.5, 2.0).hours:,.2f} hours" in explorer.state.words


def test_more_samples_at_once_end_at_fewer_gpus():
    explorer = planning_explorer(RUN, 2.0)
    assert [n for _, n in explorer.controls["at_once"].options] == [1, 4]
    explorer.controls["at_once"].value = 4
    assert "16: " in explorer.state.words and "32: " not in explorer.state.words
    assert explorer.state.words.endswith(" A batch of 64 ends at 16 GPUs.")
    large = planning_explorer(Run("smolvlm", 10_000, 512, 32, RUN.trains), 2.0)
    assert "512: " in large.state.words and "ends at" not in large.state.words


def test_a_batch_that_does_not_split_over_eight_is_refused():
    with pytest.raises(ValueError, match="a batch of 12 does not split over 8 GPUs"):
        planning_explorer(Run("smolvlm", 10_000, 12, 32, RUN.trains), 2.0)
