"""Pictures of a single pixel, of a line of them, of extreme shapes, and larger than what a design is made for: each is
read, or refused with one error that names its size and says what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from references import assert_same, pictures, randomise
from torch import Tensor

from minivlm import VLM, Batch
from minivlm.batch import pad_pictures
from minivlm.designs import configure
from minivlm.language.tokenizer import mini_tokenizer

SIZES = [(1, 1), (1, 40), (40, 1), (7, 100), (8, 8), (2, 300), (300, 2), (16, 320), (320, 9), (15, 17), (200, 300)]
READS_ALL = ["llava_next", "fuyu", "otterhd", "tiles_untagged", "tiles_2d"]
LEAST = {"idefics2": 8, "idefics2_split": 16}  # a patch, and one in each quarter
FIXED = {"deepseek_vl": (64, 64), "deepseek_vl_hybrid": (128, 128)}

pytestmark = pytest.mark.usefixtures("no_graph")


@pytest.fixture(scope="module")
def made() -> dict[str, VLM]:
    return {}


@pytest.fixture(params=[*READS_ALL, *LEAST, *FIXED])
def named(request, made) -> tuple[str, VLM]:
    if request.param not in made:
        made[request.param] = randomise(configure(request.param).build())
    return request.param, made[request.param]


def packed(shown: list[Tensor], **visual: Tensor) -> Batch:
    """A question about each picture; `visual`: what was made of the pictures earlier, if anything."""
    images, _, sizes = pad_pictures([[picture] for picture in shown])
    dialogs = [[("what is it", "red")]] * len(shown)
    return Batch.pack(mini_tokenizer(), dialogs, **(visual or dict(images=images)), sizes=sizes)


def is_read(name: str, size: tuple[int, int]) -> bool:
    return name in READS_ALL or min(size) >= LEAST.get(name, 10**9) or size == FIXED.get(name)


@pytest.mark.parametrize("size", [*SIZES, (64, 64), (128, 128)])
def test_a_picture_of_any_size_is_read_or_refused(named, size):
    """Alone, and in a batch beside one that the design is made for, whose padding it must not notice."""
    name, model = named
    own = pictures(3, *model.config.vision.image_size, seed=1)
    alone, beside = packed([pictures(3, *size)]), packed([pictures(3, *size), own])
    if not is_read(name, size):
        for batch in (alone, beside):
            with pytest.raises(ValueError, match=rf"{size[0]}(x|, ){size[1]}\b.*(enlarge|resize) (it|them)"):
                model(batch)
        return
    output, both = model(alone), model(beside)
    assert output.logits.isfinite().all() and output.loss.isfinite()
    assert int(output.layout.is_visual.sum()) == model.config.tokens_of(size)
    assert_same(both.logits[0][both.layout.valid[0]], output.logits[0][output.layout.valid[0]])
    features = model.features(alone.images, alone.sizes)
    assert_same(model(packed([pictures(3, *size)], features=features)).logits, output.logits)


@pytest.mark.parametrize("name", ["idefics2", "idefics2_split", "fuyu", "llava_next"])
def test_a_picture_is_not_lost_in_what_it_is_read_at(name):
    """Small and large ones are not all alike to a design: another picture gives other scores."""
    model = randomise(configure(name).build())
    for size in ((16, 320), (320, 16), (200, 300)):
        first, other = (model(packed([pictures(3, *size, seed=seed)])) for seed in (0, 1))
        assert (first.logits - other.logits).abs().max() > 1e-3


def test_what_is_larger_than_the_limit_is_shrunk_or_refused():
    """Fuyu's limit, in a mini model."""
    config = configure("fuyu")
    model = randomise(replace(config, vision=replace(config.vision, limit=(32, 64))).build())
    output = model(packed([pictures(3, 100, 100), pictures(3, 16, 300)]))
    assert output.logits.isfinite().all()
    assert output.layout.is_visual.sum(dim=1).tolist() == [4 * 5, 1 * 9]  # 32x32 and 3x64 pixels, with newlines
    with pytest.raises(ValueError, match="2x300 pixels shrink to 0x64 within \\(32, 64\\): crop it first"):
        model(packed([pictures(3, 2, 300)]))
