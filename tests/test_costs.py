"""What a sample costs, against a real model that does it: operations by torch's counter, bytes tensor by tensor, and on
a GPU by its allocator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from references import words
from torch.utils.flop_counter import FlopCounterMode

from minivlm import DESIGNS, VLM, Batch, build
from minivlm.attention import capturing
from minivlm.budget import Budget, budget
from minivlm.language.depths import Depths
from minivlm.memory import answering_memory, training_memory

SPLITTING = ["film_resampler", "idefics2_split"]  # what no named design does in small
ANSWERING = [name for name, design in DESIGNS.items() if design.answers] + SPLITTING
WORDS = 11


def real(name: str, images: int = 2, count: int = WORDS) -> tuple[VLM, Batch]:
    """A mini design with numbers, and a sample: its pictures, then words that are all to be learned."""
    torch.manual_seed(0)
    model = build(name, device="cpu")
    ids = torch.cat([torch.full((1, images), model.image_token_id), 300 + words(1, count) % 100], dim=1)
    labels = torch.where(ids == model.image_token_id, -100, ids)
    images = torch.rand(1, images, 3, *model.config.vision.image_size)
    asked = ids[:, -count:][:, : model.connector.max_words or None]
    return model, Batch(images, ids, labels, torch.ones_like(ids, dtype=torch.bool), instruction=asked)


def counted(name: str, images: int = 2, **sizes: int) -> Budget:
    return budget(name, "mini", **{"words": WORDS, "images": images, "bits": 32, **sizes})


# --- operations -----------------------------------------------------------------------------------------------------


def pick(model: VLM, places: int | None = None) -> None:
    """Have depths, if there are some, work on that many places (None: on as many as a budget counts), and not on as
    many as they like."""
    for router in getattr(model.language, "routers", ()):
        own, config = router.guess, model.language.config

        def guess(x, r, own=own, config=config):
            own(x, r)  # is computed all the same
            few = config.places(r.shape[1]) if places is None else places
            return (torch.arange(r.shape[1]) < few).float()[None] - 0.5

        router.guess = guess


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "images"), [*((name, 2) for name in ANSWERING), ("llava15", 0), ("flamingo", 0), ("cogvlm", 0)]
)
def test_operations_are_those_of_a_real_pass(name, images):
    """All of a model's own forward pass, every attention made explicit: torch does not count a CPU's fused one."""
    model, batch = real(name)
    if images == 0:
        batch = Batch(None, batch.input_ids[:, 2:])
    model.requires_grad_(False).eval()  # or the counter looks for the history of weights
    pick(model)
    with FlopCounterMode(display=False) as counter:
        model(batch, capture=True)
    assert sum(counted(name, images).flops.values()) == counter.get_total_flops()


@torch.no_grad()
@pytest.mark.parametrize("name", ANSWERING)
def test_operations_of_a_word_are_those_of_a_real_step(name):
    """One word more from a real cache. Where blocks skip places, one that all routed blocks work on and one that none
    does, weighed by their share of the sequence before."""
    steps = [real_step(name, places) for places in (1, 0)]
    model, _ = real(name)
    share = 1.0
    if isinstance(model.language, Depths):
        assert steps[0] > 1.1 * steps[1]
        share = model.language.config.places(counted(name).positions) / counted(name).positions
    wanted = share * steps[0] + (1 - share) * steps[1]
    assert sum(counted(name).word_flops.values()) == pytest.approx(wanted, rel=0.001)


def real_step(name: str, places: int) -> int:
    model, batch = real(name)
    model.requires_grad_(False).eval()
    pick(model)
    x, layout, seen = model._sequence(batch)
    cache, mask = model.language.make_cache(x.shape[1] + 1), model.fusion.mask(layout)
    model._read(x, layout, seen, mask, cache)
    pick(model, places)
    step, mask = model.language.embedding(batch.input_ids[:, -1:]), torch.ones(1, 1, 1, x.shape[1] + 1).bool()
    with FlopCounterMode(display=False) as counter, capturing(model):
        model.language.logits(model._read(step, layout.following(), seen, mask, cache))
    return counter.get_total_flops()


def test_a_word_is_counted_by_hand():
    """LLaVA-1.5: every matrix of the decoder once, and two products a block with the keys and values of all before."""
    cost, config = budget("llava15", words=64), build("llava15", "published", "meta").config.language
    matrices = config.depth * (4 * config.width**2 + 3 * config.width * config.mlp_width)
    attention = config.depth * 2 * (576 + 64 + 1) * config.width
    assert cost.word_flops["language"] == 2 * (matrices + attention + config.width * config.vocab_size)
    assert cost.word_flops["vision"] == cost.word_flops["connector"] == 0
    assert sum(budget("llava15", words=0, images=0).word_flops.values()) == 0


def test_a_word_looks_at_pictures_whose_keys_are_there_already():
    """Idefics: a layer before every second of four blocks; a gated MLP of three matrices, one map into 4 heads and one
    out of them, and the look at 2 x 16 tokens. Nothing of a picture is computed again."""
    cost, config = counted("idefics"), build("idefics", device="meta").config
    width, layers = config.language.width, 2
    look = 2 * width * width + 2 * 2 * 16 * width
    assert cost.word_flops["fusion"] == 2 * layers * (look + 3 * width * config.fusion.mlp_width)
    assert cost.flops["fusion"] > (WORDS + 2) * cost.word_flops["fusion"]  # which holds the pictures' keys and values


def test_experts_double_the_weights_and_add_no_operation():
    for name in ("cogvlm", "beit3"):
        cost = counted(name)
        assert cost.weights["fusion"] > 0 and cost.flops["fusion"] == cost.word_flops["fusion"] == 0


# --- bytes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSWERING)
def test_bytes_are_those_of_a_real_step_and_of_a_real_answer(name):
    (model, batch), cost = real(name), counted(name)
    assert cost.training_bytes == pytest.approx(training_memory(model.train(), batch), rel=0.06)
    assert cost.prefill_bytes == pytest.approx(answering_memory(model.eval(), batch, words=1), rel=0.06)


@pytest.mark.parametrize(("name", "rel"), [("llava15", 0.06), ("idefics", 0.06), ("mod", 0.25)])
def test_the_longer_the_words_the_more_bytes(name, rel):
    """As many words as outweigh weights: another part decides what a step takes. Depths are run without a mask."""
    model, batch = real(name, images=1, count=300)
    long = counted(name, images=1, words=300)
    assert long.training_bytes == pytest.approx(training_memory(model.train(), batch), rel=rel)
    assert long.prefill_bytes == pytest.approx(answering_memory(model.eval(), batch, words=1), rel=rel)
    assert long.training_bytes > 2 * counted(name, images=1).training_bytes


def test_bytes_are_of_numbers_in_so_many_bits():
    half, whole = (budget("llava15", "mini", bits=bits) for bits in (16, 32))
    assert half.cache_bytes * 2 == whole.cache_bytes and half.memory_bytes * 2 == whole.memory_bytes
    for kind in ("prefill_bytes", "training_bytes"):
        assert 1.7 < getattr(whole, kind) / getattr(half, kind) <= 2
    with pytest.raises(ValueError, match="numbers have 16 or 32 bits, got 8"):
        budget("llava15", bits=8)


def test_without_words_there_is_nothing_to_learn_and_without_anything_nothing_to_read():
    assert budget("llava15", "mini", words=0).training_bytes == 0
    assert budget("llava15", "mini", words=0).prefill_bytes > 0
    assert budget("llava15", "mini", words=0, images=0).prefill_bytes == 0


def test_published_training_steps_hold_gradients_and_a_cache_is_part_of_reading():
    cost = budget("llava15")
    gradients = 2 * sum(cost.weights.values())
    assert 0.95 * gradients < cost.training_bytes < 1.5 * gradients
    assert cost.cache_bytes < cost.prefill_bytes < 2 * cost.cache_bytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")
@pytest.mark.parametrize("name", ANSWERING)
def test_bytes_are_those_of_a_gpu(name):
    """By its allocator, on a sample of which workspaces and rounding are a small part; they are there after a first
    run."""
    sizes = dict(images=8, count=128)
    model, batch = real(name, **sizes)
    model, batch = model.cuda(), batch.to("cuda")
    cost = counted(name, images=8, words=128)

    def peak(run) -> int:
        run()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before

    def step() -> None:
        model.train()(batch).loss.backward()
        model.zero_grad()

    assert cost.training_bytes == pytest.approx(peak(step), rel=0.25)
    model.eval()
    assert cost.prefill_bytes == pytest.approx(peak(lambda: model.generate(replace(batch, labels=None), 1)), rel=0.25)
