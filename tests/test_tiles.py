"""Pictures of any size through an encoder of one size, as LLaVA-NeXT cuts and packs them."""

from __future__ import annotations

import numpy as np
import pytest
import references
import torch
import torch.nn.functional as F
from PIL import Image
from references import IMAGE_ID, assert_same, words
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.image_processing_llava_next import LlavaNextImageProcessor

from minivlm.batch import Batch, pad_pictures
from minivlm.connectors.separators import Separators
from minivlm.designs import configure
from minivlm.layout import Kind
from minivlm.pretrained import from_transformers
from minivlm.vision.tiles import TilesConfig, on_canvas
from minivlm.vision.vit import clip_vit

# (height, width): square, flat, tall, tiny, larger than every canvas, a line of pixels, one pixel
SIZES = [(20, 20), (11, 29), (40, 17), (9, 8), (90, 70), (31, 64), (64, 31), (1, 40), (50, 1), (1, 1), (23, 47)]


def picture(size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))


def tiles_config(merge: bool = True, **changes) -> TilesConfig:
    tower = clip_vit(image_size=(12, 12), patch_size=4, width=8, depth=1, heads=2, mlp_width=16)
    canvases = ((12, 24), (24, 12), (24, 24), (36, 12), (12, 36))
    return TilesConfig(tower, **{"canvases": canvases, "image_size": (24, 24), "merge": merge, **changes})


@pytest.mark.parametrize("first", range(0, len(SIZES), 2))
def test_llava_next(seed, scale, first):
    """Two samples, the first with two pictures; every size comes first once, and no batch is of one size."""
    theirs = references.llava_next(seed, scale)
    ours = from_transformers(theirs)
    sizes = [SIZES[(first + i) % len(SIZES)] for i in (0, 1, 3)]
    pictures = [picture(size, seed + i) for i, size in enumerate(sizes)]
    images, there, valid = pad_pictures([pictures[:2], pictures[2:]])
    ids = words(2, 9, seed=seed)
    ids[0, [1, 4]] = ids[1, 3] = IMAGE_ID
    labels = ids.masked_fill(ids == IMAGE_ID, -100)
    got = ours(Batch(images, ids, labels, image_mask=there, sizes=valid))

    cut = [ours.vision.cut(image) for image in pictures]
    tiles = torch.zeros(3, max(map(len, cut)), *cut[0].shape[1:])
    for row, own in zip(tiles, cut, strict=True):
        row[: len(own)] = own
    counts = iter([ours.config.tokens_of(size) for size in sizes])
    rows = [[[word] * (next(counts) if word == IMAGE_ID else 1) for word in row] for row in ids.tolist()]
    many = [torch.tensor(sum(row, [])) for row in rows]
    many_ids = torch.nn.utils.rnn.pad_sequence(many, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in many], batch_first=True)
    many_labels = many_ids.masked_fill((many_ids == IMAGE_ID) | (mask == 0), -100)
    wanted = theirs(
        input_ids=many_ids,
        attention_mask=mask,
        labels=many_labels,
        pixel_values=tiles,
        image_sizes=torch.tensor(sizes),
    )
    there = got.layout.valid
    assert there.shape == mask.shape and torch.equal(there, mask.bool())
    assert_same(got.logits[there], wanted.logits[there])
    assert_same(got.loss, wanted.loss)


@pytest.mark.parametrize("size", [*SIZES, (480, 640), (1080, 1920), (672, 672), (200, 200)])
def test_canvas_and_tiles_are_those_of_the_processor(size):
    """Pixels to a hundredth of the range: theirs are rounded to whole bytes in between."""
    config = configure("llava_next", "published").vision
    points = [list(canvas) for canvas in config.canvases]
    assert config.best_canvas(size) == tuple(select_best_resolution(size, points))
    if min(size) < 2:  # the processor does not squash a line of pixels
        return
    small = tiles_config()
    sides = dict(height=12, width=12)
    processor = LlavaNextImageProcessor(
        size=dict(shortest_edge=12),
        crop_size=sides,
        do_center_crop=False,
        image_grid_pinpoints=[list(canvas) for canvas in small.canvases],
        do_normalize=False,
    )
    coarse = 0.2 + 0.6 * picture((3, 4))  # noise would overshoot, which theirs cuts off between the two directions
    image = (F.interpolate(coarse[None], size, mode="bilinear")[0] * 255).round() / 255
    wanted = processor((image * 255).to(torch.uint8), return_tensors="pt", input_data_format="channels_first")
    got = small.build().cut(image)
    pixels = wanted["pixel_values"][0]
    assert got.shape == pixels.shape
    assert (got - pixels)[1:].abs().max() < 0.01


