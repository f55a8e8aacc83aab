"""Decoders besides Llama: the same scores as the published classes, from words alone, padded, and from a cache."""

from __future__ import annotations

import pytest
import references
import torch
from references import assert_same, randomise, words
from torch import Tensor, nn

from minivlm import build, from_transformers, load, save
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.magneto import MagnetoConfig
from minivlm.language.opt import OPTConfig
from minivlm.language.phi import PhiConfig
from minivlm.storage import bundled

REFERENCES = dict(opt=references.opt, phi=references.phi, magneto=references.kosmos2_text)
CONFIGS = {
    "opt": OPTConfig(64, width=36, depth=3, heads=3, mlp_width=50, context=20),
    "phi": PhiConfig(64, width=36, depth=3, heads=3, mlp_width=50),
    "magneto": MagnetoConfig(64, width=36, depth=3, heads=3, mlp_width=50),
}
PAD_ID = 1  # OPT and Kosmos-2 know their padding by this id


@pytest.fixture(params=CONFIGS)
def decoder(request) -> Decoder:
    return randomise(CONFIGS[request.param].build())


def padded_words(where: str, seed: int) -> tuple[Tensor, Tensor]:
    """Two texts of 11 ids, the second padded, and where words are."""
    ids, valid = words(2, 11, seed=seed), torch.ones(2, 11, dtype=torch.bool)
    if where != "nowhere":
        valid[1, slice(0, 4) if where == "left" else slice(7, 11)] = False
    return ids.where(valid, PAD_ID), valid


def causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


# --- the same numbers -----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 0.02])
@pytest.mark.parametrize("padded", ["nowhere", "left", "right"])
@pytest.mark.parametrize("name", REFERENCES)
def test_scores_are_those_of_the_published_class(name, padded, scale, seed):
    theirs = REFERENCES[name](seed, scale)
    ours = from_transformers(theirs)
    ids, valid = padded_words(padded, seed)
    positions = (valid.cumsum(dim=1) - 1).clamp(min=0)
    told = dict(position_ids=positions) if name == "phi" else {}  # the others work places out, from 2 on
    wanted = theirs(input_ids=ids, attention_mask=valid.long(), **told).logits
    mask = None if padded == "nowhere" else valid[:, None, None, :] & causal(11)
    got = ours.logits(ours(ours.embedding(ids), positions, mask))
    assert_same(got[valid], wanted[valid])
    if padded == "nowhere":
        assert torch.equal(ours.logits(ours(ours.embedding(ids))), got)  # places are 0, 1, 2, ... unless told


def test_tying_is_that_of_the_published_class():
    for name, make in REFERENCES.items():
        ours = from_transformers(make())
        assert (ours.head.weight is ours.embedding.weight) == (name != "phi")
        assert (ours.head.bias is not None) == (name == "phi")


# --- what holds for every decoder -----------------------------------------------------------------------------------


@torch.no_grad()
def test_cached_equals_uncached(decoder):
    x, mask = torch.randn(2, 13, 36), causal(13).expand(2, 1, 13, 13)
    positions = torch.arange(13).expand(2, -1)
    wanted, cache = decoder(x), decoder.make_cache(13)
    for start, end in ((0, 6), (6, 9), (9, 10), (10, 13)):
        got = decoder(x[:, start:end], positions[:, start:end], mask[:, :, start:end, :end], cache)
        assert_same(got, wanted[:, start:end])
    with pytest.raises(ValueError, match="pass a mask"):
        decoder(x, cache=decoder.make_cache(13))


@torch.no_grad()
def test_a_place_counts_and_what_comes_later_does_not(decoder):
    x = torch.randn(1, 9, 36)
    later = x.clone()
    later[:, 6:] += 1
    assert torch.equal(decoder(x)[:, :6], decoder(later)[:, :6])
    apart = torch.arange(9)[None] * 2
    assert ((decoder(x) - decoder(x, apart)).abs().amax(dim=-1)[0, 1:] > 1e-3).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_are_those_of_the_module(name, tmp_path):
    config = CONFIGS[name]
    assert isinstance(config, DecoderConfig) and (config.kv_heads, config.dim_per_head) == (3, 12)
    model = randomise(config.build())
    assert len(model.blocks) == config.depth and model.blocks[0].attention.k.out_features == 36
    save(model, tmp_path / "decoder.safetensors")
    loaded = load(tmp_path / "decoder.safetensors", "cpu")
    assert loaded.config == config
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", CONFIGS)
def test_an_untrained_decoder_reads_mostly_words(name):
    """What untrained blocks add to the words is not much louder than the words, and every weight starts to learn."""
    torch.manual_seed(0)
    model = CONFIGS[name].build()
    x = model.embedding(words(4, 20))
    entered = model.enter(x, torch.arange(20).expand(4, -1))
    left = entered
    for block in model.blocks:
        left = block(left, is_causal=True)
    assert (left - entered).norm(dim=-1).mean() < 2 * entered.norm(dim=-1).mean()
    model.logits(model(x)).logsumexp(dim=-1).sum().backward()
    silent = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert all(key.endswith(".k.bias") for key in silent)


