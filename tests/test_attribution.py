"""Attribution: each method equals its definition written out slowly, and heat made by hand gets the score it should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from references import assert_same, randomise

from minivlm import Batch
from minivlm.attribution import METHODS, attribute, decoder_attention, pointing_game, word_heat
from minivlm.model import answer_positions

T = tiny.TOKENIZER
DIALOGS = [[("what color is the circle ?", "red")], [("is there a large red square ?", "no")], [("circle", "blue")]]
IMAGES = torch.rand(3, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    return randomise(tiny.vlm()).eval()


@pytest.fixture
def batch():
    """Three questions of different lengths, so two samples are padded."""
    return Batch.pack(T, DIALOGS, images=IMAGES)


def places(batch: Batch, sample: int) -> tuple[list[int], int]:
    """Positions of the patches and of the last word of the question: begin mark, 4 patches, question, answer, end."""
    asked = len(T.encode(DIALOGS[sample][0][0]))
    return [1, 2, 3, 4], 4 + asked


def log_probability(model, batch: Batch, sample: int) -> torch.Tensor:
    _, position = places(batch, sample)
    word = T.encode(DIALOGS[sample][0][1])[0]
    return torch.log(torch.softmax(model(batch).logits[sample, position], dim=-1)[word])


@torch.no_grad()
def test_attention_is_the_mean_over_blocks_and_heads(model, batch):
    heat = attribute(model, batch, "attention")
    maps = decoder_attention(model(batch, capture=True))
    for sample in range(3):
        patches, position = places(batch, sample)
        slow = [sum(float(m[sample, h, position, p]) for m in maps for h in range(2)) / 4 for p in patches]
        assert_same(heat[sample].flatten(), torch.tensor(slow))


@torch.no_grad()
def test_rollout_follows_attention_through_all_blocks(model, batch):
    """Position by position: what reaches a block's output is half its own, half what it attends to."""
    heat = attribute(model, batch, "rollout")
    maps = decoder_attention(model(batch, capture=True))
    for sample in range(3):
        patches, position = places(batch, sample)
        reached = {position: 1.0}  # from the answer backwards, last block first
        for weights in reversed(maps):
            mean, before = weights[sample].mean(dim=0), {}
            for place, amount in reached.items():
                before[place] = before.get(place, 0.0) + amount / 2
                for other in range(place + 1):
                    before[other] = before.get(other, 0.0) + amount * float(mean[place, other]) / 2
            reached = before
        assert_same(heat[sample].flatten(), torch.tensor([reached[p] for p in patches]))


def test_gradient_is_what_a_nudge_of_each_weight_would_change(model, batch, monkeypatch):
    """By finite differences, in float64: attention times how much a little more of it helps, where it helps."""
    import minivlm.attention as attention

    model, sample = model.double(), 1
    batch = replace(batch, images=batch.images.double())
    heat = attribute(model, batch, "gradient")[sample].flatten()
    maps = decoder_attention(model(batch, capture=True))
    patches, last = places(batch, sample)
    real, nudged = attention.attend, {}

    def attend(q, k, v, mask=None, is_causal=False, explicit=False, bias=None):
        out, weights = real(q, k, v, mask, is_causal, True, bias)
        if q.shape[2] == maps[0].shape[-1]:  # a block of the decoder, not of the encoder
            block = nudged["seen"] % len(maps)
            nudged["seen"] += 1
            if block == nudged["block"]:
                weights = weights.clone()
                weights[sample, nudged["head"], nudged["query"], nudged["key"]] += nudged["by"]
                out = weights @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        return out, weights

    monkeypatch.setattr(attention, "attend", attend)
    for number, key in enumerate(patches[:2]):
        helped = 0.0
        for block in range(len(maps)):
            for head in range(2):
                for query in range(key, last + 1):
                    site = dict(block=block, head=head, query=query, key=key)
                    up, down = (nudged_score(model, batch, sample, nudged, by=by, **site) for by in (1e-3, -1e-3))
                    helped += max(0.0, (up - down) / 2e-3 * float(maps[block][sample, head, query, key]))
        assert float(heat[number]) == pytest.approx(helped, rel=1e-3, abs=1e-9)


@torch.no_grad()
def nudged_score(model, batch, sample, nudged, **site) -> float:
    nudged.update(seen=0, **site)
    return float(log_probability(model, batch, sample))


