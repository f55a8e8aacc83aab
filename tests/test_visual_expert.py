"""The visual expert and its connector, against a Llama of transformers whose linear maps are pairs, and timm's EVA."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import references
import torch
import torch.nn.functional as F
from references import IMAGE_ID, assert_same, features, pictures, randomise, vision_sizes, words
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minivlm import VLM, Batch, build
from minivlm.connectors.glu_projection import GLUProjection
from minivlm.connectors.projection import LinearProjection
from minivlm.fusion.visual_expert import VisualExpertConfig
from minivlm.layout import Kind, Layout, VisualLayout
from minivlm.model import VLMConfig
from minivlm.pretrained.decoders import LLAMA, llama_config
from minivlm.pretrained.keys import Rules, State, load_exactly, rename
from minivlm.storage import warm_start
from minivlm.vision.vit import ViTConfig, eva2_vit

pytestmark = pytest.mark.usefixtures("no_graph")

MAPS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "out"}
MLP = ("gate_proj", "up_proj", "down_proj")
CONFIGS = {
    "CogVLM": VisualExpertConfig(),
    "CogVLM2": VisualExpertConfig(qkv_bias=True),
    "MLPs only": VisualExpertConfig(routes=("mlp",)),
    "every second block": VisualExpertConfig(every=2),
}
TRIED = [("CogVLM", 0), ("CogVLM", 1), ("CogVLM", 2), ("CogVLM2", 1), ("MLPs only", 1), ("every second block", 0)]


# --- the reference ----------------------------------------------------------------------------------------------------


class Pair(nn.Module):
    """A linear map for words and one for places of pictures, both computed everywhere."""

    def __init__(self, words: nn.Linear, told: dict[str, Tensor], bias: bool):
        super().__init__()
        self.words, self.told = words, told
        self.sights = nn.Linear(words.in_features, words.out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.told["route"][..., None], self.sights(x), self.words(x))


class Adapter(nn.Module):
    def __init__(self, width: int, out_width: int, hidden: int):
        super().__init__()
        self.linear_proj, self.norm1 = nn.Linear(width, out_width, bias=False), nn.LayerNorm(out_width)
        self.gate_proj, self.dense_h_to_4h = (nn.Linear(out_width, hidden, bias=False) for _ in range(2))
        self.dense_4h_to_h = nn.Linear(hidden, out_width, bias=False)
        self.boi, self.eoi = (nn.Parameter(torch.zeros(1, 1, out_width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.GELU()(self.norm1(self.linear_proj(x)))
        x = self.dense_4h_to_h(F.silu(self.gate_proj(x)) * self.dense_h_to_4h(x))
        boi, eoi = self.boi.expand(len(x), -1, -1), self.eoi.expand(len(x), -1, -1)
        return torch.cat([boi, x, eoi], dim=1)


def tower(seed: int, scale: float) -> tuple[ViTConfig, Eva]:
    sizes = vision_sizes(seed)
    width, heads, patch = sizes["hidden_size"], sizes["num_attention_heads"], sizes["patch_size"]
    image_size, depth, mlp_width = (2 * patch, (3 + seed) * patch), sizes["num_hidden_layers"], 4 * width - 2 * seed
    config = eva2_vit(
        image_size=image_size, patch_size=patch, width=width, depth=depth, heads=heads, mlp_width=mlp_width
    )
    theirs = Eva(
        img_size=image_size, patch_size=patch, embed_dim=width, depth=depth, num_heads=heads, qkv_fused=False,
        mlp_ratio=mlp_width / width, use_post_norm=True, num_classes=0, global_pool="",
    )  # fmt: skip
    theirs.norm = nn.Identity()
    return config, randomise(theirs, seed, scale)


class Whole(nn.Module):
    """CogVLM, one sample at a time and place by place."""

    def __init__(self, seed: int, scale: float, config: VisualExpertConfig):
        super().__init__()
        self.tower_config, self.tower = tower(seed, scale)
        llama = references.llama(seed, num_hidden_layers=3)
        self.width, self.hidden = llama.config.hidden_size, 21 + seed
        self.adapter = Adapter(self.tower_config.width, self.width, self.hidden)
        self.told: dict[str, Tensor] = {}
        for layer in llama.model.layers[:: config.every]:
            for owner, names in ((layer.self_attn, MAPS), (layer.mlp, MLP)):
                for name in names:
                    if MAPS.get(name, "mlp") in config.routes:
                        bias = config.qkv_bias and name in ("q_proj", "k_proj", "v_proj")
                        setattr(owner, name, Pair(getattr(owner, name), self.told, bias))
        self.adapter, self.llama = randomise(self.adapter, seed), randomise(llama, seed, scale)
        for weight in (self.adapter.dense_4h_to_h.weight, self.adapter.boi, self.adapter.eoi):
            weight *= scale

    def forward(self, ids: list[int], images: Tensor) -> Tensor:
        """Logits (L, V) of one sample."""
        visual = iter(self.adapter(self.tower.forward_features(images)[:, 1:]) if len(images) else ())
        vectors, types = [], []
        for word in ids:
            here = next(visual) if word == IMAGE_ID else self.llama.model.embed_tokens(torch.tensor([word]))
            vectors, types = [*vectors, here], [*types, *[int(word == IMAGE_ID)] * len(here)]
        self.told["route"] = torch.tensor([[a == b == 1 for a, b in zip(types, [*types[1:], 0], strict=True)]])
        ones, places = torch.ones(1, len(types), dtype=torch.long), torch.tensor([slow_places(types)])
        return self.llama(inputs_embeds=torch.cat(vectors)[None], position_ids=places, attention_mask=ones).logits[0]


def slow_places(types: list[int]) -> list[int]:
    """Every word, and the first and the last token of a picture, is told a place of its own; what lies between, one."""
    places, place, patch_before = [], -1, False
    for i, kind in enumerate(types):
        inside = [j for j in (i - 1, i, i + 1) if 0 <= j < len(types) and types[j] == 1]
        patch = kind == 1 and len(inside) == 3
        if not (patch and patch_before):
            place += 1
        places.append(place)
        patch_before = patch
    return places


ADAPTER: Rules = [
    (r"linear_proj\.weight", "enter.weight"),
    (r"norm1\.(.*)", r"norm.\1"),
    (r"gate_proj\.weight", "mlp.gate.weight"),
    (r"dense_h_to_4h\.weight", "mlp.up.weight"),
    (r"dense_4h_to_h\.weight", "mlp.down.weight"),
    ("boi", "begin"),
    ("eoi", "end"),
]
TOWER: Rules = [
    ("cls_token", "class_embedding"),
    ("pos_embed", "position_embedding"),
    (r"patch_embed\.proj\.(.*)", r"patch_embedding.\1"),
    (r"blocks\.(\d+)\.norm1\.(.*)", r"blocks.\1.attention_norm.\2"),
    (r"blocks\.(\d+)\.norm2\.(.*)", r"blocks.\1.mlp_norm.\2"),
    (r"blocks\.(\d+)\.attn\.([qkv])_proj\.(.*)", r"blocks.\1.attention.\2.\3"),
    (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"blocks.\1.attention.out.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(.*)", r"blocks.\1.mlp.up.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(.*)", r"blocks.\1.mlp.down.\2"),
]


def tower_state(theirs: Eva) -> State:
    state = rename(theirs.state_dict(), TOWER)
    state |= {
        "class_embedding": state["class_embedding"].flatten(),
        "position_embedding": state["position_embedding"][0],
    }
    # the same number added to all scores of a query: their keys have no bias, which makes no difference to CogVLM's
    keys = {f"blocks.{n}.attention.k.bias": torch.zeros(theirs.embed_dim) for n in range(len(theirs.blocks))}
    return state | keys


def adapter_state(theirs: Adapter) -> State:
    state = rename(theirs.state_dict(), ADAPTER)
    return state | {name: state[name].flatten() for name in ("begin", "end")}


def expert_state(state: State, every: int) -> State:
    """Of a routed Llama, by our names."""
    ours = {}
    for key, value in state.items():
        layer, name, end = re.fullmatch(r"model\.layers\.(\d+)\.\w+\.(\w+)_proj\.sights\.(\w+)", key).groups()
        name = {"o": "out", "gate": "mlp.gate", "up": "mlp.up", "down": "mlp.down"}.get(name, name)
        ours[f"experts.{int(layer) // every}.{name}.{end}"] = value
    return ours


def converted(theirs: Whole, config: VisualExpertConfig) -> VLM:
    language = llama_config(theirs.llama.config)
    ours = VLMConfig(
        theirs.tower_config, GLUProjection(theirs.hidden), language, IMAGE_ID, eos_id=2, layer=-1, fusion=config
    ).build()
    state = theirs.llama.state_dict()
    experts = {key: value for key, value in state.items() if ".sights." in key}
    plain = {key.replace(".words.", "."): value for key, value in state.items() if key not in experts}
    load_exactly(ours.vision, tower_state(theirs.tower))
    load_exactly(ours.connector, adapter_state(theirs.adapter))
    load_exactly(ours.language, rename(plain, LLAMA))
    load_exactly(ours.fusion, expert_state(experts, config.every))
    return ours.eval()


# --- samples ----------------------------------------------------------------------------------------------------------

PLACES = ((0,), (3,), (7,), (1, 5), (0, 7), ())  # of pictures among 8 ids: first, middle, last, two apart, none


def samples(image_size: tuple[int, int], lengths: tuple[int, ...] = (8, 8, 8, 8, 8, 6)) -> Batch:
    """One sample a layout; the last, without a picture, is shorter and padded on the right."""
    ids, mask = words(len(PLACES), 8), torch.ones(len(PLACES), 8, dtype=torch.bool)
    images, there = pictures(len(PLACES), 2, 3, *image_size), torch.zeros(len(PLACES), 2, dtype=torch.bool)
    for sample, (places, length) in enumerate(zip(PLACES, lengths, strict=True)):
        ids[sample, list(places)] = IMAGE_ID
        mask[sample, length:] = False
        there[sample, : len(places)] = True
    return Batch(images, ids, text_mask=mask, image_mask=there)


def small(config: VisualExpertConfig = CONFIGS["CogVLM"], seed: int = 0) -> VLM:
    """Ours, with random weights."""
    return converted(Whole(seed, 1.0, config), config)


# --- parity -----------------------------------------------------------------------------------------------------------


def test_tower_equals_timm(seed, scale):
    config, theirs = tower(seed, scale)
    ours = config.build()
    load_exactly(ours, tower_state(theirs))
    x = pictures(2, 3, *config.image_size)
    assert_same(ours.hidden(x), theirs.forward_features(x))
    assert_same(ours(x)[0], theirs.forward_features(x))  # there is no final norm


def test_adapter(seed, scale):
    theirs = randomise(Adapter(10 + seed, 14, 9 + seed), seed)
    ours = GLUProjection(9 + seed).build(10 + seed, 14, (2, 3))
    load_exactly(ours, adapter_state(theirs))
    x = features(2, 6, 10 + seed, scale=scale)
    assert_same(ours(x), theirs(x))
    layout = ours.layout((2, 3))
    assert layout.kind.tolist() == [Kind.TAG, *[Kind.PATCH] * 6, Kind.TAG]
    assert layout.row.tolist() == [-1, 0, 0, 0, 1, 1, 1, -1] and len(layout) == ours.num_tokens((2, 3))


@pytest.mark.parametrize(("name", "seed"), TRIED)
def test_all_of_it_equals_a_llama_of_pairs(name, seed, scale):
    config = CONFIGS[name]
    theirs = Whole(seed, scale, config)
    ours, batch = converted(theirs, config), samples(theirs.tower_config.image_size)
    output = ours(batch)
    for sample, places in enumerate(PLACES):
        ids = batch.input_ids[sample][batch.text_mask[sample]].tolist()
        wanted = theirs(ids, batch.images[sample, : len(places)])
        assert_same(output.logits[sample][output.layout.valid[sample]], wanted)


def test_the_worked_example():
    """A word, a picture of four patches between its tags, three words."""
    ours = small()
    ours.connector = GLUProjection(9).build(ours.config.vision.width, ours.config.language.width, (2, 2))
    vision = replace(ours.config.vision, image_size=(2 * ours.config.vision.patch_size,) * 2)
    ours.config = replace(ours.config, vision=vision)
    batch = Batch(None, torch.tensor([[5, IMAGE_ID, 6, 7, 8]]), features=features(1, 1, 4, vision.width, scale=1.0))
    output = ours(batch, capture=True)
    assert output.layout.position.tolist() == [[0, 1, 2, 2, 2, 2, 3, 4, 5, 6]]
    assert output.maps["fusion.route"].int().tolist() == [[0, 1, 1, 1, 1, 1, 0, 0, 0, 0]]


# --- identities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "seed"), TRIED[2:])
def test_experts_that_are_copies_change_nothing(name, seed):
    """Equal to transformers' Llama, told the same places: what `start_from` makes, and what the model is born with."""
    config = CONFIGS[name]
    ours, theirs = small(config, seed), references.llama(seed, num_hidden_layers=3)
    load_exactly(ours.language, rename(theirs.state_dict(), LLAMA))
    ours.fusion.start_from(ours.language)
    born = config.build(ours.language)
    assert born.state_dict().keys() == ours.fusion.state_dict().keys()
    for key, value in born.state_dict().items():
        assert torch.equal(value, ours.fusion.state_dict()[key])
    batch = samples(ours.config.vision.image_size)
    x, layout, _ = ours._sequence(batch)
    output = ours(batch)
    for sample, length in enumerate(output.layout.lengths.tolist()):
        said = theirs(
            inputs_embeds=x[sample : sample + 1, :length],
            position_ids=layout.position[sample : sample + 1, :length],
            attention_mask=torch.ones(1, length, dtype=torch.long),
        )
        assert_same(output.logits[sample, :length], said.logits[0])


