"""The explorer of the arena: each state shows the two designs and the task that it names."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import numpy as np
import pytest
from explorers import visible

from minivlm.arena import Margins
from minivlm.explore import arena_explorer
from minivlm.figures import duel_panels


@pytest.fixture(scope="module")
def margins() -> Margins:
    chance = np.random.default_rng(0)
    tasks = ["LOC"] * 5 + ["COUNT"] * 4
    return Margins(tasks, {name: chance.normal(size=(3, 9)) for name in ("deco", "blip2", "blind")})


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_it_begins_with_the_first_two_and_all_tasks(margins):
    explorer = arena_explorer(margins)
    options = {name: [label for label, _ in control.options] for name, control in visible(explorer).items()}
    designs = ["deco", "blip2", "blind"]
    assert options == {"Design": designs, "Against": designs, "Task": ["all tasks", "LOC", "COUNT"]}
    assert explorer.state.words == f"All tasks: {duel_panels(margins, 'deco', 'blip2')[1]}"


def test_battles_are_those_of_the_designs_and_the_task(margins):
    explorer = arena_explorer(margins)
    for first, second, task in (("blind", "blip2", "LOC"), ("blip2", "deco", "COUNT"), ("deco", "blind", "LOC")):
        for name, value in (("first", first), ("second", second), ("task", task)):
            explorer.controls[name].value = value
        assert explorer.state.words == f"{task}: {duel_panels(margins.only(task), first, second)[1]}"


def test_a_design_against_itself_is_said_to_be_no_battle(margins):
    explorer = arena_explorer(margins)
    explorer.controls["second"].value = "deco"
    assert explorer.state.words == "deco against itself: every battle is a tie. Choose another."
    explorer.sweep()
    assert explorer.failure is None


def test_one_task_is_all_there_is(margins):
    explorer = arena_explorer(margins.only("LOC"))
    assert [label for label, _ in explorer.controls["task"].options] == ["LOC"]
    assert explorer.state.words.startswith("LOC: deco wins ")


def test_every_control_changes_the_picture():
    explorer = explorers.arena()
    for control in explorer.controls.values():
        pictures = set()
        for index in range(len(control.options)):
            control.index = index
            pictures.add(explorer.state.png)
        assert len(pictures) == len(control.options)
        control.index = list(explorer.controls.values()).index(control) % 2