@torch.no_grad()
def test_occlusion_is_the_answer_lost_when_a_patch_is_painted_over(model, batch):
    heat = attribute(model, batch, "occlusion")
    for sample in range(3):
        whole = log_probability(model, batch, sample)
        for row in range(2):
            for col in range(2):
                images = batch.images.clone()
                for channel in range(3):
                    mean = batch.images[sample, 0, channel].mean()
                    images[sample, 0, channel, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] = mean
                lost = whole - log_probability(model, replace(batch, images=images), sample)
                assert float(heat[sample, row, col]) == pytest.approx(max(0.0, float(lost)), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_company_and_padding_change_nothing(model, batch, method):
    together = attribute(model, batch, method)
    assert together.shape == (3, 2, 2) and (together >= 0).all()
    for sample in range(3):
        alone = Batch.pack(T, DIALOGS[sample : sample + 1], images=IMAGES[sample : sample + 1])
        assert_same(together[sample : sample + 1], attribute(model, alone, method))


def test_only_the_first_answer_word_is_explained(model):
    """A second word, or a second question, is of no account."""
    short = Batch.pack(T, [[("circle", "red")]], images=IMAGES[:1])
    long = Batch.pack(T, [[("circle", "red square"), ("star", "blue")]], images=IMAGES[:1])
    assert_same(attribute(model, short, "gradient"), attribute(model, long, "gradient"))
    rows, _, _ = answer_positions(model(long).layout, long.labels)
    assert len(rows) == 5


# --- the score ------------------------------------------------------------------------------------------------------


def test_pointing_is_scored_against_the_pixels_of_the_object():
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[0, 0, 0] = True  # one pixel of patch (0, 0)
    mask[1, 2:6, 4:8] = True  # half of patch (0, 1), half of patch (1, 1)
    heat = torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[0.0, 2.0], [1.0, 1.0]]])
    found = pointing_game(heat, mask)
    assert (found.hits.right, found.hits.total) == (1, 2)  # the second picture's peak touches, the first one's does not
    assert found.hits.chance == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert found.mass == pytest.approx((1 / 4 * 1 / 16 + (2 * 0.5 + 1 * 0.5) / 4) / 2)
    assert found.area == pytest.approx((1 / 64 + 16 / 64) / 2)


def test_no_heat_has_no_mass():
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    assert pointing_game(torch.zeros(1, 2, 2), mask).mass == 0
    assert pointing_game(torch.ones(1, 2, 2), mask).mass == pytest.approx(1)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_explained_is_refused(model, batch):
    with pytest.raises(ValueError, match="attention, rollout"):
        attribute(model, batch, "saliency")
    with pytest.raises(ValueError, match="needs images"):
        attribute(model, replace(batch, images=None, features=torch.rand(3, 1, 4, 16)), "attention")
    with pytest.raises(ValueError, match="labels"):
        attribute(model, replace(batch, labels=None), "attention")
    unlabelled = batch.labels.clone()
    unlabelled[1] = -100
    with pytest.raises(ValueError, match="nothing to explain"):
        attribute(model, replace(batch, labels=unlabelled), "attention")
    with pytest.raises(ValueError, match="capture=True"):
        decoder_attention(model(batch))


# --- any word, any block, any head ----------------------------------------------------------------------------------


@torch.no_grad()
def test_heat_of_a_word_is_its_row_of_the_maps(model, batch):
    output = model(batch, capture=True)
    maps = decoder_attention(output)
    patches, place = places(batch, 1)
    one = word_heat(output, batch, place, sample=1, layer=1, head=0)
    assert one.flatten().tolist() == [float(maps[1][1, 0, place, p]) for p in patches]
    block = word_heat(output, batch, place, sample=1, layer=0)
    assert_same(block.flatten(), torch.tensor([float(maps[0][1, :, place, p].mean()) for p in patches]))
    every = word_heat(output, batch, place, sample=1)
    assert_same(every, attribute(model, batch, "attention")[1])


@torch.no_grad()
def test_rollout_stops_at_the_block_and_follows_one_head(model, batch):
    output = model(batch, capture=True)
    first = decoder_attention(output)[0]
    patches, place = places(batch, 1)
    found = word_heat(output, batch, place, "rollout", sample=1, layer=0, head=1)
    assert_same(found.flatten(), torch.tensor([float(first[1, 1, place, p]) / 2 for p in patches]))
    assert_same(word_heat(output, batch, place, "rollout", sample=1), attribute(model, batch, "rollout")[1])


def test_gradient_of_a_word_splits_into_blocks_and_heads(model, batch):
    output = model(batch, capture=True)
    _, before = places(batch, 1)
    whole = word_heat(output, batch, before + 1, "gradient", sample=1)
    assert whole.max() > 0
    assert_same(whole, attribute(model, batch, "gradient")[1])
    parts = [word_heat(output, batch, before + 1, "gradient", 1, layer, head) for layer in (0, 1) for head in (0, 1)]
    assert_same(sum(parts), whole)
    assert not torch.equal(word_heat(output, batch, before, "gradient", sample=1), whole)


def test_a_word_that_cannot_be_explained_is_refused(model, batch):
    output = model(batch, capture=True)
    with pytest.raises(ValueError, match="attention, rollout, gradient"):
        word_heat(output, batch, 6, "occlusion")
    with pytest.raises(ValueError, match="no word at place 2 of sample 0"):
        word_heat(output, batch, 2)
    with pytest.raises(ValueError, match="no word at place 99"):
        word_heat(output, batch, 99)
    with pytest.raises(ValueError, match="nothing comes before"):
        word_heat(output, batch, 0, "gradient")
    with torch.no_grad():
        silent = model(batch, capture=True)
    with pytest.raises(ValueError, match="without gradients"):
        word_heat(silent, batch, 6, "gradient")
    blind = batch.blind(model.image_token_id)
    with pytest.raises(ValueError, match="one token for each patch"):
        word_heat(model(blind, capture=True), blind, 3)
