"""One part at a time: rows are the paired gains, neighbours those that differ in one part, cells what goes together."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
from comparisons import compared

from minivlm.figures import neighbours, parts_map, swap_rows
from minivlm.figures.swaps import by_design, gain, said_gain
from minivlm.switchboard import Swap, answering, combine, differing, options, swaps
from minivlm.tables import interval

SHARES = {
    "llava": (0.5, 0.6, 0.7), "llava15": (0.55, 0.66, 0.74), "deco": (0.4, 0.58, 0.6), "fuyu": (0.5, 0.5, 0.4),
    "otterhd": (0.5, 0.5, 0.4), "mod": (0.3, 0.5, 0.6), "cogvlm": (0.9, 0.9, 0.9), "blind": (0.2, 0.2, 0.2),
}  # fmt: skip
RESULTS = [compared(name, seed, right=share) for name, own in SHARES.items() for seed, share in enumerate(own)]
for run in RESULTS:
    run.accuracy["LOC"] = 0.9 if run.design == "deco" else 0.1


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def points(before: str, after: str) -> tuple[float, float]:
    return interval([100 * (b - a) for a, b in zip(SHARES[before], SHARES[after], strict=True)])


def test_runs_are_gathered_by_design_and_the_blind_one_is_none():
    found = by_design(RESULTS)
    assert list(found) == [name for name in SHARES if name != "blind"]
    assert all(run.design == name and len(runs) == 3 for name, runs in found.items() for run in runs)


def test_a_row_a_swap_with_its_paired_gain_by_part_the_best_first():
    figure, told = swap_rows(RESULTS, swaps(answering()), "COLOR")
    [ax] = figure.axes
    rows = {
        "vision: llava → fuyu": points("llava", "fuyu"),
        "connector: llava → llava15": points("llava", "llava15"),
        "connector: llava → deco": points("llava", "deco"),
        "decoder: llava15 → mod": points("llava15", "mod"),
    }
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    for bar, (middle, half) in zip(ax.containers, rows.values(), strict=True):
        assert bar[0].get_xdata()[0] == pytest.approx(middle)
        assert [x for x, _ in bar[2][0].get_segments()[0]] == pytest.approx([middle - half, middle + half])
    assert told == (
        "Gain in accuracy (COLOR, points) by swapping one part. "
        f"vision: llava → fuyu {said_gain(*rows['vision: llava → fuyu'])}; "
        f"connector: llava → llava15 {said_gain(*rows['connector: llava → llava15'])}, "
        f"llava → deco {said_gain(*rows['connector: llava → deco'])}; "
        f"decoder: llava15 → mod {said_gain(*rows['decoder: llava15 → mod'])}."
    )


def test_another_task_is_another_gain_and_no_pair_is_refused():
    runs = {name: [run for run in RESULTS if run.design == name] for name in SHARES}
    assert gain(runs, Swap("connector", "llava", "deco"), "LOC")[0] == pytest.approx(80)
    with pytest.raises(ValueError, match="no seed with results of both llava and deco"):
        gain({"llava": runs["llava"][:1], "deco": runs["deco"][1:]}, Swap("connector", "llava", "deco"))
    with pytest.raises(ValueError, match="no results of both sides of a swap among cogvlm, deco"):
        swap_rows([compared("cogvlm"), compared("deco"), compared("blind")], swaps(answering()))


def test_a_gain_is_told_as_more_less_or_a_tie():
    told = [said_gain(*one) for one in ((4.1, 2.0), (-4.1, 2.0), (-1.0, 2.0), (3.0, float("nan")))]
    assert told == ["+4.1 ± 2.0 (more)", "-4.1 ± 2.0 (less)", "-1.0 ± 2.0 (a tie)", "+3.0"]


def test_neighbours_differ_in_one_part_and_the_chosen_comes_first():
    figure, told = neighbours(RESULTS, answering()["llava"], "LLaVA", "COLOR")
    [ax] = figure.axes
    named = [label.get_text() for label in ax.get_yticklabels()]
    assert named == ["llava", "vision: fuyu", "connector: llava15", "connector: deco"]
    for label in named[1:]:
        part, name = label.split(": ")
        assert differing(answering()["llava"], answering()[name]) == [part]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([60, 100 * 1.4 / 3, 65, 100 * 1.58 / 3])
    assert ax.get_title() == "LLaVA"
    [blind] = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert blind.get_xdata() == pytest.approx([20, 20])
    assert told.startswith("llava: 60 % (COLOR). Swap one part, in points: connector as in llava15 ")
    assert f"connector as in deco {said_gain(*points('llava', 'deco'))}" in told and "otterhd" not in told


def test_what_nobody_has_run_shows_what_is_known_one_swap_away():
    first = {part: next(iter(labels)) for part, labels in options().items()}
    config = combine(**first | {"vision": "raw patches (fuyu)", "connector": "MLP projection (llava15)"})
    figure, told = neighbours(RESULTS, config, "nobody's", "COLOR")
    [ax] = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["vision: llava15", "connector: fuyu"]
    assert told == "No results (COLOR); one swap away there are vision as in llava15 65 %, connector as in fuyu 47 %."
    alone, told = neighbours([compared("cogvlm")], answering()["llava"], "alone")
    assert told.endswith("one swap away there are none.") and len(alone.axes[0].patches) == 0


def test_a_map_of_pairs_says_which_go_together_and_whose_they_are(monkeypatch):
    board = {
        "vision": ["CLIP ViT (llava)", "CLIP ViT on tiles (llava_next)", "raw patches (fuyu)"],
        "connector": ["linear projection (llava)", "MLP projection (llava15)", "Q-Former (blip2)"],
    }
    some = {part: {label: options()[part][label] for label in labels} for part, labels in board.items()}
    monkeypatch.setattr("minivlm.figures.swaps.options", lambda: some)
    figure, told = parts_map("interleaved (llava)", "Depths (mod)")
    ax = figure.axes[0]
    kinds = ax.collections[0].get_array().reshape(3, 3)
    for row, connector in enumerate(board["connector"]):
        for col, vision in enumerate(board["vision"]):
            try:
                config = combine(vision, connector, "interleaved (llava)", "Depths (mod)")
                owned = config in answering().values()
            except ValueError:
                config, owned = None, False
            assert kinds[row, col] == (2 if owned else 1 if config else 0), (connector, vision)
    places = {text.get_text(): text.get_position() for text in ax.texts if text.get_text()}
    assert places == {"mod": (0.5, 1.5), "fuyu_mod": (2.5, 0.5)}
    assert [label.get_text() for label in ax.get_yticklabels()] == board["connector"] and ax.yaxis_inverted()
    assert told == (
        "Of 9 pairs of an encoder and a connector, interleaved (llava), Depths (mod): 2 are a design of ours, 5 go "
        "together and are nobody's, 2 do not go together."
    )