def test_a_warm_start_begins_with_copies():
    ours = warm_start(build("cogvlm", device="cpu"))
    for expert, block in zip(ours.fusion.experts, ours.language.blocks, strict=True):
        assert torch.equal(expert["q"].weight, block.attention.q.weight)
        assert torch.equal(expert["mlp"].down.weight, block.mlp.down.weight)


def test_copies_do_not_share_memory_with_the_decoder():
    ours = small()
    ours.fusion.start_from(ours.language)
    before = ours.language.blocks[0].mlp.up.weight.clone()
    ours.fusion.experts[0]["mlp"].up.weight += 1
    assert torch.equal(ours.language.blocks[0].mlp.up.weight, before)


@pytest.mark.parametrize("name", CONFIGS)
def test_without_a_picture_it_is_the_untouched_decoder_to_the_bit(name):
    ours, ids = small(CONFIGS[name]), words(2, 9)
    assert torch.equal(ours(Batch(None, ids)).logits, ours.language.logits(ours.language(ours.language.embedding(ids))))
    layout = ours._sequence(Batch(None, ids))[1]
    assert ours.fusion.blocks(ours.language, layout, None) == list(ours.language.blocks)


def test_routing_changes_its_modality_only():
    """Experts of the last block reach the places on the route and no other; those of the first all that look there."""
    ours = small()
    batch = samples(ours.config.vision.image_size)
    before, route = ours(batch), ours(batch, capture=True).maps["fusion.route"]
    valid = before.layout.valid
    assert torch.equal(route, before.layout.is_visual & (before.layout.index < ours.config.num_tokens - 1))
    ours.fusion.experts[-1]["mlp"].down.weight *= 2
    moved = (ours(batch).logits - before.logits).abs().amax(dim=-1)
    assert (moved[route] > 1e-3).all() and (moved[valid & ~route] == 0).all()
    ours.fusion.experts[0]["mlp"].down.weight *= 2
    moved = (ours(batch).logits - before.logits).abs().amax(dim=-1)
    behind = before.layout.latest >= 0
    assert (moved[behind & valid] > 1e-5).all() and (moved[valid & ~behind] == 0).all()


