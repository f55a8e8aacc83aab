"""Tiny reference models whose every weight matters, and the inputs to try them on.

A library's own start hides mistakes: gains are all one, biases and gates zero, words tiny. So every parameter is drawn
anew here. Sizes are drawn too: odd, and with head sizes whose root is no power of two (a scale of exactly 1/2 or 1/4
would hide where it is applied).
"""

from __future__ import annotations

import random
import re

import torch
import transformers
from torch import Tensor, nn

from minivlm.pretrained.keys import rename
from minivlm.pretrained.qformers import QFORMER

IMAGE_ID = 63
LAST_ID = 60  # words are drawn below this, so that special ids never turn up by chance


def randomise(model: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Give every parameter a value that matters; what enters the first block, or SigLIP's norm behind the pooling, is
    multiplied by `scale`: at 1 a wrong epsilon drowns in the signal, at 0.02 it is a thousand times over the tolerance.
    """
    generator = torch.Generator().manual_seed(seed)
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            if "Norm" in type(module).__name__:
                value = 0.2 * noise + (name == "weight")
            elif name.endswith("weight") and parameter.ndim > 1 and not isinstance(module, nn.Embedding):
                value = noise / parameter[0].numel() ** 0.5
            else:
                value = 0.5 * noise
            enters = re.search("embed|query_tokens|cls_token|conv1|head.attention.out_proj", f"{path}.{name}")
            parameter.data.copy_(value * scale if enters else value)
    return model.eval()


def vision_sizes(seed: int) -> dict:
    """The sizes of a small vision tower, as transformers names them."""
    draw = random.Random(seed)
    heads, patch = draw.randint(2, 3), draw.randint(3, 7)
    return dict(
        hidden_size=heads * draw.choice((6, 10, 14)),
        intermediate_size=draw.randint(20, 50),
        num_hidden_layers=draw.randint(3, 5),
        num_attention_heads=heads,
        image_size=patch * draw.randint(2, 4) + draw.randint(0, 2),  # up to two pixels beyond the last whole patch
        patch_size=patch,
    )


def text_sizes(seed: int) -> dict:
    """The sizes of a small text tower, as transformers names them; another width than the vision tower's."""
    draw = random.Random(1000 + seed)
    heads = draw.randint(1, 3)
    return dict(
        vocab_size=64,
        hidden_size=heads * draw.choice((8, 12, 18)),
        intermediate_size=draw.randint(20, 50),
        num_hidden_layers=draw.randint(2, 3),  # in a single one the last word sees all, causal or not
        num_attention_heads=heads,
        max_position_embeddings=draw.randint(9, 12),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=50,
    )


def llama_sizes(seed: int) -> dict:
    """The sizes of a small decoder, as transformers names them: heads in groups of 2, 1 and 3, tied and untied."""
    draw = random.Random(2000 + seed)
    kv_heads, groups = draw.randint(1, 2), (2, 1, 3)[seed % 3]
    heads = kv_heads * groups
    return dict(
        model_type="llama",
        vocab_size=64,
        hidden_size=heads * draw.choice((6, 10, 12)),
        intermediate_size=draw.randint(20, 60),
        num_hidden_layers=draw.randint(2, 3),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=(None, 14, None)[seed % 3],
        rms_norm_eps=(1e-6, 1e-5, 1e-6)[seed % 3],
        rope_parameters=dict(rope_type="default", rope_theta=(1e4, 5e3, 1e5)[seed % 3]),
        tie_word_embeddings=seed % 2 == 1,
        max_position_embeddings=128,
        eos_token_id=2,
    )


def multi_head_sizes(seed: int) -> tuple[int, int, int, int]:
    """Width, width of the MLP, depth and heads of a small decoder whose heads are not grouped."""
    draw = random.Random(3000 + seed)
    heads = draw.randint(2, 3)
    return heads * (20, 12, 10)[seed % 3], draw.randint(20, 60), draw.randint(2, 3), heads


def clip(seed: int = 0, scale: float = 1.0, eos_id: int = 50) -> nn.Module:
    config = transformers.CLIPConfig(
        text_config=dict(text_sizes(seed), eos_token_id=eos_id), vision_config=vision_sizes(seed), projection_dim=11
    )
    return randomise(transformers.CLIPModel(config), seed, scale)


def siglip(seed: int = 0, scale: float = 1.0) -> nn.Module:
    vision = vision_sizes(seed)
    text = dict(text_sizes(seed), projection_size=vision["hidden_size"])
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    return randomise(transformers.SiglipModel(config), seed, scale)


def vit(seed: int = 0, scale: float = 1.0, **changes) -> nn.Module:
    config = transformers.ViTConfig(**{**vision_sizes(seed), **changes})
    return randomise(transformers.ViTModel(config), seed, scale)


def llama(seed: int = 0, scale: float = 1.0, **changes) -> nn.Module:
    config = transformers.LlamaConfig(**{**llama_sizes(seed), **changes})
    return randomise(transformers.LlamaForCausalLM(config), seed, scale)


def opt(seed: int = 0, scale: float = 1.0, **changes) -> nn.Module:
    width, mlp_width, depth, heads = multi_head_sizes(seed)
    sizes = dict(hidden_size=width, ffn_dim=mlp_width, num_hidden_layers=depth, num_attention_heads=heads)
    config = transformers.OPTConfig(**{**sizes, "vocab_size": 64, "max_position_embeddings": 20 + seed, **changes})
    return randomise(transformers.OPTForCausalLM(config), seed, scale)


def phi(seed: int = 0, scale: float = 1.0, share: float | None = None, **changes) -> nn.Module:
    """`share` of the channels of a head turn: by seed 8 of 20, all 12, or 6 of 10."""
    width, mlp_width, depth, heads = multi_head_sizes(seed)
    share = share or (0.4, 1.0, 0.6)[seed % 3]
    rope = dict(rope_type="default", rope_theta=(1e4, 5e3, 1e5)[seed % 3], partial_rotary_factor=share)
    sizes = dict(hidden_size=width, intermediate_size=mlp_width, num_hidden_layers=depth, num_attention_heads=heads)
    config = transformers.PhiConfig(**{**sizes, "vocab_size": 64, "rope_parameters": rope, **changes})
    return randomise(transformers.PhiForCausalLM(config), seed, scale)


def kosmos2_text_sizes(seed: int) -> dict:
    width, mlp_width, depth, heads = multi_head_sizes(seed)
    return dict(vocab_size=64, embed_dim=width, ffn_dim=mlp_width, layers=depth, attention_heads=heads)


def quieten_sub_norms(model: nn.Module, scale: float) -> nn.Module:
    """What enters the norms inside Kosmos-2's blocks times `scale`: its places are waves, which no start quietens."""
    for name, parameter in model.named_parameters():
        if "vision" not in name and "layers" in name and ("v_proj" in name or "ffn.fc1" in name):
            parameter.data *= scale
    return model


def kosmos2_text(seed: int = 0, scale: float = 1.0, **changes) -> nn.Module:
    config = transformers.models.kosmos2.Kosmos2TextConfig(**{**kosmos2_text_sizes(seed), **changes})
    model = transformers.models.kosmos2.modeling_kosmos2.Kosmos2TextForCausalLM(config)
    return quieten_sub_norms(randomise(model, seed, scale), scale)


def kosmos2(seed: int = 0, scale: float = 1.0, **text) -> nn.Module:
    config = transformers.Kosmos2Config(
        text_config={**kosmos2_text_sizes(seed), **text}, vision_config=vision_sizes(seed), latent_query_num=5 + seed
    )
    return quieten_sub_norms(randomise(transformers.Kosmos2ForConditionalGeneration(config), seed, scale), scale)


def llava(
    seed: int = 0, scale: float = 1.0, vision: dict | None = None, text: dict | None = None, **changes
) -> nn.Module:
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **vision_sizes(seed), **(vision or {})},
        text_config={**llama_sizes(seed), **(text or {})},
        image_token_index=IMAGE_ID,
        **changes,
    )
    return randomise(transformers.LlavaForConditionalGeneration(config), seed, scale)


