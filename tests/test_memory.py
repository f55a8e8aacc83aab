"""Memory: bytes are those that a pencil gives, freed ones are given back, and a bound is one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from minivlm.batch import Batch
from minivlm.memory import Memory, answering_memory, training_memory
from minivlm.watch import for_videos, start

ROOM = 64 * 2**20
ASKED = [[("which way does the star move ?", "left")]]


def watching(design: str, tokens: int | None, frames: int = 64) -> tuple[torch.nn.Module, Batch]:
    """A mini design as it learns, its encoder frozen, and one video of so many frames."""
    torch.manual_seed(0)
    model = start(for_videos(design, tokens, 8)).train()
    model.vision.requires_grad_(False)
    return model, Batch.pack(tiny.TOKENIZER, ASKED, features=torch.randn(1, frames, 64, 128))


def test_bytes_are_counted_by_hand():
    given = torch.ones(100)
    with Memory() as memory:
        a = given * 2  # 400 bytes
        b = a.double()  # 800 more
        view = b.view(10, 10)[:2]  # none: it is b's
        a.mul_(3)  # none
        given.add_(1), given.view(10, 10)  # none: it was there
        assert memory.live == memory.peak == 1200
        del a
        assert (memory.live, memory.peak) == (800, 1200)
        del b
        assert memory.live == 800  # a view keeps it
        del view
        c = torch.zeros(50)  # 200
        assert (memory.live, memory.peak) == (200, 1200)
    d = c * 2
    assert memory.live == 200 and len(d) == 50  # it no longer counts


def test_what_is_kept_for_the_backward_pass_counts_until_it_is_done():
    x = torch.ones(100, requires_grad=True)
    with Memory() as memory:
        y = x.exp().exp().exp().sum()  # three results are kept, 1200 bytes, and a number
        assert memory.live == 1204
        y.backward()
        assert x.grad is not None and memory.live == 4 + 400  # the number and the gradient
    with Memory() as memory, torch.no_grad():
        y = x.exp().exp().exp().sum()
    assert memory.live == 4 and memory.peak == 800  # two at a time


def test_more_than_there_is_room_for_is_refused_at_once():
    with Memory(room=1200):
        torch.ones(300)
    told = "1,604 bytes are needed, there is room for 1,600: hand on fewer tokens"
    with pytest.raises(MemoryError, match=told), Memory(room=1600):
        torch.ones(401), pytest.fail("it went on")
    with pytest.raises(ValueError, match="room must be 1 byte or more"):
        Memory(room=0)


def test_training_holds_all_that_autograd_saves_and_the_gradients():
    model, batch = watching("deco", 4, frames=16)
    before, saved = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}
    before.add(batch.features.untyped_storage().data_ptr())

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in before:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(batch)  # held, so that no place is used twice
    peak = training_memory(model, batch)
    assert sum(saved.values()) < peak < 2 * sum(saved.values()) and output.loss is not None
    assert all(p.grad is None for p in model.parameters())
    assert training_memory(model, batch) == peak  # the same each time


def test_answering_holds_the_cache():
    model, batch = watching("deco", 4, frames=16)
    language, length = model.config.language, 1 + 16 * 4 + 7 + 4  # begin, tokens, the question, words to say
    batch = Batch.pack(tiny.TOKENIZER, [[(ASKED[0][0][0], "")]], features=batch.features)
    cache = 2 * 4 * language.depth * language.width * length
    assert cache < answering_memory(model, batch, words=4) < 6 * cache
    assert answering_memory(model, batch, words=400) >= answering_memory(model, batch, words=4)


def test_64_frames_at_2_tokens_train_and_answer_where_all_tokens_do_not():
    model, batch = watching("llama_vid_video", None)
    assert training_memory(model, batch, ROOM) < ROOM and answering_memory(model, batch, room=ROOM) < ROOM
    model, batch = watching("llava15", None)
    for measure in (training_memory, answering_memory):
        with pytest.raises(MemoryError, match=f"there is room for {ROOM:,}"):
            measure(model, batch, room=ROOM)
    assert all(p.grad is None for p in model.parameters())


def test_nothing_to_learn_is_refused():
    model, batch = watching("deco", 1, frames=8)
    with pytest.raises(ValueError, match="nothing to learn: give a batch with labels"):
        training_memory(model, replace(batch, labels=None))
    with pytest.raises(ValueError, match="nothing to learn"):
        training_memory(model, replace(batch, labels=torch.full_like(batch.labels, -100)))
