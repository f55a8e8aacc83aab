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
            enters = re.search("embed|cls_token|conv1|head.attention.out_proj", f"{path}.{name}")
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


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """Random pixels in [0, 1], (..., 3, H, W)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def words(*shape: int, seed: int = 0) -> Tensor:
    """Random ids of plain words."""
    return torch.randint(4, LAST_ID, shape, generator=torch.Generator().manual_seed(seed))


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance`, as a difference and not as a ratio."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
