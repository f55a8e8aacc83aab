"""Kosmos-2, end to end, against its published class, and its words for places against its published processor."""

from __future__ import annotations

import random

import pytest
import references
import torch
from references import assert_same, pictures, words
from torch import Tensor, nn
from transformers.models.kosmos2 import processing_kosmos2 as processing

from minivlm import Batch, build, from_transformers
from minivlm.language.grounding import SIDE, box_to_cells, cells_to_box, ground, grounded

PAD_ID = 1


def opened(ids: Tensor, pictured: Tensor, tokens: int, stand_in: int) -> tuple[Tensor, Tensor]:
    """The same texts as transformers wants them: any ids where there will be visual tokens, and where those are."""
    times = torch.where(pictured, tokens, 1)
    ids = torch.where(pictured, stand_in, ids)

    def repeated(rows: Tensor) -> Tensor:
        return torch.stack([row.repeat_interleave(n) for row, n in zip(rows, times, strict=True)])

    return repeated(ids), repeated(pictured)


def assert_equals_kosmos2(theirs: nn.Module, ids: Tensor, pictured: Tensor, valid: Tensor, seed: int) -> None:
    side, per_sample = theirs.config.vision_config.image_size, int(pictured[0].sum())
    images = pictures(len(ids), per_sample, 3, side, side, seed=seed)
    ours = from_transformers(theirs)
    many_ids, marks = opened(ids.where(valid, PAD_ID), pictured, ours.connector.tokens, stand_in=8)
    many_valid, _ = opened(valid.long(), pictured, ours.connector.tokens, stand_in=1)
    many_labels = many_ids.masked_fill(marks | (many_valid == 0), -100)
    told = dict(input_ids=many_ids, image_embeds_position_mask=marks.long(), attention_mask=many_valid)
    wanted = theirs(pixel_values=images.flatten(0, 1), labels=many_labels, **told)
    labels = ids.masked_fill(pictured | ~valid, -100)
    got = ours(Batch(images, ids.masked_fill(pictured, ours.image_token_id), labels, valid))
    here = got.layout.valid
    assert here.sum() == many_valid.sum()
    assert_same(got.logits[here], wanted.logits[:, : here.shape[1]][here])
    assert_same(got.loss, wanted.loss)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 0.02])
@pytest.mark.parametrize("places", [((1,), (1,)), ((2, 6), (0, 1))], ids=["one picture", "two pictures"])
def test_kosmos2(places, scale, seed):
    ids, valid = words(2, 12, seed=seed), torch.ones(2, 12, dtype=torch.bool)
    pictured = torch.zeros_like(valid)
    for sample in range(2):
        pictured[sample, list(places[sample])] = True
    valid[1, 9:] = False
    assert_equals_kosmos2(references.kosmos2(seed, scale), ids, pictured, valid, seed)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(2))
def test_it_says_what_the_published_class_says(seed):
    theirs = references.kosmos2(seed, eos_token_id=62)
    ours = from_transformers(theirs)
    side, tokens = theirs.config.vision_config.image_size, 5 + seed
    ids = words(1, 5, seed=seed)
    pictured = torch.tensor([[False, True, False, False, False]])
    images = pictures(1, 1, 3, side, side, seed=seed)
    said = ours.generate(Batch(images, ids.masked_fill(pictured, ours.image_token_id)), max_new_tokens=7)
    now, marks = opened(ids, pictured, tokens, stand_in=8)
    for word in said[0]:
        logits = theirs(pixel_values=images[0], input_ids=now, image_embeds_position_mask=marks.long()).logits
        assert logits[0, -1].argmax() == word
        now, marks = torch.cat([now, word.view(1, 1)], dim=1), torch.nn.functional.pad(marks, (0, 1))


def test_what_is_converted_is_the_whole_model():
    theirs = references.kosmos2()
    ours = from_transformers(theirs)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert ours.language.head.weight is ours.language.embedding.weight
    assert ours.config.class_token and ours.config.layer is None


