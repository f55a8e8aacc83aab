"""Fuyu from pixels to scores, against its published processor and class."""

from __future__ import annotations

import inspect
from dataclasses import replace

import fuyus
import pytest
import torch
from fuyus import LIMIT, PATCH, levels, processed
from references import IMAGE_ID, assert_same, words
from torch import Tensor, nn

from minivlm.batch import Batch, pad_pictures
from minivlm.model import VLM
from minivlm.pretrained import from_transformers
from minivlm.vision.patches import PatchesConfig

NEWLINE, FIRST_ID = 62, 1  # words of the vocabulary: one after each row of patches, one after the picture
PATCHES = PatchesConfig(PATCH, LIMIT)


def converted(theirs: nn.Module) -> VLM:
    theirs.config.newline_token_id = NEWLINE
    return from_transformers(theirs)


def texts(grids: list[tuple[int, int]], padded: str, seed: int) -> tuple[Tensor, Tensor]:
    """A picture of each grid and seven words behind it, padded to one length, and where there is something, (B, L)."""
    rows = [[*([IMAGE_ID] * cols + [NEWLINE]) * rows, FIRST_ID, *words(7, seed=seed).tolist()] for rows, cols in grids]
    length = max(map(len, rows))
    empty = [[0] * (length - len(row)) for row in rows]
    ids = [[*pad, *row] if padded == "left" else [*row, *pad] for row, pad in zip(rows, empty, strict=True)]
    valid = [[0] * len(pad) + [1] * len(row) for row, pad in zip(rows, empty, strict=True)]
    return torch.tensor(ids), torch.tensor(valid if padded == "left" else [row[::-1] for row in valid]).bool()


def scores(ours: VLM, pictures: list[Tensor], seed: int) -> Tensor:
    """Of every place that is no padding, sample after sample: ours is given one `<image>` id a picture."""
    images, _, sizes = pad_pictures([[picture / 255] for picture in pictures])
    ids = torch.tensor([[IMAGE_ID, FIRST_ID, *words(7, seed=seed).tolist()]] * len(pictures))
    output = ours(Batch(images, ids, sizes=sizes))
    return output.logits[output.layout.valid]


def published_scores(theirs: nn.Module, patches: list[Tensor], ids: Tensor, valid: Tensor) -> Tensor:
    known = inspect.signature(theirs.forward).parameters
    name = "pixel_values" if "pixel_values" in known else "image_patches"  # as it was called up to 5.17 at least
    return theirs(input_ids=ids, attention_mask=valid.long(), **{name: torch.cat(patches)}).logits


@torch.no_grad()
@pytest.mark.parametrize("padded", ["left", "right"])
@pytest.mark.parametrize("sizes", [((7, 13), (12, 6)), ((50, 61), (9, 5))], ids=["two sizes", "one is shrunk"])
def test_fuyu(sizes, padded, scale, seed):
    theirs = fuyus.fuyu(seed, scale)
    pictures = [levels(*size, seed=seed).float() for size in sizes]
    patches, grids = zip(*map(processed, pictures), strict=True)
    ids, valid = texts(list(grids), padded, seed)
    wanted = published_scores(theirs, list(patches), ids, valid)
    ours = converted(theirs)
    ours.config = replace(ours.config, vision=PATCHES)  # the limit is the processor's
    ours.vision = PATCHES.build()
    assert_same(scores(ours, pictures, seed), wanted[valid])


@torch.no_grad()
@pytest.mark.parametrize("side", [8, 11, 20])
def test_otterhd_is_the_same_network_on_squares_of_any_size(side, seed):
    theirs = fuyus.fuyu(seed)
    pictures = [levels(side, side, seed=n).float() for n in range(2)]
    patches, grids = zip(*map(processed, pictures), strict=True)
    ids, valid = texts(list(grids), "right", seed)
    wanted = published_scores(theirs, list(patches), ids, valid)
    assert_same(scores(converted(theirs), pictures, seed), wanted[valid])


def test_what_is_converted_is_the_whole_model():
    theirs = fuyus.fuyu()
    ours = converted(theirs)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert ours.parts == ("connector", "language")


def test_keys_and_variants_that_have_no_place_are_refused():
    for changes, message in (
        (dict(num_channels=1), "1 colour channels"),
        (dict(tie_word_embeddings=True), "a tied head"),
        (dict(text=dict(qk_layernorm=False)), "no norms of queries and keys"),
    ):
        with pytest.raises(ValueError, match=message):
            converted(fuyus.fuyu(**changes))
    for path in ("", "model", "model.language_model"):
        theirs = fuyus.fuyu()
        theirs.get_submodule(path).register_parameter("surprise", nn.Parameter(torch.zeros(1)))
        with pytest.raises(ValueError, match="surprise"):
            converted(theirs)
    theirs = fuyus.fuyu()
    del theirs.model.vision_embed_tokens.bias
    with pytest.raises(ValueError, match=r"missing connector\.0\.bias"):
        converted(theirs)
