"""Raw patches, against Fuyu's own image processor."""

from __future__ import annotations

import random

import jaxtyping
import pytest
import torch
from fuyus import LIMIT, PATCH, levels, processed, processor
from references import assert_same
from torch import Tensor

from minivlm.vision.patches import EMPTY, PatchesConfig, shrink

FUYU = PatchesConfig(30, limit=(1080, 1920))
SMALL = PatchesConfig(PATCH, limit=LIMIT)
LEVEL = 1 / 127.5  # a grey level of 255 in centred pixels

WITHIN = [(8, 12), (7, 13), (24, 40), (1, 1), (3, 40), (24, 2), (23, 39), (5, 5)]  # rows and columns, whole and not
BEYOND = [(25, 40), (24, 41), (50, 61), (47, 30), (31, 77), (120, 200), (26, 8), (9, 90), (200, 20)]


def batched(pictures: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pictures of 8 bits as one batch in [0, 1], noise where they do not reach, and their sizes."""
    sizes = torch.tensor([picture.shape[1:] for picture in pictures])
    images = torch.rand(len(pictures), 3, *sizes.amax(dim=0), generator=torch.Generator().manual_seed(1))
    for image, picture in zip(images, pictures, strict=True):
        image[:, : picture.shape[1], : picture.shape[2]] = picture.float() / 255
    return images, sizes


# --- the same patches -----------------------------------------------------------------------------------------------


def test_patches_are_those_of_the_published_processor(seed):
    pictures = [levels(*size, seed=seed) for size in WITHIN]
    got = SMALL.build().features(*batched(pictures))
    assert got.shape == (len(WITHIN), 60, 48)
    for patches, picture in zip(got, pictures, strict=True):
        wanted, grid = processed(picture)
        assert SMALL.views(tuple(picture.shape[1:])) == (grid,)
        assert_same(patches[: len(wanted)], wanted, tolerance=1e-6)
        assert not patches[len(wanted) :].any()


@pytest.mark.parametrize("size", BEYOND)
def test_what_is_larger_is_shrunk_as_published(size, seed):
    picture = levels(*size, seed=seed)
    got = SMALL.build().features(*batched([picture]))[0]
    wanted, grid = processed(picture.float())
    assert SMALL.views(size) == (grid,)
    assert_same(got, wanted, tolerance=2e-6)
    assert_same(got, processed(picture)[0], tolerance=1.1 * LEVEL)  # in 8 bits it is rounded, twice


def test_without_a_limit_nothing_is_shrunk():
    picture = levels(50, 61)
    got = PatchesConfig(PATCH).build().features(*batched([picture]))[0]
    wanted, grid = processed(picture, limit=(52, 64))
    assert PatchesConfig(PATCH).views((50, 61)) == (grid,) == ((13, 16),)
    assert_same(got, wanted, tolerance=1e-6)


def test_a_patch_holds_rows_of_columns_of_colours():
    picture = torch.arange(3 * 5 * 7).view(3, 5, 7) / 105
    got = PatchesConfig(2).build().features(picture[None], torch.tensor([[5, 7]]))[0]
    for number, row, column, colour in ((0, 0, 0, 0), (3, 1, 0, 2), (5, 0, 1, 1), (6, 1, 1, 0), (11, 0, 1, 0)):
        y, x = number // 4 * 2 + row, number % 4 * 2 + column
        pixel = picture[colour, y, x] if y < 5 and x < 7 else torch.tensor(EMPTY)
        assert_same(got[number, (row * 2 + column) * 3 + colour], 2 * pixel - 1, tolerance=1e-6)


def test_each_picture_is_cut_as_if_alone():
    pictures = [levels(*size, seed=3) for size in [(5, 9), (50, 61), (23, 8)]]
    images, sizes = batched(pictures)
    together = SMALL.build().features(images, sizes)
    for number, picture in enumerate(pictures):
        alone = SMALL.build().features(*batched([picture]))[0]
        assert torch.equal(together[number, : len(alone)], alone)


def test_there_is_nothing_to_learn_but_through_it():
    model = SMALL.build()
    assert not list(model.parameters()) and not model.state_dict()
    images, sizes = batched([levels(7, 9), levels(5, 13)])
    images.requires_grad_()
    model.features(images, sizes).pow(2).sum().backward()
    inside = torch.zeros_like(images, dtype=torch.bool)
    inside[0, :, :7, :9] = inside[1, :, :5, :13] = True
    assert torch.equal(images.grad != 0, inside)


# --- how many -------------------------------------------------------------------------------------------------------

TOKENS = {  # with a newline after each row
    (300, 300): 110,
    (448, 448): 240,
    (512, 512): 342,
    (768, 768): 702,
    (1024, 1024): 1260,
    (1080, 1920): 2340,
    (1920, 1080): 792,
}


@pytest.mark.parametrize("size", TOKENS)
def test_published_token_counts(size):
    ((rows, cols),) = FUYU.views(size)
    assert rows * (cols + 1) == TOKENS[size]
    assert processed(torch.zeros(3, *size, dtype=torch.uint8), FUYU.limit, FUYU.patch_size)[1] == (rows, cols)


def test_sizes_are_those_of_the_published_processor():
    draw, theirs = random.Random(0), processor(FUYU.limit, FUYU.patch_size)
    sizes = [(draw.randint(1, 5000), draw.randint(1, 5000)) for _ in range(300)]
    sizes += [(2140, 100), (100, 2148), (1081, 1921), (1080, 1921), (1081, 1920), (4280, 2162)]  # not quite the limit
    for size in sizes:
        wanted = theirs.resize(torch.empty(3, *size, device="meta"), theirs.size)
        assert FUYU.shrunk(size) == tuple(wanted.shape[1:])
    assert FUYU.shrunk((2140, 100)) == (1079, 50)


def test_widths():
    assert (FUYU.width, SMALL.width) == (2700, 48)
    images, sizes = torch.zeros(2, 3, 62, 31, device="meta"), torch.tensor([[62, 31], [5, 31]])
    assert FUYU.build().features(images, sizes).shape == (2, 6, 2700)


# --- shrinking ------------------------------------------------------------------------------------------------------


def triangles(length: int, wanted: int) -> Tensor:
    """(wanted, length): how much each pixel of a line weighs in each of fewer ones, falling off on both sides."""
    share = length / wanted
    weights = torch.zeros(wanted, length, dtype=torch.float64)
    for i in range(wanted):
        for j in range(length):
            weights[i, j] = max(0.0, 1 - abs((j + 0.5) / share - (i + 0.5)))
    return weights / weights.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((50, 61), (24, 29)),
        ((31, 9), (30, 8)),
        ((107, 7), (24, 1)),
        ((40, 1), (7, 1)),
        ((7, 90), (1, 13)),
        ((9, 9), (1, 1)),
    ],
)
def test_shrinking_is_a_mean_under_triangles(size, wanted, seed):
    picture = levels(*size, seed=seed).float() / 255
    slow = triangles(size[0], wanted[0]) @ picture.double() @ triangles(size[1], wanted[1]).T
    assert_same(shrink(picture, wanted), slow.float())


def test_shrinking_keeps_even_pictures_and_the_size_it_has():
    even = torch.full((3, 90, 70), 0.3)
    assert_same(shrink(even, (24, 18)), torch.full((3, 24, 18), 0.3), tolerance=1e-6)
    assert shrink(even, (90, 70)) is even


# --- what is refused ------------------------------------------------------------------------------------------------

IMAGES, SIZES = torch.rand(2, 3, 8, 12), torch.tensor([[8, 12], [5, 1]])


@pytest.fixture
def as_a_user_calls():
    """Without the checks of shapes that only tests have, which would get in first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("images", "sizes", "error", "message"),
    [
        ([1, 2], SIZES, TypeError, "float tensor .* got list"),
        (IMAGES.byte(), SIZES, TypeError, "float tensor .* got torch.uint8"),
        (IMAGES[:, :2], SIZES, ValueError, r"got \(2, 2, 8, 12\)"),
        (IMAGES[0], SIZES, ValueError, r"got \(3, 8, 12\)"),
        (IMAGES[:0], SIZES[:0], ValueError, "B >= 1"),
        (IMAGES / 0, SIZES, ValueError, "NaN or infinite"),
        (IMAGES, [[8, 12], [5, 1]], TypeError, "integer tensor .* got list"),
        (IMAGES, SIZES.float(), TypeError, "integer tensor .* got torch.float32"),
        (IMAGES, SIZES[:1], ValueError, r"sizes must be \(2, 2\).* got \(1, 2\)"),
        (IMAGES, SIZES[:, :1], ValueError, r"sizes must be \(2, 2\).* got \(2, 1\)"),
        (IMAGES, SIZES - 1, ValueError, "picture 1 cannot be 4x0 pixels in a batch of 8x12"),
        (IMAGES, SIZES * torch.tensor([0, 1]), ValueError, "picture 0 cannot be 0x12 pixels"),
        (IMAGES, SIZES + torch.tensor([0, 1]), ValueError, "picture 0 cannot be 8x13 pixels"),
        (IMAGES, SIZES.flip(1), ValueError, "picture 0 cannot be 12x8 pixels"),
    ],
)
def test_other_pictures_and_sizes_are_refused(images, sizes, error, message, as_a_user_calls):
    with pytest.raises(error, match=message) as caught:
        SMALL.build().features(images, sizes)
    assert caught.type is error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PatchesConfig(0), "patch_size must be at least 1, got 0"),
        (lambda: PatchesConfig(4, limit=(24, 0)), "limit must be at least 1, got 0"),
        (lambda: SMALL.views((0, 5)), "a picture of 0x5 pixels shows nothing"),
        (lambda: PatchesConfig(4).views((5, 0)), "a picture of 5x0 pixels shows nothing"),
        (lambda: SMALL.views((500, 2)), "500x2 pixels shrink to 24x0 .*crop it"),
    ],
)
def test_sizes_that_make_no_patches_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
