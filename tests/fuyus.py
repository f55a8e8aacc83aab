"""Tiny Persimmons and Fuyus of transformers, and what Fuyu's own processor makes of a picture."""

from __future__ import annotations

import random

import torch
import transformers
from references import IMAGE_ID, randomise
from torch import Tensor, nn

PATCH = 4
LIMIT = (24, 40)  # height and width in pixels: whole patches, as the processor wants it


def persimmon_sizes(seed: int) -> dict:
    """The sizes of a small Persimmon, as transformers names them: of a head 10, 6 or 14 channels turn."""
    draw = random.Random(5000 + seed)
    heads = draw.randint(2, 3)
    return dict(
        model_type="persimmon",
        vocab_size=64,
        hidden_size=heads * (20, 12, 28)[seed % 3],
        intermediate_size=draw.randint(20, 60),
        num_hidden_layers=draw.randint(2, 3),
        num_attention_heads=heads,
        layer_norm_eps=(1e-5, 1e-5, 1e-6)[seed % 3],
        rope_parameters=rope((25000.0, 1e4, 5e3)[seed % 3]),
        eos_token_id=2,
    )


def rope(theta: float = 25000.0, kind: str = "default", share: float = 0.5) -> dict:
    return dict(rope_type=kind, rope_theta=theta, partial_rotary_factor=share, factor=2.0)


def quieten_head_norms(model: nn.Module, scale: float) -> nn.Module:
    """What enters the norms of queries and keys times `scale`: they follow a norm, which no start quietens."""
    heads = model.config.get_text_config().num_attention_heads
    for name, parameter in model.named_parameters():
        if "query_key_value" in name:
            parameter.data.unflatten(0, (heads, 3, -1))[:, :2] *= scale
    return model


def persimmon(seed: int = 0, scale: float = 1.0, **changes) -> nn.Module:
    sizes = {key: value for key, value in persimmon_sizes(seed).items() if key != "model_type"}
    model = transformers.PersimmonForCausalLM(transformers.PersimmonConfig(**{**sizes, **changes}))
    return quieten_head_norms(randomise(model, seed, scale), scale)


def fuyu(seed: int = 0, scale: float = 1.0, text: dict | None = None, **changes) -> nn.Module:
    sizes = {**persimmon_sizes(seed), **(text or {})}
    told = dict(hidden_size=sizes["hidden_size"])  # once more: older transformers make the map of the patches from it
    config = transformers.FuyuConfig(text_config=sizes, patch_size=PATCH, image_token_id=IMAGE_ID, **told, **changes)
    return quieten_head_norms(randomise(transformers.FuyuForCausalLM(config), seed, scale), scale)


def processor(limit: tuple[int, int] = LIMIT, patch: int = PATCH) -> transformers.FuyuImageProcessor:
    return transformers.FuyuImageProcessor(
        size=dict(zip(("height", "width"), limit, strict=True)), patch_size=dict(height=patch, width=patch)
    )


def processed(picture: Tensor, limit: tuple[int, int] = LIMIT, patch: int = PATCH) -> tuple[Tensor, tuple[int, int]]:
    """The patches (N, 3*p*p) that Fuyu is given of a picture (3, H, W), pixels 0 to 255, and their rows and columns:
    the processor pads all pictures to its limit, and `FuyuProcessor` leaves out the patches that hold only padding."""
    theirs = processor(limit, patch)
    made = theirs([[picture]], return_tensors="pt")
    rows, cols = (-(-int(made[f"image_unpadded_{side}"]) // patch) for side in ("heights", "widths"))
    return theirs.patchify_image(made["images"][0, :, :, : rows * patch, : cols * patch])[0], (rows, cols)


def levels(height: int, width: int, seed: int = 0) -> Tensor:
    """A picture (3, H, W) of random pixels in 8 bits."""
    return torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
