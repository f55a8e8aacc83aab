"""What tests of Flamingo and of its open twins share: the weights of flamingo-pytorch and of open_flamingo, which name
them alike, by our names; a batch of several pictures; and speaking word by word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from references import LAST_ID, pictures, words
from torch import Tensor

from minivlm import VLM, Batch
from minivlm.pretrained.keys import Rules, State

RESAMPLER: Rules = [
    (r"layers\.(\d+)\.0\.norm_media\.(.*)", r"layers.\1.context_norm.\2"),
    (r"layers\.(\d+)\.0\.norm_latents\.(.*)", r"layers.\1.latents_norm.\2"),
    (r"layers\.(\d+)\.0\.to_(q|k|v|out)\.weight", r"layers.\1.attention.\2.weight"),
    (r"layers\.(\d+)\.1\.0\.(.*)", r"layers.\1.mlp_norm.\2"),
    (r"layers\.(\d+)\.1\.1\.weight", r"layers.\1.mlp.up.weight"),
    (r"layers\.(\d+)\.1\.3\.weight", r"layers.\1.mlp.down.weight"),
    (r"frame_embs", "enter.embedding"),
    (r"latents|norm\..*", r"\g<0>"),
]
GATED_LAYER: Rules = [
    (r"attn\.norm\.(.*)", r"attention_norm.\1"),
    (r"attn\.to_(q|k|v|out)\.weight", r"attention.\1.weight"),
    (r"attn_gate", "attention_gate"),
    (r"ff\.0\.(.*)", r"mlp_norm.\1"),
    (r"ff\.1\.weight", "mlp.up.weight"),
    (r"ff\.3\.weight", "mlp.down.weight"),
    (r"ff_gate", "mlp_gate"),
]


def split_keys_and_values(state: State) -> State:
    """Both packages keep keys and values as one matrix."""
    packed = {key: value for key, value in state.items() if "to_kv" in key}
    apart = {key.replace("to_kv", f"to_{name}"): half for key, value in packed.items()
             for name, half in zip("kv", value.chunk(2), strict=True)}  # fmt: skip
    return {key: value for key, value in state.items() if key not in packed} | apart


def several_pictures(ours: VLM) -> Batch:
    """A sample with three pictures, and a shorter one with two, padded; words before, between and behind."""
    ids, mask = words(2, 10), torch.ones(2, 10, dtype=torch.bool)
    ids[0, [2, 4, 5]] = ids[1, [0, 3]] = ours.image_token_id
    mask[1, 7:] = False
    there = torch.tensor([[True, True, True], [True, True, False]])
    return Batch(pictures(2, 3, 3, *ours.config.vision.image_size), ids, text_mask=mask, image_mask=there)


def assert_speaks_like(ours: VLM, their_logits: Callable[[Batch], Tensor]) -> None:
    """Greedily, word by word, theirs reading everything again each time."""
    given = several_pictures(ours)
    given = replace(given, input_ids=given.input_ids[:, :7], text_mask=given.text_mask[:, :7])
    ours.config = replace(ours.config, eos_id=LAST_ID + 1)  # said by chance, if ever
    said = ours.generate(given, max_new_tokens=4)
    for step in range(4):
        word = their_logits(given)[:, -1].argmax(dim=-1)
        assert torch.equal(said[:, step], word)
        longer = torch.cat([given.input_ids, word[:, None]], dim=1)
        given = replace(given, input_ids=longer, text_mask=torch.ones_like(longer, dtype=torch.bool))