def test_each_place_passes_one_of_the_two():
    ours = small()
    batch, seen = samples(ours.config.vision.image_size), {"expert": 0, "own": 0}

    def count(who: str):
        return lambda module, inputs: seen.__setitem__(who, inputs[0].shape[:-1].numel())

    ours.fusion.experts[1]["q"].register_forward_pre_hook(count("expert"))
    ours.language.blocks[1].attention.q.register_forward_pre_hook(count("own"))
    output = ours(batch, capture=True)
    route = output.maps["fusion.route"]
    assert seen == {"expert": int(route.sum()), "own": int((~route).sum())}


@pytest.mark.parametrize(("name", "seed"), TRIED[2:])
def test_piece_by_piece_with_a_cache_equals_all_at_once(name, seed):
    """Cut anywhere, within a picture too; the last pieces are one word each, as when it speaks."""
    ours = small(CONFIGS[name], seed)
    batch = samples(ours.config.vision.image_size)
    wanted, (x, layout, _) = ours(batch), ours._sequence(batch)
    mask, length = ours.fusion.mask(layout), x.shape[1]
    cache = ours.language.make_cache(length)
    cuts = [0, 3, 6, length - 2, length - 1, length]
    for start, end in pairwise(cuts):
        newest = Layout(**{name: value[:, start:end] for name, value in vars(layout).items()})
        blocks = ours.fusion.blocks(ours.language, newest, None)
        hidden = ours.language(x[:, start:end], newest.position, mask[:, :, start:end, :end], cache, blocks)
        there = newest.valid
        assert_same(ours.language.logits(hidden)[there], wanted.logits[:, start:end][there])


