"""A picture and its four quarters through an encoder of any size, as Idefics2 splits it."""

from __future__ import annotations

import pytest
import torch
from references import assert_same, pictures

from minivlm.storage import _from_dict, _to_dict
from minivlm.vision.quarters import QuartersConfig
from minivlm.vision.variable import variable_vit

TOWER = variable_vit(image_size=(12, 12), patch_size=3, width=8, depth=2, heads=2, mlp_width=16)


@torch.no_grad()
def test_each_part_is_read_as_a_picture_of_its_own():
    """Top left, top right, bottom left, bottom right, the whole; of odd sides the second half is longer."""
    module = QuartersConfig(TOWER).build().eval()
    images, sizes = pictures(2, 3, 13, 17), torch.tensor([[13, 17], [9, 8]])
    got = module.features(images, sizes)
    for image, features, (height, width) in zip(images, got, sizes.tolist(), strict=True):
        top, left = height // 2, width // 2
        parts = [image[:, :top, :left], image[:, :top, left:width], image[:, top:height, :left]]
        parts += [image[:, top:height, left:width], image[:, :height, :width]]
        wanted = torch.cat([module.tower.features(part[None])[0] for part in parts])
        assert_same(features[: len(wanted)], wanted)
        assert not features[len(wanted) :].any()
        grids = [TOWER.views(tuple(part.shape[1:]))[0] for part in parts]
        assert list(module.config.views((height, width))) == grids


def test_a_line_of_pixels_has_no_quarters():
    with pytest.raises(ValueError, match="a picture of 1x9 pixels has no quarters"):
        QuartersConfig(TOWER).views((1, 9))


def test_its_configuration_is_known_to_storage():
    config = QuartersConfig(TOWER)
    assert _from_dict(_to_dict(config)) == config
