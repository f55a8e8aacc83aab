"""Watching: a window of what was read gives the numbers of one reading in which only the window is seen, and costs the
same after twenty pictures as after three."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from references import assert_same, pictures, randomise, words
from torch import Tensor

from minivlm import VLM, Batch, build
from minivlm.language.tokenizer import Tokenizer
from minivlm.streaming import StreamingReader

DESIGNS = ["llava15", "fuyu", "cogvlm", "mod", "fuyu_mod"]
IMAGE = Tokenizer.image_id


@pytest.fixture(params=DESIGNS)
def vlm(request) -> VLM:
    return randomise(build(request.param, device="cpu"))


def piece(model: VLM, number: int, streams: int = 2) -> Batch:
    """A picture behind two words, and three words or four behind it; every third piece is words alone."""
    ids = words(streams, 6 + number % 2, seed=number)
    if number % 3 == 2:
        return Batch(None, ids)
    ids[:, 2] = IMAGE
    return Batch(pictures(streams, 1, 3, *model.config.vision.image_size, seed=number), ids)


def one_reading(model: VLM, pieces: list[Batch], keep: int, sinks: int) -> Tensor:
    """All pieces in one sequence; each place sees its own piece up to itself and, of what came before that piece, the
    first and the latest that were kept."""
    entered, kept, allowed, position, start = [], [], [], 0, 0
    total = sum(model._sequence(each)[0].shape[1] for each in pieces)
    layouts = []
    for each in pieces:
        x, layout, _ = model._sequence(each)
        for place in range(start, start + x.shape[1]):
            row = torch.zeros(total, dtype=torch.bool)
            row[[*kept, *range(start, place + 1)]] = True
            allowed.append(row)
        layouts.append(replace(layout, position=layout.position + position))
        position += int(layout.position.max()) + 1
        kept = [*kept, *range(start, start + x.shape[1])]
        kept = kept if len(kept) <= sinks + keep else kept[:sinks] + kept[-keep:]
        start += x.shape[1]
        entered.append(x)
    whole = type(layouts[0])(*(torch.cat(fields, dim=1) for fields in zip(*map(values, layouts), strict=True)))
    hidden = model._read(torch.cat(entered, dim=1), whole, None, torch.stack(allowed)[None, None])
    return model.language.logits(hidden)


def values(layout) -> list[Tensor]:
    return list(vars(layout).values())


@torch.no_grad()
@pytest.mark.parametrize(("keep", "sinks"), [(1000, 0), (90, 0), (90, 5), (20, 1)])
def test_a_window_is_one_reading_that_sees_no_further(vlm, keep, sinks):
    pieces = [piece(vlm, number) for number in range(6)]
    watcher = StreamingReader(vlm, keep, sinks)
    read = torch.cat([watcher.read(each) for each in pieces], dim=1)
    assert_same(read, one_reading(vlm, pieces, keep, sinks))
    assert watcher.places == read.shape[1] and watcher.held == min(read.shape[1], keep + sinks)


@torch.no_grad()
def test_while_nothing_is_forgotten_it_is_the_model_as_it_is(vlm):
    first, second = piece(vlm, 0), piece(vlm, 1)
    watcher = StreamingReader(vlm, keep=500)
    read = torch.cat([watcher.read(first), watcher.read(second)], dim=1)
    images, ids = torch.cat([first.images, second.images], dim=1), torch.cat([first.input_ids, second.input_ids], dim=1)
    assert_same(read, vlm(Batch(images, ids)).logits)


def numbers(watcher: StreamingReader) -> tuple[int, ...]:
    """How many each layer's tensors hold, and how many of its slots are in use."""
    return tuple(x.numel() for layer in watcher.cache for x in (layer.k, layer.v) if x is not None)


@torch.no_grad()
def test_twenty_pictures_take_no_more_than_three(vlm):
    watcher, sizes = StreamingReader(vlm, keep=80, sinks=4, longest=90), []
    for number in range(20):
        ids = words(1, 4, seed=number)
        ids[:, 1] = IMAGE
        watcher.read(Batch(pictures(1, 1, 3, *vlm.config.vision.image_size, seed=number), ids))
        sizes.append((watcher.held, *numbers(watcher)))
        assert all(layer.length <= 84 for layer in watcher.cache)
        assert sum(layer.length == 84 for layer in watcher.cache) >= 3 or number == 0
    assert len(set(sizes[2:])) == 1 and watcher.held == 84 and watcher.places > 1300
    width = vlm.language.config.kv_heads * vlm.language.config.dim_per_head
    assert all(count == (80 + 4 + 90) * width for count in numbers(watcher))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(keep=0), "keep must be at least 1, got 0"),
        (dict(keep=9, longest=0), "longest must be at least 1, got 0"),
        (dict(keep=9, sinks=-1), "sinks must be 0 or more, got -1"),
    ],
)
def test_sizes_that_make_no_window_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        StreamingReader(build("llava15", device="cpu"), **sizes)


@pytest.mark.parametrize("name", ["flamingo", "beit3"])
def test_what_has_no_such_window_is_refused(name):
    with pytest.raises(ValueError, match="keeps pictures outside the sequence or looks ahead"):
        StreamingReader(build(name, device="cpu"), keep=9)


def test_pieces_that_do_not_fit_are_refused():
    model = build("llava15", device="cpu")
    ids = words(2, 8)
    mask = torch.ones(2, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="neither padding nor questions side by side"):
        StreamingReader(model, 9).read(Batch(None, ids, text_mask=mask))
    with pytest.raises(ValueError, match=r"a piece of \[8, 8\] places: all streams must be as long, and at most 7"):
        StreamingReader(model, 9, longest=7).read(Batch(None, ids))