def test_what_no_word_is_read_off_is_known():
    """Changing it moves no logit of a word; changing anything else of the last expert does."""
    for name, config in CONFIGS.items():
        ours = small(config)
        batch = samples(ours.config.vision.image_size)
        picture = ours.connector.layout(ours.config.vision.grid)
        unread = ours.fusion.unread(picture)
        before = ours(batch)
        for part, module in ours.fusion.experts[-1].items():
            kept = [weight.clone() for weight in module.parameters()]
            for weight in module.parameters():
                weight *= 2
            moved = (ours(batch).logits - before.logits)[before.layout.is_text].abs().max() > 1e-5
            for weight, value in zip(module.parameters(), kept, strict=True):
                weight.copy_(value)
            assert moved == (not any(module is other for other in unread)), (name, part)
        assert ours.fusion.unread(VisualLayout.patches((2, 2))) == []
        assert VisualExpertConfig(every=3).build(ours.language).unread(picture) == []  # only the first of three blocks


def test_pictures_without_tags_are_routed_whole():
    ours = small()
    width = ours.config.language.width
    ours.connector = randomise(LinearProjection().build(ours.config.vision.width, width, ours.config.vision.grid))
    output = ours(samples(ours.config.vision.image_size), capture=True)
    assert torch.equal(output.maps["fusion.route"], output.layout.is_visual)


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_published_sizes():
    model = build("cogvlm", "published", device="meta")
    counts = {part: sum(p.numel() for p in getattr(model, part).parameters()) / 1e9 for part in model.parts}
    stated = {"vision": 4.28, "connector": 0.14, "fusion": 6.48, "language": 6.74}
    assert counts == pytest.approx(stated, abs=0.005)
    assert sum(counts.values()) == pytest.approx(17.6, abs=0.05)
    assert model.config.vision.num_patches == 35 * 35 and model.config.num_tokens == 1227