def llava_next(seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Canvases of one to six tiles, square and not."""
    vision = {"model_type": "clip_vision_model", **vision_sizes(seed)}
    tile = vision["image_size"]
    shapes = [(1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (2, 3)]
    config = transformers.LlavaNextConfig(
        vision_config=vision,
        text_config=llama_sizes(seed),
        image_token_index=IMAGE_ID,
        image_grid_pinpoints=[[rows * tile, cols * tile] for rows, cols in shapes],
    )
    return randomise(transformers.LlavaNextForConditionalGeneration(config), seed, scale)


def qformer_sizes(seed: int) -> dict:
    """The sizes of a small Q-Former, as transformers names them; every block, every second or third sees the
    picture."""
    draw = random.Random(3000 + seed)
    heads = draw.randint(2, 3)
    return dict(
        vocab_size=LAST_ID,
        hidden_size=heads * draw.choice((6, 10, 14)),
        num_hidden_layers=draw.randint(3, 4),
        num_attention_heads=heads,
        intermediate_size=draw.randint(20, 50),
        max_position_embeddings=draw.randint(9, 12),
        cross_attention_frequency=(2, 1, 3)[seed % 3],
        layer_norm_eps=(1e-12, 1e-12, 1e-6)[seed % 3],
    )


def opt_sizes(seed: int) -> dict:
    """The sizes of a small OPT, as transformers names them."""
    draw = random.Random(4000 + seed)
    heads = draw.randint(2, 3)
    width = heads * draw.choice((6, 10, 12))
    return dict(
        model_type="opt",
        vocab_size=64,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=draw.randint(20, 60),
        num_hidden_layers=draw.randint(2, 3),
        num_attention_heads=heads,
        max_position_embeddings=128,
        eos_token_id=2,
    )


def _with_qformer(kind: str, seed: int, scale: float, parts: dict) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**vision_sizes(seed), **parts.get("vision", {})},
        qformer_config={**qformer_sizes(seed), **parts.get("qformer", {})},
        text_config=parts.get("text", llama_sizes(seed)),
        num_query_tokens=3 + seed,
        image_token_index=parts.get("image_id", IMAGE_ID),
    )
    return randomise(getattr(transformers, f"{kind}ForConditionalGeneration")(config), seed, scale)


def blip2(seed: int = 0, scale: float = 1.0, **parts) -> nn.Module:
    """`parts`: other sizes of the `vision` tower and the `qformer`, another `text` decoder, another `image_id`."""
    return _with_qformer("Blip2", seed, scale, parts)


def instructblip(seed: int = 0, scale: float = 1.0, **parts) -> nn.Module:
    """`parts` as for `blip2`."""
    return _with_qformer("InstructBlip", seed, scale, parts)


def instructblip_qformer(seed: int, scale: float, context_width: int) -> nn.Module:
    """The Q-Former alone, for features of that width."""
    config = transformers.InstructBlipQFormerConfig(**qformer_sizes(seed), encoder_hidden_size=context_width)
    return randomise(transformers.InstructBlipQFormerModel(config), seed, scale)


def encoder_state(qformer: nn.Module, queries: Tensor) -> dict[str, Tensor]:
    """The weights of a Q-Former of transformers, and its queries (Q, D), under our names."""
    theirs = {"query_tokens": queries, **{f"qformer.{key}": value for key, value in qformer.state_dict().items()}}
    return {key.removeprefix("connector.encoder."): value for key, value in rename(theirs, QFORMER).items()}


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """Random pixels in [0, 1], (..., 3, H, W)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def features(*shape: int, scale: float) -> Tensor:
    """What an encoder might hand a connector, times `scale`."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def words(*shape: int, seed: int = 0) -> Tensor:
    """Random ids of plain words."""
    return torch.randint(4, LAST_ID, shape, generator=torch.Generator().manual_seed(seed))


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance`, as a difference and not as a ratio."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
