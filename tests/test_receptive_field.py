"""Receptive fields: exactly the cell for pooling, more for convolutions, and for every connector its Jacobian."""

from __future__ import annotations

import pytest
import torch
from references import assert_same, randomise
from torch.autograd.functional import jacobian

from minivlm import DESIGNS
from minivlm.connectors.c_abstractor import CAbstraction
from minivlm.connectors.pooling import AveragePooling
from minivlm.connectors.projection import NormedMLPProjection
from minivlm.model import VLMConfig
from minivlm.receptive_field import receptive_field

READING = {name: d.mini() for name, d in DESIGNS.items() if isinstance(d.mini(), VLMConfig)}
WITH_CLASS_TOKEN = ("blip2", "instructblip", "kosmos2", "llama_vid")  # in the published systems
GRID = (4, 5)


@pytest.mark.parametrize("name", READING)
def test_a_field_is_the_jacobian_of_its_token(name):
    config = READING[name]
    width = 24 + getattr(config.connector, "high_width", 0)  # the features of a second encoder stand in front
    connector = randomise(config.connector.build(width, 16, (4, 4)))
    features = torch.randn(2, 16 + (name in WITH_CLASS_TOKEN), width)
    question = (torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool())
    question = question if connector.conditioned else ()
    field = receptive_field(connector, features, 2, (4, 4), question)
    slow = torch.zeros(4, 4)
    for i in range(2):
        told = [x[i : i + 1] for x in question]
        of_token = jacobian(lambda x, told=told: connector(x, *told)[0, 2], features[i : i + 1])  # (16, 1, N, D)
        heat = of_token.abs().sum(dim=(0, 1, 3))[-16:].view(4, 4)
        slow += heat / heat.sum() / 2
    assert_same(field, slow)
    assert float(field.sum()) == pytest.approx(1, abs=1e-5)


def test_a_projection_hears_its_patch_alone():
    connector = randomise(NormedMLPProjection().build(6, 7, GRID))
    field = receptive_field(connector, torch.randn(2, 20, 6), 13, GRID)
    assert_same(field, torch.eye(20)[13].view(GRID))


def test_pooling_hears_exactly_its_cell():
    """4x5 patches in 2x3 cells: of five columns the middle cell has the ones from 1 to 3, shared with both others."""
    connector = randomise(AveragePooling(6).build(6, 7, GRID))
    columns = [slice(0, 2), slice(1, 4), slice(3, 5)]
    for token in range(6):
        wanted = torch.zeros(GRID)
        wanted[2 * (token // 3) : 2 * (token // 3) + 2, columns[token % 3]] = 1
        field = receptive_field(connector, torch.randn(2, 20, 6), token, GRID)
        assert_same(field, wanted / wanted.sum())


def test_a_c_abstractor_hears_more_but_its_cell_best():
    torch.manual_seed(0)
    connector = CAbstraction(4, width=16, depth=1).build(6, 7, (8, 8))
    field = receptive_field(connector, torch.randn(3, 64, 6), 0, (8, 8))
    assert (field > 0).all() and float(field.sum()) == pytest.approx(1, abs=1e-5)
    cell, seam, rest = field[:4, :4], field[:4, 4], field[5:, 5:]
    assert cell.mean() > seam.mean() > rest.mean()


def test_what_nothing_moves_has_no_field():
    connector = NormedMLPProjection().build(6, 7, GRID)
    torch.nn.init.zeros_(connector[-1].weight)
    assert (receptive_field(connector, torch.randn(1, 20, 6), 0, GRID) == 0).all()


def test_no_gradient_is_left_behind_and_none_is_needed():
    connector = randomise(AveragePooling(4).build(6, 7, (4, 4)))
    features = torch.randn(1, 16, 6)
    with torch.no_grad():
        receptive_field(connector, features, 0, (4, 4))
    assert features.grad is None and all(weight.grad is None for weight in connector.parameters())


def test_what_does_not_fit_is_refused():
    connector = AveragePooling(4).build(6, 7, (4, 4))
    with pytest.raises(ValueError, match="18 features are not the 4x4 patches and a class token"):
        receptive_field(connector, torch.randn(1, 18, 6), 0, (4, 4))
    for token in (4, -1):
        with pytest.raises(ValueError, match=f"no token {token}: this connector makes 4"):
            receptive_field(connector, torch.randn(1, 16, 6), token, (4, 4))
