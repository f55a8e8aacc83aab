"""Skipping: routes, shares and costs are those of the pass itself, and time is taken of both in turn."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from references import randomise
from torch import nn

from minivlm import Batch, build
from minivlm.attention import capturing
from minivlm.data.scenes import sample_scenes
from minivlm.data.tasks import ask
from minivlm.depth import begun, deepened
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLM, Output
from minivlm.skipping import highest_picked, long_batch, milliseconds, operations, shares_worked, worked
from minivlm.streams import Bank, generator


@pytest.fixture(scope="module")
def model() -> VLM:
    """Every block but the last routed, by scores that are all over the place."""
    return randomise(begun(deepened("mod", 0.25, 1), 0)).eval()


@pytest.fixture(scope="module")
def bank(model) -> Bank:
    return Bank.make(model, sample_scenes(6, generator(0, 0)))


def read(model: VLM, bank: Bank) -> Output:
    """Two scenes with a question each, one shorter than the other, by the highest scores."""
    dialogs = [[("what color is the circle ?", "red")], [("is there a star ?", "no")]]
    batch = Batch.pack(mini_tokenizer(), dialogs, features=bank.features[:2])
    with torch.no_grad(), highest_picked(model, 0.25):
        return model(batch, capture=True)


def test_the_blocks_that_have_no_router_work_on_all_that_is_no_padding(model, bank):
    output = read(model, bank)
    rows = worked(output, model.config.language)
    assert rows.shape == (4, *output.layout.kind.shape)
    assert torch.equal(rows[3], output.layout.valid)
    for block in range(3):
        assert torch.equal(rows[block], output.maps[f"language.routers.{block}.route"])
        assert rows[block].sum(dim=1).tolist() == [-(-int(n) // 4) for n in output.layout.lengths]
        assert not (rows[block] & ~output.layout.valid).any()


def test_without_routes_it_says_what_to_do(model, bank):
    output = replace(read(model, bank), maps={})
    with pytest.raises(ValueError, match="no routes in this output: run a design with depths, with capture=True"):
        worked(output, model.config.language)


def test_shares_are_means_over_all_places_of_a_kind_and_over_routed_blocks(bank):
    model = begun(deepened("mod", 0.25, 1), 0)  # draws lots
    asked = ask(bank.scenes, generator(1, 0), ("COLOR", "EXIST"), per_scene=3)
    with highest_picked(model, 0.5):
        shares = shares_worked(model, bank.features, asked)
        assert shares == {kind: pytest.approx(0.5, abs=0.08) for kind in ("pictures", "words")}
    for router in model.language.routers:
        router.rank = lambda r: torch.arange(r.shape[1]).expand_as(r).neg().float()  # the first come first
    with highest_picked(model, 0.25):
        shares = shares_worked(model, bank.features, asked)
    dialogs = [[(q.text, q.answer) for q in sample] for sample in asked]
    lengths = model(Batch.pack(mini_tokenizer(), dialogs, features=bank.features)).layout.lengths.tolist()
    taken = sum(-(-length // 4) - 1 for length in lengths)  # one is the begin mark
    assert shares["pictures"] == pytest.approx(taken / (64 * len(asked)))
    assert shares["words"] == pytest.approx(len(asked) / sum(length - 64 for length in lengths))
    plain = build("llava15", device="cpu")
    assert shares_worked(plain, bank.features, asked) == {"pictures": 1.0, "words": 1.0}


def test_the_long_sequence_is_all_pictures_and_one_question(model, bank):
    batch = long_batch(bank, 5)
    output = model(batch)
    assert int(output.layout.is_visual.sum()) == 5 * 64
    assert torch.equal(batch.features[0], bank.features[:5, 0])
    assert mini_tokenizer().decode(batch.input_ids[0, 6:].tolist()) == "what color is the circle ?"


def test_operations_of_a_routed_block_are_those_of_its_places(bank):
    plain, batch = begun(deepened("llava15", 1, 1), 0).eval(), long_batch(bank, 2)
    model = begun(deepened("mod", 0.25, 3), 0)
    with highest_picked(model, 0.25):
        fewer = operations(plain, batch) - operations(model, batch)
    length, width, mlp = 1 + 2 * 64 + 6, 128, 384

    def block(places: int) -> int:
        return 2 * places * (4 * width**2 + 3 * width * mlp) + 4 * places**2 * width

    router = 2 * length * width
    assert fewer == block(length) - block(-(-length // 4)) - router


def test_time_is_the_median_of_turns_and_the_first_does_not_count(bank, monkeypatch):
    turns = []

    class Slow(VLM):
        def __init__(self, name: str, took: list[float]):
            nn.Module.__init__(self)
            self.name, self.took = name, iter(took)

        def forward(self, batch: Batch) -> Output:
            turns.append(self.name)
            clock[0] += next(self.took)
            return Output(torch.zeros(1, 1, 1), None, layout, {})

    clock, layout = [0.0], begun(deepened("mod", 0.5, 1), 0)(long_batch(bank, 1)).layout
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    models = {"own": Slow("own", [9.0, 0.1, 0.3, 0.2]), "plain": Slow("plain", [9.0, 1.0, 1.0, 5.0])}
    found = milliseconds(models, long_batch(bank, 1), rounds=3)
    assert found == {"own": pytest.approx(200), "plain": pytest.approx(1000)}
    assert turns == ["own", "plain"] * 4


def test_inside_the_highest_are_picked_and_afterwards_all_is_as_before(model, bank):
    dialog = [[("what color is the circle ?", "red")]]
    batch, before = Batch.pack(mini_tokenizer(), dialog, features=bank.features[:1]), model.config.language
    for capacity in (0.1, 0.5, 1.0):
        with highest_picked(model, capacity), capturing(model) as maps, torch.no_grad():
            length = model(batch).layout.kind.shape[1]
        assert int(maps["language.routers.0.route"].sum()) == -(-int(1000 * capacity) * length // 1000)
    assert model.language.config == before and not model.training
    with pytest.raises(RuntimeError), highest_picked(model, 0.1):
        raise RuntimeError
    assert model.language.config == before and not model.training
