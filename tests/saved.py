"""Folders as published systems have them: of a model of transformers, in each of the three ways that files have named
its weights over the years."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LLAVA = [
    (r"model\.vision_tower\.", "vision_tower.vision_model."),
    (r"model\.language_model\.", "language_model.model."),
    (r"lm_head\.", "language_model.lm_head."),
    (r"model\.(multi_modal_projector|image_newline)", r"\1"),
]
VIT = [
    (r"layers\.(\d+)\.attention\.q_proj\.", r"encoder.layer.\1.attention.attention.query."),
    (r"layers\.(\d+)\.attention\.k_proj\.", r"encoder.layer.\1.attention.attention.key."),
    (r"layers\.(\d+)\.attention\.v_proj\.", r"encoder.layer.\1.attention.attention.value."),
    (r"layers\.(\d+)\.attention\.o_proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"layers\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"layers\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"layers\.", "encoder.layer."),
]
HUB = {  # as the releases of the 4.x era wrote them, from today's names in memory
    "CLIPVisionModel": [(r"", "vision_model.")],
    "SiglipVisionModel": [(r"", "vision_model.")],
    "ViTModel": VIT,
    "LlavaForConditionalGeneration": LLAVA,
    "LlavaNextForConditionalGeneration": LLAVA,
    "FuyuForCausalLM": [
        (r"model\.language_model\.", "language_model.model."),
        (r"lm_head\.", "language_model.lm_head."),
        (r"model\.vision_embed_tokens\.", "vision_embed_tokens."),
    ],
    "DeepseekVLForConditionalGeneration": [(r"model\.vision_model\.", "model.vision_model.vision_model.")],
    "DeepseekVLHybridForConditionalGeneration": [(r"model\.vision_model\.", "model.vision_model.vision_model.")],
}
BESIDE = {  # what files held that no release counts among the weights any more
    "CLIPModel": ["vision_model.embeddings.position_ids", "text_model.embeddings.position_ids"],
    "LlavaForConditionalGeneration": ["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"],
    "InstructBlipForConditionalGeneration": ["qformer.embeddings.position_ids"],
    "Kosmos2ForConditionalGeneration": ["text_model.model.embed_positions.weights"],
}
LAYOUTS = ("today", "memory", "hub")


def write(theirs: nn.Module, folder: Path, layout: str) -> Path:
    """ "today": in many files, as transformers does it now; "memory": by the names in memory, all of them; "hub": as it
    did years ago."""
    if layout == "today":
        theirs.save_pretrained(folder, max_shard_size="8KB")
        assert (folder / "model.safetensors.index.json").is_file()
        return folder
    theirs.config.architectures = [type(theirs).__name__]
    theirs.config.save_pretrained(folder)
    state = theirs.state_dict()
    if layout == "hub":
        kind = type(theirs).__name__
        state = {old(key, HUB.get(kind, [])): value for key, value in state.items()}
        state |= {key: torch.arange(4.0) for key in BESIDE.get(kind, [])}
    put(state, folder / "model.safetensors")
    return folder


def put(state: dict[str, Tensor], path: Path) -> None:
    save_file({key: value.detach().clone().contiguous() for key, value in state.items()}, path)


def old(key: str, rules: list[tuple[str, str]]) -> str:
    for pattern, name in rules:
        if re.match(pattern, key):
            return re.sub(rf"^{pattern}", name, key)
    return key


def taken(path: Path) -> dict[str, Tensor]:
    """All of a file's tensors, in memory of their own."""
    return {key: value.clone() for key, value in load_file(path).items()}
