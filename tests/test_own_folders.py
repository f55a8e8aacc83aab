"""Folders of systems that transformers has no class for, by their published names: the references are put together of
others' modules, as in the tests of each design, and written by the names that the hub has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import references
import saved
import test_moondream2
import test_parity
import test_visual_expert
import torch
import torch.nn.functional as F
import transformers
from references import assert_same, pictures, randomise, words
from test_cross_resampler import QwenVL
from torch import Tensor, nn

from minivlm import Batch, load

pytestmark = pytest.mark.usefixtures("no_graph")


def put(folder: Path, told: dict, state: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(told))
    saved.put(state, folder / "model.safetensors")
    return folder


def named(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """`state` with the beginnings of its keys renamed, each by the first that fits."""
    renamed = {}
    for key, value in state.items():
        theirs = next(name for name in names if re.match(name, key))
        renamed[re.sub(f"^{theirs}", names[theirs], key)] = value
    return renamed


def packed(state: dict[str, Tensor], parts: list[str], whole: str) -> dict[str, Tensor]:
    """What stands under the names `parts`, three of a pattern, as one tensor under the name `whole`."""
    joined = {key: value for key, value in state.items() if not any(part in key for part in parts)}
    for key in (key for key in state if parts[0] in key):
        joined[key.replace(parts[0], whole)] = torch.cat([state[key.replace(parts[0], part)] for part in parts])
    return joined


# --- moondream2 -----------------------------------------------------------------------------------------------------

SIGLIP = {
    r"embeddings\.patch_embedding\.": "patch_embed.linear.",
    r"embeddings\.position_embedding\.weight": "pos_embed",
    r"encoder\.layers\.(\d+)\.layer_norm(1|2)\.": r"blocks.\1.norm\2.",
    r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.": r"blocks.\1.attn.proj.",
    r"encoder\.layers\.(\d+)\.self_attn\.": r"blocks.\1.attn.",
    r"encoder\.layers\.": "blocks.",
    r"post_layernorm\.": "norm.",
}
PHI = {
    r"model\.embed_tokens\.": "transformer.embd.wte.",
    r"model\.layers\.(\d+)\.input_layernorm\.": r"transformer.h.\1.ln.",
    r"model\.layers\.(\d+)\.self_attn\.dense\.": r"transformer.h.\1.mixer.out_proj.",
    r"model\.layers\.(\d+)\.self_attn\.": r"transformer.h.\1.mixer.",
    r"model\.layers\.": "transformer.h.",
    r"model\.final_layernorm\.": "lm_head.ln.",
    r"lm_head\.": "lm_head.linear.",
}
QKV = ["q_proj.", "k_proj.", "v_proj."]


def moondream_state(theirs: test_moondream2.Theirs) -> dict[str, Tensor]:
    tower = {key: value for key, value in theirs.siglip.state_dict().items() if not key.startswith("head.")}
    tower = packed(named(tower, SIGLIP), QKV, "qkv.")
    tower["patch_embed.linear.weight"] = tower["patch_embed.linear.weight"].flatten(1)  # (D, c*p*p)
    tower["pos_embed"] = tower["pos_embed"][None]
    text = packed(named(theirs.phi.state_dict(), PHI), QKV, "Wqkv.")
    between = named(theirs.projection.state_dict(), {"0": "fc1", "2": "fc2"})
    return (
        {f"vision_encoder.encoder.model.visual.{key}": value for key, value in tower.items()}
        | {f"vision_encoder.projection.mlp.{key}": value for key, value in between.items()}
        | {f"text_model.{key}": value for key, value in text.items()}
    )


def moondream_folder(folder: Path, theirs: test_moondream2.Theirs, **changes: Tensor) -> Path:
    phi = theirs.phi.config
    turned = round(phi.rope_parameters["partial_rotary_factor"] * phi.hidden_size / phi.num_attention_heads)
    text = dict(model_type="phi", n_head=phi.num_attention_heads, rotary_dim=turned, eos_token_id=2)
    return put(folder, dict(architectures=["Moondream"], text_config=text), moondream_state(theirs) | changes)


@pytest.fixture
def sixteen_heads(monkeypatch):
    """A tower with as many heads as the release has, which are written down nowhere, and no pixels to spare."""
    sizes = references.vision_sizes(0)
    sizes |= dict(hidden_size=48, num_attention_heads=16, image_size=3 * sizes["patch_size"])
    monkeypatch.setattr(references, "vision_sizes", lambda seed: sizes)


def test_the_first_moondream2(sixteen_heads, monkeypatch, tmp_path, scale):
    monkeypatch.setattr(test_moondream2, "ours_of", lambda theirs: load(moondream_folder(tmp_path, theirs), "cpu"))
    test_moondream2.test_moondream2(scale=scale, seed=0)


def test_a_moondream_that_reads_crops_is_refused(sixteen_heads, tmp_path):
    theirs = test_moondream2.Theirs(0, 1.0)
    theirs.projection[0] = nn.Linear(2 * theirs.siglip.config.hidden_size, test_moondream2.HIDDEN)
    with pytest.raises(ValueError, match="crops beside the whole picture"):
        load(moondream_folder(tmp_path, theirs), "cpu")


# --- CogVLM ---------------------------------------------------------------------------------------------------------

EVA = {
    r"cls_token": "patch_embedding.cls_embedding",
    r"pos_embed": "patch_embedding.position_embedding.weight",
    r"patch_embed\.proj\.": "patch_embedding.proj.",
    r"blocks\.(\d+)\.norm1\.": r"transformer.layers.\1.input_layernorm.",
    r"blocks\.(\d+)\.norm2\.": r"transformer.layers.\1.post_attention_layernorm.",
    r"blocks\.(\d+)\.attn\.proj\.": r"transformer.layers.\1.attention.dense.",
    r"blocks\.(\d+)\.attn\.": r"transformer.layers.\1.attention.",
    r"blocks\.": "transformer.layers.",
}
PAIRS = {
    r"(.*)self_attn\.o_proj\.(words|sights)\.": r"\1self_attn.\2_expert_dense.",
    r"(.*)self_attn\.([qkv]_proj)\.(words|sights)\.": r"\1self_attn.\3_expert_\2.",
    r"(.*)mlp\.(gate|up|down)_proj\.(words|sights)\.": r"\1mlp.\3_mlp.\2_proj.",
    r"": "",
}


def cogvlm_folder(folder: Path, theirs: test_visual_expert.Whole) -> Path:
    eva, text = theirs.tower_config, theirs.llama.config
    tower = named(theirs.tower.state_dict(), EVA)
    tower |= {  # theirs has no biases of keys
        key.replace("q_proj", "k_proj"): torch.zeros_like(value) for key, value in tower.items() if "q_proj.bias" in key
    }
    tower["patch_embedding.position_embedding.weight"] = tower["patch_embedding.position_embedding.weight"][0]
    tower["patch_embedding.cls_embedding"] = tower["patch_embedding.cls_embedding"][0]
    adapter = named(theirs.adapter.state_dict(), {"boi|eoi": r"\g<0>", "": "linear_proj."})
    decoder = named(theirs.llama.state_dict(), PAIRS)
    decoder = {key.replace(".sights_", ".vision_").replace(".words_", ".language_"): v for key, v in decoder.items()}
    decoder = packed(decoder, [f"_expert_{name}" for name in QKV], "_expert_query_key_value.")
    vision = packed(tower, QKV, "query_key_value.") | adapter
    told = dict(
        architectures=["CogVLMForCausalLM"],
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        rms_norm_eps=text.rms_norm_eps,
        pad_token_id=references.IMAGE_ID,
        eos_token_id=2,
        vision_config=dict(
            image_size=eva.image_size,
            patch_size=eva.patch_size,
            hidden_size=eva.width,
            num_hidden_layers=eva.depth,
            num_heads=eva.heads,
            intermediate_size=eva.mlp_width,
            hidden_act="gelu",
            layer_norm_eps=1e-6,
        ),
    )
    inverse = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}
    return put(folder, told, decoder | {f"model.vision.{key}": value for key, value in vision.items()} | inverse)


@pytest.fixture
def vicuna(monkeypatch):
    """A small decoder as CogVLM has it: no groups, the plain turning; as wide inside as its adapter."""
    sizes = references.llama_sizes(1)
    rope = dict(rope_type="default", rope_theta=1e4)
    changes = dict(tie_word_embeddings=False, head_dim=None, rope_parameters=rope, intermediate_size=22)
    monkeypatch.setattr(references, "llama_sizes", lambda seed: {**sizes, **changes})


def test_cogvlm(vicuna, monkeypatch, tmp_path, scale):
    monkeypatch.setattr(test_visual_expert, "converted", lambda theirs, _: load(cogvlm_folder(tmp_path, theirs), "cpu"))
    test_visual_expert.test_all_of_it_equals_a_llama_of_pairs("CogVLM", 1, scale)


# --- Qwen-VL --------------------------------------------------------------------------------------------------------


class Tower(nn.Module):
    """torch's own blocks behind a map of patches, with positions stretched from a coarser grid."""

    def __init__(self, patch: int, grid: tuple[int, int], width: int, mlp_width: int, depth: int, heads: int):
        super().__init__()
        self.grid, self.heads = grid, heads
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.zeros(4, width))
        self.ln_pre = nn.LayerNorm(width, eps=1e-6)
        shape = dict(activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True, dropout=0.0)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, heads, mlp_width, **shape) for _ in range(depth))

    def forward(self, images: Tensor) -> Tensor:
        table = self.positional_embedding.T.unflatten(1, (2, 2))[None]
        table = F.interpolate(table, self.grid, mode="bicubic", align_corners=False)[0].flatten(1).T
        x = self.ln_pre(self.conv1(images).flatten(2).transpose(1, 2) + table)
        for layer in self.layers:
            x = layer(x)
        return x

    def state(self) -> dict[str, Tensor]:
        names = {
            r"layers\.(\d+)\.norm(1|2)\.": r"transformer.resblocks.\1.ln_\2.",
            r"layers\.(\d+)\.self_attn\.in_proj_": r"transformer.resblocks.\1.attn.in_proj.",
            r"layers\.(\d+)\.self_attn\.": r"transformer.resblocks.\1.attn.",
            r"layers\.(\d+)\.linear1\.": r"transformer.resblocks.\1.mlp.c_fc.",
            r"layers\.(\d+)\.linear2\.": r"transformer.resblocks.\1.mlp.c_proj.",
            r"": "",
        }
        state = named(self.state_dict(), names)
        return {key: self.interleaved(value) if ".in_proj." in key else value for key, value in state.items()}

    def interleaved(self, value: Tensor) -> Tensor:
        """Head after head, each with its queries, keys and values."""
        q, k, v = (part.unflatten(0, (self.heads, -1)) for part in value.chunk(3))
        return torch.cat([torch.cat([q[head], k[head], v[head]]) for head in range(self.heads)])


