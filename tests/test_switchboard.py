"""The switchboard: every design is a setting of it, and swaps are the pairs that differ in one part."""

from __future__ import annotations

from itertools import combinations

import pytest

from minivlm.switchboard import PARTS, answering, combine, different, differing, names_of, options, parts_of, swaps

DESIGNS = answering()
FIELDS = {"vision": ("vision", "layer", "class_token", "separators"), "connector": ("connector",),
          "fusion": ("fusion",), "decoder": ("language",)}  # fmt: skip


def apart(one: object, other: object) -> list[str]:
    """The parts in which two configurations differ, field by field."""
    return [part for part, fields in FIELDS.items() if any(getattr(one, f) != getattr(other, f) for f in fields)]


def test_every_design_is_a_setting_of_the_switches():
    board = options()
    for name, config in DESIGNS.items():
        parts = parts_of(config)
        [labels] = [[label for label, own in board[part].items() if own == parts[part]] for part in PARTS[:1]]
        chosen = {part: next(label for label, own in board[part].items() if own == parts[part]) for part in PARTS}
        assert combine(**chosen) == config and name in names_of(config) and len(labels) == 1


def test_a_setting_is_named_after_the_first_design_that_has_it():
    board = options()
    assert list(board) == list(PARTS)
    assert next(iter(board["vision"])) == "CLIP ViT (llava)" and "raw patches (fuyu)" in board["vision"]
    assert "Perceiver resampler (flamingo_resampler)" in board["connector"]
    assert list(board["decoder"]) == ["Llama (llava)", "Depths (mod)"]
    for part, labels in board.items():
        owners = [DESIGNS[label.rpartition("(")[2].rstrip(")")] for label in labels]
        assert [parts_of(owner)[part] for owner in owners] == list(labels.values())
        assert len(set(map(repr, labels.values()))) == len(labels)


def test_designs_of_the_same_parts_are_one():
    assert names_of(DESIGNS["fuyu"]) == ["fuyu", "otterhd"]
    assert DESIGNS.keys() - different(DESIGNS).keys() == {"otterhd", "mm1"}


def test_swaps_differ_in_their_part_alone_and_leave_none_out():
    found, kept = swaps(DESIGNS), different(DESIGNS)
    for swap in found:
        assert apart(DESIGNS[swap.before], DESIGNS[swap.after]) == [swap.part]
        assert list(kept).index(swap.before) < list(kept).index(swap.after)
    joined = {part: [] for part in PARTS}
    for one, other in combinations(kept, 2):
        parts = apart(DESIGNS[one], DESIGNS[other])
        assert differing(DESIGNS[one], DESIGNS[other]) == parts
        if len(parts) == 1:
            joined[parts[0]].append({one, other})
    for part, pairs in joined.items():
        stars = [{swap.before, swap.after} for swap in found if swap.part == part]
        assert set().union(*stars) == set().union(*pairs), part
        assert all(star in pairs for star in stars) and len(set(map(frozenset, stars))) == len(stars)
    assert len({swap.part for swap in found}) == len(PARTS)


def test_a_combination_that_is_nobodys_is_built():
    wanted = dict(vision="raw patches (fuyu)", connector="convolutions around a pooling (honeybee_c)",
                  fusion="gated cross attention (flamingo)", decoder="Llama (llava)")  # fmt: skip
    config = combine(**wanted)
    assert names_of(config) == [] and config.num_tokens == 20  # four rows of four, and their newlines
    for part, own in parts_of(config).items():
        assert own == options()[part][wanted[part]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(vision="raw patches (fuyu)", connector="Q-Former (blip2)"), "rows to end: use no newline"),
        (dict(vision="CLIP ViT on tiles (llava_next)", connector="average pooling (deco)"), "made for 8x8 features"),
        (dict(fusion="visual experts (cogvlm)", decoder="Depths (mod)"), "take an interleaved design"),
        (dict(connector="a projection for each encoder (deepseek_vl_hybrid)"), "leaves none for the other"),
        (dict(vision="eagle"), "no vision 'eagle'; choose one of CLIP ViT .llava., "),
    ],
)
def test_parts_that_do_not_go_together_are_refused_with_the_reason(changed, message):
    first = {part: next(iter(labels)) for part, labels in options().items()}
    with pytest.raises(ValueError, match=message):
        combine(**first | changed)