def test_the_bundled_decoder_still_fits():
    assert bundled("decoder", "cpu").config == build("llava15", device="cpu").config.language


# --- what is refused ------------------------------------------------------------------------------------------------


def test_more_places_than_were_learned_are_refused():
    model = CONFIGS["opt"].build()
    model(torch.zeros(1, 20, 36))
    for too_long in (lambda: model(torch.zeros(1, 21, 36)), lambda: model.make_cache(21)):
        with pytest.raises(ValueError, match="21 positions, but this OPT has learned only 20"):
            too_long()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OPTConfig(64, 36, 3, 5, 50), "width 36 does not split into 5 heads"),
        (lambda: OPTConfig(64, 36, 3, 3, 50, context=0), "context must be at least 1, got 0"),
        (lambda: PhiConfig(64, 36, 3, 3, 50, rotary_share=0.25), "12 channels, and rotary_share 0.25 makes 3"),
        (lambda: PhiConfig(64, 36, 3, 3, 50, rotary_share=1.2), "12 channels, and rotary_share 1.2 makes 14"),
        (lambda: PhiConfig(64, 36, 3, 3, 50, rotary_share=0.0), "12 channels, and rotary_share 0.0 makes 0"),
        (lambda: MagnetoConfig(64, 35, 3, 5, 50), "even and 4 or more, got 35"),
        (lambda: MagnetoConfig(64, 2, 3, 1, 50), "even and 4 or more, got 2"),
        (lambda: MagnetoConfig(0, 36, 3, 3, 50), "vocab_size must be at least 1, got 0"),
    ],
)
def test_sizes_that_make_no_decoder_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


ROPE = dict(rope_type="linear", factor=2.0, rope_theta=1e4, partial_rotary_factor=0.5)
VARIANTS = [
    ("opt", dict(word_embed_proj_dim=8), "words of width 8"),
    ("opt", dict(do_layer_norm_before=False), "norms behind"),
    ("opt", dict(_remove_final_layer_norm=True), "no final norm"),
    ("opt", dict(enable_bias=False), "no biases"),
    ("opt", dict(layer_norm_elementwise_affine=False), "norms without weights"),
    ("opt", dict(tie_word_embeddings=False), "an untied head"),
    ("opt", dict(activation_function="gelu"), "activation 'gelu'"),
    ("phi", dict(rope_parameters=ROPE), "rope type 'linear'"),
    ("phi", dict(num_key_value_heads=1), "grouped heads"),
    ("phi", dict(qk_layernorm=True), "norms of queries and keys"),
    ("phi", dict(tie_word_embeddings=True), "a tied head"),
    ("phi", dict(hidden_act="gelu"), "activation 'gelu'"),
    ("magneto", dict(scale_embedding=False), "words that are not scaled"),
    ("magneto", dict(pad_token_id=0), "padding id 0"),
    ("magneto", dict(add_cross_attention=True), "cross-attention"),
    ("magneto", dict(tie_word_embeddings=False), "an untied head"),
    ("magneto", dict(activation_function="relu"), "activation 'relu'"),
]


@pytest.mark.parametrize(("name", "changes", "message"), VARIANTS, ids=[f"{n} {m}" for n, _, m in VARIANTS])
def test_other_variants_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        from_transformers(REFERENCES[name](**changes))


@pytest.mark.parametrize("name", REFERENCES)
def test_a_key_too_many_or_too_few_is_refused(name):
    model = REFERENCES[name]()
    model.register_parameter("surprise", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match="surprise"):
        from_transformers(model)
    model = REFERENCES[name]()
    norm = [module for module in model.modules() if isinstance(module, nn.LayerNorm)][-1]
    del norm.weight
    with pytest.raises(ValueError, match="missing .*norm.weight"):
        from_transformers(model)
