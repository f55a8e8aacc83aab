"""Weights of flamingo-pytorch and of open_flamingo, which name them alike, by our names."""

from __future__ import annotations

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