def test_the_arms_of_the_paper_have_their_sizes():
    """Its ablation: experts in every 4th block 1.7 B, MLPs only 4.4 B, both with the adapter of 0.14 B."""
    language = build("cogvlm", "published", device="meta").language
    for arm, billions in ((VisualExpertConfig(every=4), 1.7), (VisualExpertConfig(routes=("mlp",)), 4.4)):
        with torch.device("meta"):
            experts = arm.build(language)
        assert sum(p.numel() for p in experts.parameters()) / 1e9 + 0.14 == pytest.approx(billions, abs=0.1)


def test_experts_cost_no_operation_more():
    """On the meta device, with a layout that is real."""
    ours = build("cogvlm", device="meta")
    ids = torch.tensor([[5, IMAGE_ID, 6, 7]])
    picture = ours.connector.layout(ours.config.vision.grid)
    layout = ours.fusion.arrange(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids), picture, IMAGE_ID)
    x = torch.empty(1, layout.kind.shape[1], ours.config.language.width, device="meta")
    with FlopCounterMode(display=False) as routed:
        ours.language(x, blocks=ours.fusion.blocks(ours.language, layout, None))
    with FlopCounterMode(display=False) as plain:
        ours.language(x)
    assert routed.get_total_flops() == plain.get_total_flops() > 0


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_routed_is_refused():
    phi = build("moondream2", "published", device="meta").language
    with pytest.raises(ValueError, match="Phi is made of ParallelBlock"):
        VisualExpertConfig().build(phi)
    with pytest.raises(ValueError, match="routes must name parts of a block .*, got attention"):
        VisualExpertConfig(routes=("attention",))
    with pytest.raises(ValueError, match="got none"):
        VisualExpertConfig(routes=())
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        VisualExpertConfig(every=0)
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        GLUProjection(hidden=0)
    with pytest.raises(ValueError, match="depth must be at least 0, got -1"):
        replace(eva2_vit(image_size=(8, 8), patch_size=4, width=8, depth=0, heads=2, mlp_width=8), depth=-1)