def test_keys_and_variants_that_have_no_place_are_refused():
    with pytest.raises(ValueError, match="no single end id"):
        from_transformers(references.kosmos2(eos_token_id=[2, 3]))
    with pytest.raises(ValueError, match="words that are not scaled"):
        from_transformers(references.kosmos2(scale_embedding=False))
    for place in ("", "text_model", "vision_model.model.encoder", "image_to_text_projection"):
        model = references.kosmos2()
        model.get_submodule(place).register_parameter("surprise", nn.Parameter(torch.zeros(1)))
        with pytest.raises(ValueError, match="surprise"):
            from_transformers(model)
    model = references.kosmos2()
    del model.image_to_text_projection.latent_query
    with pytest.raises(ValueError, match="missing connector.queries"):
        from_transformers(model)


def test_published_sizes():
    model = build("kosmos2", "published", device="meta")
    millions = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    assert sum(millions.values()) == pytest.approx(1664.5, abs=0.05)
    assert millions["connector"] == pytest.approx(19.0, rel=0.005)
    assert model.connector.num_tokens(model.config.vision.grid) == 64
    assert model.config.num_features == 257


# --- words for places -----------------------------------------------------------------------------------------------


def some_boxes(count: int = 300) -> list[tuple[float, ...]]:
    """Boxes anywhere, most with a corner on a line between cells, some thinner than a cell, one the whole picture."""
    draw, boxes = random.Random(0), [(0.0, 0.0, 1.0, 1.0)]
    while len(boxes) < count:
        x, y = (sorted(draw.choice((draw.random(), draw.randint(0, 32) / 32)) for _ in range(2)) for _ in range(2))
        if draw.random() < 0.2:
            x[1] = min(1.0, x[0] + 0.01)
        if x[0] < x[1] and y[0] < y[1]:
            boxes.append((x[0], y[0], x[1], y[1]))
    return boxes


def test_boxes_become_the_published_words_and_come_back():
    lines = set()
    for box in some_boxes():
        cells = box_to_cells(box)
        assert cells == processing.coordinate_to_patch_index(box, SIDE)
        back = cells_to_box(*cells)
        assert back == processing.patch_index_to_coordinate(*cells, SIDE)
        assert max(abs(a - b) for a, b in zip(box, back, strict=True)) <= 1 / SIDE
        lines.add((cells[0] // SIDE == cells[1] // SIDE, cells[0] % SIDE == cells[1] % SIDE))
    assert len(lines) == 4  # a single cell, a row, a column, and all else


def test_grounded_text_is_what_the_published_processor_writes_and_reads():
    processor = object.__new__(processing.Kosmos2Processor)
    processor.num_patch_index_tokens = SIDE * SIDE
    boxes = some_boxes(6)
    phrases = {" a snowman": boxes[:1], " a fire": boxes[1:4], " snow": [], " a hat": boxes[4:]}
    text = "An image of" + " and".join(ground(phrase, where) for phrase, where in phrases.items()) + "."
    plain = "An image of" + " and".join(f"<phrase>{phrase}</phrase>" for phrase in phrases) + "."
    theirs = processor._insert_patch_index_tokens(plain, [list(where) for where in phrases.values()])
    assert text.replace(" ", "") == theirs.replace(" ", "")  # theirs has spaces that its tokenizer drops
    text += "<object><patch_index_0044><patch_index_0863></object><object><patch_index_0044></object>"
    _, entities = processing.clean_text_and_extract_entities_with_bboxes(text)
    wanted = [(name if "patch" not in name else "", where) for name, _, where in entities]
    assert len(wanted) == 4 and grounded(text) == wanted


@pytest.mark.parametrize("box", [(0.5, 0, 0.5, 1), (0, 0.6, 1, 0.5), (-0.1, 0, 1, 1), (0, 0, 1, 1.1)])
def test_boxes_without_area_or_beyond_the_picture_are_refused(box):
    with pytest.raises(ValueError, match=r"left < right and top < bottom, got \("):
        box_to_cells(box)


def test_cells_that_do_not_exist_are_refused():
    assert cells_to_box(1023, 1023) == (31 / 32, 31 / 32, 1.0, 1.0)
    for cells in ((0, 1024), (1024, 1025), (-1, 3)):
        with pytest.raises(ValueError, match="32x32 cells has none numbered"):
            cells_to_box(*cells)