@pytest.mark.parametrize("size", [(300, 1), (300, 2), (1, 300), (40, 1), (1, 1)])
def test_lines_of_pixels_become_those_of_pillow(size):
    """Where a single column is left, torch has read wrong pixels."""
    config, image = tiles_config(), picture(size)
    canvas = on_canvas(image, config.best_canvas(size))
    shown = (canvas > 0).any(dim=0).nonzero()
    (top, left), (bottom, right) = shown.amin(dim=0).tolist(), (shown.amax(dim=0) + 1).tolist()
    wanted = [
        np.array(Image.fromarray(plane.numpy()).resize((right - left, bottom - top), Image.Resampling.BICUBIC))
        for plane in image
    ]
    assert_same(canvas[:, top:bottom, left:right], torch.from_numpy(np.stack(wanted)).clamp(0, 1))


@pytest.mark.parametrize(
    "size, tokens",
    [((672, 672), 2928), ((900, 900), 2928), ((480, 640), 2340), ((1080, 1920), 1948), ((1008, 336), 2376)]
    + [((336, 336), 1176)],
)
def test_published_counts(size, tokens):
    assert configure("llava_next", "published").tokens_of(size) == tokens


def test_tiles_that_stay_apart_show_their_part_of_the_picture():
    """Each tile equals the encoder's look at that part of the canvas."""
    config = tiles_config(merge=False)
    module, image = config.build().eval(), picture((20, 24))
    features = module.features(image[None], layer=-1)[0]
    canvas = on_canvas(image, (24, 24))
    assert config.views((20, 24)) == ((3, 3),) * 5
    for number, (row, col) in enumerate([(0, 0), (0, 12), (12, 0), (12, 12)], start=1):
        part = canvas[None, :, row : row + 12, col : col + 12]
        alone = module.tower.features(part, layer=-1)[0, 1:]
        assert_same(features[9 * number : 9 * number + 9], alone)


def test_what_stands_where(seed):
    """The whole first, without newlines; then the canvas, a newline after each of its rows."""
    ours = from_transformers(references.llava_next(seed)).config
    size = (20, 44)
    with torch.device("meta"):
        connector = ours.make_connector()
    layout, _ = ours.separators.build(1).arrange(ours.vision.views(size), connector)
    (rows, cols), (lined, across) = ours.vision.views(size)
    assert (layout.view == 0).sum() == rows * cols and (layout.kind[layout.view == 0] == Kind.PATCH).all()
    canvas = layout.kind[layout.view == 1].view(lined, across + 1)
    assert (canvas[:, :-1] == Kind.PATCH).all() and (canvas[:, -1] == Kind.NEWLINE).all()
    assert layout.row[layout.view == 1].view(lined, across + 1)[:, :-1].unique().tolist() == list(range(lined))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(canvases=((12, 20),)), "canvas 12x20 is not made of whole tiles of 12x12"),
        (dict(canvases=()), "canvases must be at least 1, got 0"),
        (dict(image_size=(0, 5)), "height must be at least 1, got 0"),
    ],
)
def test_bad_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiles_config(**changes)


def test_tags_for_too_few_views_are_refused():
    config = configure("llava_next")
    with pytest.raises(ValueError, match="a picture of 5 views, but tags for 2"):
        with torch.device("meta"):
            connector = config.make_connector()
        Separators(tags=((3,), (4,))).build(4).arrange(((2, 2),) * 5, connector)
