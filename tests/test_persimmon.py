"""Persimmon: the same scores as the published class, from words alone, padded, and from a cache."""

from __future__ import annotations

import fuyus
import pytest
import torch
import transformers
from references import assert_same, randomise, words
from torch import Tensor, nn

from minivlm.language.decoder import DecoderConfig
from minivlm.language.persimmon import Persimmon, PersimmonConfig
from minivlm.pretrained.decoders import persimmon
from minivlm.pretrained.keys import load_exactly

CONFIG = PersimmonConfig(64, width=36, depth=3, heads=3, mlp_width=50)


def converted(theirs: nn.Module) -> Persimmon:
    config, state = persimmon(theirs)
    ours = config.build()
    load_exactly(ours, state)
    return ours.eval()


def padded_words(where: str, seed: int) -> tuple[Tensor, Tensor]:
    """Two texts of 11 ids, the second padded, and where words are."""
    ids, valid = words(2, 11, seed=seed), torch.ones(2, 11, dtype=torch.bool)
    if where != "nowhere":
        valid[1, slice(0, 4) if where == "left" else slice(7, 11)] = False
    return ids, valid


def seen(valid: Tensor) -> Tensor:
    """What may be attended to, (2, 1, L, L): no padding, and nothing that comes later."""
    length = valid.shape[1]
    return valid[:, None, None, :] & torch.ones(length, length, dtype=torch.bool).tril()


# --- the same numbers -----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("padded", ["nowhere", "left", "right"])
def test_scores_are_those_of_the_published_class(padded, scale, seed):
    theirs = fuyus.persimmon(seed, scale)
    ours = converted(theirs)
    ids, valid = padded_words(padded, seed)
    wanted = theirs(input_ids=ids, attention_mask=valid.long()).logits
    got = ours.logits(ours(ours.embedding(ids), mask=seen(valid)))
    assert_same(got[valid], wanted[valid])
    if padded == "nowhere":
        assert_same(ours.logits(ours(ours.embedding(ids))), wanted)


@torch.no_grad()
@pytest.mark.parametrize("padded", ["nowhere", "left"])
def test_scores_from_a_cache_are_those_of_the_published_class(padded, scale, seed):
    theirs = fuyus.persimmon(seed, scale)
    ours = converted(theirs)
    ids, valid = padded_words(padded, seed)
    positions = (valid.cumsum(dim=1) - 1).clamp(min=0)
    wanted = theirs(input_ids=ids, attention_mask=valid.long(), position_ids=positions).logits
    x, mask, cache = ours.embedding(ids), seen(valid), ours.make_cache(11)
    for start, end in ((0, 5), (5, 8), (8, 9), (9, 11)):
        now = slice(start, end)
        got = ours.logits(ours(x[:, now], positions[:, now], mask[:, :, now, :end], cache))
        assert_same(got[valid[:, now]], wanted[:, now][valid[:, now]])


def test_far_places_turn_as_slowly_as_published():
    """Over some ten words even a wrong base goes unnoticed in the slow channels; over hundreds none does."""
    theirs = fuyus.persimmon(1, rope_parameters=fuyus.rope(theta=25000.0))
    ours, ids = converted(theirs), words(1, 6)
    positions = torch.tensor([[0, 7, 300, 301, 700, 999]])
    mask = torch.ones(1, 6, dtype=torch.long)
    wanted = theirs(input_ids=ids, position_ids=positions, attention_mask=mask).logits
    assert ours.config.rope_theta == PersimmonConfig.rope_theta == 25000.0
    assert_same(ours.logits(ours(ours.embedding(ids), positions)), wanted)


def test_published_sizes():
    with torch.device("meta"):
        theirs = transformers.PersimmonForCausalLM(transformers.PersimmonConfig())  # its defaults are Fuyu's sizes
        ours = PersimmonConfig(262144, width=4096, depth=36, heads=64, mlp_width=16384).build()
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters())
    assert count / 1e9 == pytest.approx(9.40, abs=0.005)
    assert ours.head.bias is None and ours.head.weight is not ours.embedding.weight


# --- what holds for every decoder -----------------------------------------------------------------------------------


def test_it_is_a_decoder_like_the_others():
    assert isinstance(CONFIG, DecoderConfig) and (CONFIG.kv_heads, CONFIG.dim_per_head) == (3, 12)
    assert len(CONFIG.build().blocks) == CONFIG.depth


@torch.no_grad()
def test_a_place_counts_and_what_comes_later_does_not():
    ours, x = randomise(CONFIG.build()), torch.randn(1, 9, 36)
    later = x.clone()
    later[:, 6:] += 1
    assert torch.equal(ours(x)[:, :6], ours(later)[:, :6])
    apart = torch.arange(9)[None] * 2
    assert ((ours(x) - ours(x, apart)).abs().amax(dim=-1)[0, 1:] > 1e-3).all()


def test_an_untrained_one_reads_mostly_words_and_all_of_it_learns():
    torch.manual_seed(0)
    ours = CONFIG.build()
    entered = left = ours.embedding(words(4, 20))
    angles = ours.angles(torch.arange(20).expand(4, -1))
    for block in ours.blocks:
        left = block(left, is_causal=True, angles=angles)
    assert (left - entered).norm(dim=-1).mean() < 2 * entered.norm(dim=-1).mean()
    ours.logits(ours(entered)).logsumexp(dim=-1).sum().backward()
    assert [key for key, weight in ours.named_parameters() if weight.grad is None or not weight.grad.any()] == []


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(heads=5), "width 36 does not split into 5 heads"),
        (dict(heads=2), "a multiple of 4, got 36 / 2 = 18"),
        (dict(heads=36), "a multiple of 4, got 36 / 36 = 1"),
        (dict(heads=3, depth=0), "depth must be at least 1, got 0"),
    ],
)
def test_sizes_that_make_no_persimmon_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        PersimmonConfig(**{**dict(vocab_size=64, width=36, depth=3, mlp_width=50), **sizes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(rope_parameters=fuyus.rope(kind="linear")), "rope type 'linear'"),
        (dict(rope_parameters=fuyus.rope(share=0.25), hidden_size=48), "0.25 of a head turned, not its half"),
        (dict(qk_layernorm=False), "no norms of queries and keys"),
        (dict(tie_word_embeddings=True), "a tied head"),
        (dict(hidden_act="relu"), "activation 'relu'"),
    ],
)
def test_other_variants_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        persimmon(fuyus.persimmon(**changes))


def test_another_decoder_is_refused():
    theirs = fuyus.persimmon()
    theirs.config = transformers.PhiConfig()
    with pytest.raises(ValueError, match="model type 'phi'"):
        persimmon(theirs)


def test_a_key_too_many_or_too_few_is_refused():
    theirs = fuyus.persimmon()
    theirs.register_parameter("surprise", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match="surprise"):
        converted(theirs)
    theirs = fuyus.persimmon()
    del theirs.model.layers[0].self_attn.k_layernorm.bias
    with pytest.raises(ValueError, match=r"missing blocks\.0\.attention\.k_norm\.bias"):
        converted(theirs)