QWEN = {
    r"model\.embed_tokens\.": "transformer.wte.",
    r"model\.norm\.": "transformer.ln_f.",
    r"model\.layers\.(\d+)\.input_layernorm\.": r"transformer.h.\1.ln_1.",
    r"model\.layers\.(\d+)\.post_attention_layernorm\.": r"transformer.h.\1.ln_2.",
    r"model\.layers\.(\d+)\.self_attn\.o_proj\.": r"transformer.h.\1.attn.c_proj.",
    r"model\.layers\.(\d+)\.self_attn\.": r"transformer.h.\1.attn.",
    r"model\.layers\.(\d+)\.mlp\.gate_proj\.": r"transformer.h.\1.mlp.w2.",
    r"model\.layers\.(\d+)\.mlp\.up_proj\.": r"transformer.h.\1.mlp.w1.",
    r"model\.layers\.(\d+)\.mlp\.down_proj\.": r"transformer.h.\1.mlp.c_proj.",
    r"lm_head\.": "lm_head.",
}
IMAGE_ID, WIDTH = 62, 128  # one head of the resampler is 128 wide


def qwen_vl() -> tuple[Tower, QwenVL, nn.Module]:
    tower = randomise(Tower(patch=5, grid=(3, 3), width=18, mlp_width=45, depth=2, heads=3))
    resampler = randomise(QwenVL(4, (3, 3), 18, WIDTH, heads=1, positions=True))
    config = transformers.Qwen2Config(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=30,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    return tower, resampler, randomise(transformers.Qwen2ForCausalLM(config))


def qwen_vl_folder(folder: Path, tower: Tower, resampler: QwenVL, decoder: nn.Module) -> Path:
    bridge = named(resampler.state_dict(), {r"proj\.weight": "proj", r"ln_post\.": "ln_post.", "": "attn_pool."})
    bridge |= {"proj": bridge["proj"].T, "attn_pool.pos_embed": resampler.of_queries}
    visual = {f"transformer.visual.{key}": value for key, value in (tower.state() | bridge).items()}
    text = packed(named(decoder.state_dict(), QWEN), QKV, "c_attn.")
    told = dict(
        architectures=["QWenLMHeadModel"],
        model_type="qwen",
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=2 * 30,
        num_hidden_layers=2,
        num_attention_heads=4,
        kv_channels=WIDTH // 4,
        layer_norm_epsilon=1e-6,
        rotary_emb_base=10000,
        eos_token_id=2,
        visual=dict(
            image_size=15, patch_size=5, width=18, layers=2, heads=3, mlp_ratio=2.5, output_dim=WIDTH,
            n_queries=16, image_start_id=IMAGE_ID - 2,
        ),
    )  # fmt: skip
    return put(folder, told, visual | text)


def test_qwen_vl(tmp_path):
    """`<img>`, the slots that the picture's tokens fill, and `</img>` stand among the words."""
    theirs = qwen_vl()
    ours = load(qwen_vl_folder(tmp_path, *theirs), "cpu")
    tower, resampler, decoder = theirs
    images, ids = pictures(2, 3, 15, 15), words(2, 8)
    ids[:, 3] = IMAGE_ID
    embedded, seen = decoder.get_input_embeddings()(ids), resampler(tower(images))[0]
    x = torch.cat([embedded[:, :3], seen, embedded[:, 4:]], dim=1)
    output = ours(Batch(images[:, None], ids))
    assert_same(ours.features(images[:, None])[:, 0], tower(images))
    assert_same(output.logits, decoder(inputs_embeds=x).logits)


# --- Yi-VL ----------------------------------------------------------------------------------------------------------


class NormedProjector(nn.Sequential):
    """In LLaVA's place for one, under the names of Yi-VL's."""

    def __init__(self, width: int, out_width: int):
        norm = (nn.LayerNorm(out_width) for _ in range(2))
        first, last = nn.Linear(width, out_width), nn.Linear(out_width, out_width)
        super().__init__(first, next(norm), nn.GELU(), last, next(norm))


def yi_vl(seed: int, act: str = "gelu") -> nn.Module:
    theirs = references.llava(seed, text=dict(tie_word_embeddings=False), vision=dict(hidden_act=act))
    sizes = theirs.config.vision_config.hidden_size, theirs.config.text_config.hidden_size
    theirs.model.multi_modal_projector = randomise(NormedProjector(*sizes), seed)
    return theirs


def yi_vl_folder(folder: Path, theirs: nn.Module, apart: bool, **changes) -> Path:
    """The encoder in a folder of its own, as published, or among the other weights as well."""
    tower = {f"vision_model.{key}": value for key, value in theirs.model.vision_tower.state_dict().items()}
    rest = {f"model.mm_projector.{key}": v for key, v in theirs.model.multi_modal_projector.state_dict().items()}
    rest |= {f"model.{key}": value for key, value in theirs.model.language_model.state_dict().items()}
    rest["lm_head.weight"] = theirs.lm_head.weight
    if apart:
        put(folder / "vit", theirs.config.vision_config.to_dict(), tower)
    else:
        put(folder / "vit", theirs.config.vision_config.to_dict(), {})
        rest |= {f"model.vision_tower.vision_tower.{key}": value for key, value in tower.items()}
    text = theirs.config.text_config.to_dict()
    told = dict(
        architectures=["LlavaLlamaForCausalLM"],
        model_type="llava",
        mm_vision_tower="vit",
        mm_projector_type="mlp2x_gelu_Norm",
        mm_vision_select_layer=-2,
        rope_theta=text["rope_parameters"]["rope_theta"],
    )
    text.pop("rope_parameters")  # as files had it then
    return put(folder, {**text, **told, **changes}, rest)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_yi_vl(apart, act, seed, monkeypatch, tmp_path):
    def through(theirs):
        return load(yi_vl_folder(tmp_path, theirs, apart), "cpu")

    monkeypatch.setattr(test_parity, "from_transformers", through)
    test_parity.assert_equals_llava(yi_vl(seed, act), seed)


def test_another_projector_is_refused(tmp_path):
    folder = yi_vl_folder(tmp_path, yi_vl(0), apart=True, mm_projector_type="mlp2x_gelu")
    with pytest.raises(ValueError, match="projector 'mlp2x_gelu', not Yi-VL's"):
        load(folder, "cpu")


# --- all of them ----------------------------------------------------------------------------------------------------

FOLDERS = {
    "moondream2": lambda folder: moondream_folder(folder, test_moondream2.Theirs(0, 1.0)),
    "CogVLM": lambda folder: cogvlm_folder(
        folder, test_visual_expert.Whole(1, 1.0, test_visual_expert.CONFIGS["CogVLM"])
    ),
    "Qwen-VL": lambda folder: qwen_vl_folder(folder, *qwen_vl()),
    "Yi-VL": lambda folder: yi_vl_folder(folder, yi_vl(0), apart=True),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_missing_and_what_is_too_much_are_both_listed(name, sixteen_heads, vicuna, tmp_path):
    folder = FOLDERS[name](tmp_path)
    path = folder / "model.safetensors"
    state = saved.taken(path)
    gone = next(key for key in state if re.search(r"\.1\..*(fc1|gate_proj|w1).*weight", key))
    del state[gone]
    saved.put(state | {"surprise.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="surplus surprise.weight") as error:
        load(folder, "cpu")
    assert re.search(r"missing \S*blocks\.1\.\S+|missing fusion\.experts\.1\.mlp\.gate\.weight", str(error.value))
