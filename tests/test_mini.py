"""The controlled setting: what stands beside the designs in comparisons differs from them in what it is for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from minivlm import VLM, Batch, mini
from minivlm.gates import openings
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.layout import Kind
from minivlm.model import VLMConfig
from minivlm.vision.hybrid import HybridConfig
from minivlm.vision.quarters import QuartersConfig
from minivlm.vision.sam import SAMConfig
from minivlm.vision.variable import variable_vit
from minivlm.vision.vit import siglip_vit


def made(config: VLMConfig) -> VLM:
    with torch.device("meta"):
        return config.build()


def learning(config: VLMConfig) -> int:
    """How many weights learn beside a frozen decoder."""
    model = made(config)
    model.train_only(*(part for part in model.parts if part in ("connector", "fusion")))
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


FUSIONS = {"flamingo": mini.flamingo, "cogvlm": mini.cogvlm}


@pytest.mark.parametrize("name", [name for name in mini.VARIANTS if name.split("_")[0] in FUSIONS])
def test_a_variant_shares_encoder_decoder_and_connector_with_its_design(name):
    config, design = mini.VARIANTS[name](), FUSIONS[name.split("_")[0]]()
    assert (config.vision, config.language, config.layer) == (design.vision, design.language, design.layer)
    assert type(config.connector) is type(design.connector) and config.num_tokens == design.num_tokens
    assert config != design and made(config)


def test_the_readers_have_the_sizes_of_the_encoder_that_all_others_have():
    sizes = dict(image_size=(64, 64), patch_size=8, width=128, depth=5, heads=4, mlp_width=512)
    sizes |= dict(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert mini.reader() == siglip_vit(**sizes, class_token=False, pool="mean")
    assert mini.reader_any() == variable_vit(**sizes | dict(image_size=(128, 128)))
    assert mini.reader_any().grid == (16, 16)
    high = SAMConfig(**sizes | dict(image_size=(128, 128)), window=8, global_blocks=(2, 4), out_width=32)
    assert mini.reader_two() == HybridConfig(high, mini.reader())


def test_quarters_are_five_times_the_tokens_and_nothing_more_that_learns():
    whole, split = mini.idefics2(), mini.VARIANTS["idefics2_split"]()
    assert (whole.num_tokens, split.num_tokens) == (mini.TOKENS, 5 * mini.TOKENS)
    assert split == replace(whole, vision=QuartersConfig(whole.vision))
    assert learning(split) == learning(whole)


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("tiles_untagged", [""] * 5),
        ("tiles_1d", ["image", "1", "2", "3", "4"]),
        ("tiles_2d", ["image", "1 1", "1 2", "2 1", "2 2"]),
        ("tiles_learned", None),
    ],
)
@torch.no_grad()
def test_tags_are_all_that_tells_the_tiles_apart(name, tags):
    """The words before each tile are the decoder's own, where they are words; what follows is the same in all."""
    torch.manual_seed(0)
    model, plain = mini.VARIANTS[name]().build(), mini.VARIANTS["tiles_untagged"]().build()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if key != "separators.learned"})
    images = torch.rand(1, 1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    batch = Batch(images, torch.tensor([[model.image_token_id]]))
    tokens = plain.connect(plain.features(images), batch)[0, 0].split(64)
    assert len(tokens) == 5 and len(plain.separators.config.words) == 0
    if tags is None:
        said = model.separators.learned[:, None]  # (5, 1, D)
    else:
        ids = [torch.tensor(mini_tokenizer().encode(tag), dtype=torch.long) for tag in tags]
        said = [model.language.embedding(words) for words in ids]
    wanted = [part for tag, view in zip(said, tokens, strict=True) for part in (tag, view)]
    got = model.connect(model.features(images), batch)[0, 0]
    assert torch.equal(got, torch.cat(wanted)) and len(got) == model.config.num_tokens
    layout = model(batch).layout
    assert layout.view[0].tolist() == [n for n in range(5) for _ in range(len(wanted[2 * n]) + 64)]
    assert (layout.kind == Kind.TAG).sum() == len(got) - 5 * 64


def test_the_deep_resampler_learns_with_as_many_weights_as_flamingo():
    deep, flamingo = (learning(config) for config in (mini.VARIANTS["flamingo_resampler_deep"](), mini.flamingo()))
    assert deep == pytest.approx(flamingo, rel=0.02)
    assert "fusion" not in made(mini.VARIANTS["flamingo_resampler_deep"]()).parts


def test_cogvlm_is_taken_apart_expert_by_expert():
    variants = (mini.VARIANTS["cogvlm_interleaved"], mini.VARIANTS["cogvlm_mlp"])
    without, some, whole = (made(config()) for config in (*variants, mini.cogvlm))
    assert "fusion" not in without.parts
    assert {tuple(expert) for expert in some.fusion.experts} == {("mlp",)}
    assert {tuple(expert) for expert in whole.fusion.experts} == {("q", "k", "v", "out", "mlp")}


def test_open_gates_let_looks_through_from_the_start_and_are_all_that_differs():
    torch.manual_seed(0)
    shut = mini.flamingo().build()
    torch.manual_seed(0)
    opened = mini.VARIANTS["flamingo_open"]().build()
    others = dict(shut.named_parameters())
    changed = {name for name, value in opened.named_parameters() if not torch.equal(value, others[name])}
    assert changed == {"fusion.layers.0.attention_gate", "fusion.layers.1.attention_gate"}
    assert openings(opened) == pytest.approx({"layer 1, look": 0.76159, "layer 1, MLP": 0,
                                              "layer 2, look": 0.76159, "layer 2, MLP": 0}, abs=1e-5)  # fmt: skip
