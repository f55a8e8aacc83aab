"""Classic mistakes in the exercises of lesson 15, each with the message that it must get."""

from __future__ import annotations

_LAYER = """
def convert_layer(weights, names, heads):
    def cut(value):
        return {cut}
    ours = {{}}
    for key, value in weights:
        layer, _, kind = key.rpartition(".")
        if layer in names:
            ours[names[layer] + "." + kind] = value
        else:
            parts = {parts}
            for name, part in zip("{order}", parts):
                ours["{into}" + name + "." + kind] = part
    return {given}
"""
_RIGHT = "value.view(heads, 3, -1, *value.shape[1:]).transpose(0, 1).flatten(1, 2)"


def _layer(
    cut: str = _RIGHT, parts: str = "cut(value)", order: str = "qkv", into: str = "attention.", given: str = "ours"
) -> str:
    return _LAYER.format(cut=cut, parts=parts, order=order, into=into, given=given)


_PARTING = """
def first_parting(ours, theirs, tolerance):
    def size(x):
        return x.pow(2).mean().sqrt()
    far = [{far} for one, other in zip(ours, theirs)]
    return {first}
"""
_FAR = "bool(size(one - other) > tolerance * size(other))"
_FIRST = "far.index(True) if True in far else len(far)"


def _parting(far: str = _FAR, first: str = _FIRST) -> str:
    return _PARTING.format(far=far, first=first)


_BITS = """
def in_eight_bits(weight):
    scale = {scale}
    return {whole} * {back}
"""
_SCALE = "weight.abs().amax(dim=1, keepdim=True) / 127"


def _bits(scale: str = _SCALE, whole: str = "(weight / scale).round()", back: str = "scale") -> str:
    return _BITS.format(scale=scale, whole=whole, back=back)


_GPU = """
def gpu_bytes(learning, frozen, sample, gpus, at_once):
    return {}
"""

MISTAKES = {
    "15.layer": [
        (_layer("value.chunk(3)"), "Cut into three thirds"),
        (_layer("[value[n::3] for n in range(3)]"), "Every third row is taken"),
        (_layer(parts="cut(value) if kind == 'weight' else value.chunk(3)"), "the biases are cut into thirds"),
        (_layer(order="kqv"), "q and k are exchanged"),
        (_layer(order="qvk"), "k and v are exchanged"),
        (_layer("value.view(heads, 3, -1, *value.shape[1:]).flip(0).transpose(0, 1).flatten(1, 2)"), "reverse order"),
        (_layer(into="self_attn."), r"attention\.k\.bias, .*attention\.v\.weight are missing"),
        (_layer(given='{**ours, "attention.rotary.weight": value}'), "The block has no attention.rotary.weight"),
        (_layer("torch.stack([value, value, value])"), r"attention\.q\.weight must have shape \(48, 48\), got \(144"),
        (_layer(given="list(ours)"), "must return a dict of tensors by our names, got list"),
    ],
    "15.parting": [
        (_parting("bool(size(one - other) > tolerance)"), "layers differ in size"),
        (_parting("bool((one - other).mean().abs() > tolerance * size(other))"), "Differences of both signs cancel"),
        (_parting("bool((size(one) - size(other)).abs() > tolerance * size(other))"), "Sizes are compared"),
        (
            _parting("float(size(one - other) / size(other))", "far.index(max(far)) if max(far) > 1e-3 else len(far)"),
            "That is the worst layer",
        ),
        (_parting(first="max((n for n, a in enumerate(far) if a), default=len(far))"), "the last layer that is apart"),
        (_parting(first="far.index(False) if False in far else len(far)"), "not the first that is not"),
        (_parting(first="far.index(True) if True in far else 0"), "return how many there are"),
    ],
    "15.eight_bits": [
        (_bits("weight.abs().max() / 127"), "One scale for all"),
        (_bits("weight.abs().amax(dim=0) / 127"), "The scales are those of columns"),
        (_bits(whole="(weight / scale).floor()"), "Rounded down"),
        (_bits(whole="(weight / scale).to(torch.int8)"), "Cut off toward zero"),
        (_bits("weight.abs().amax(dim=1, keepdim=True) / 128"), "becomes 128"),
        (_bits("weight.abs().amax(dim=1, keepdim=True) / 255"), "becomes 255"),
        (_bits("weight.amax(dim=1, keepdim=True) / 127"), "sought among signed numbers"),
        (_bits(back="1"), "These are the whole numbers"),
        (_bits(whole="weight / scale"), "Nothing is rounded"),
    ],
    "15.gpu_bytes": [
        (_GPU.format("(8 * learning + 4 * frozen) / gpus + at_once * sample"), "AdamW is forgotten"),
        (_GPU.format("(12 * learning + 4 * frozen) / gpus + at_once * sample"), "One number is missing"),
        (_GPU.format("4 * (learning + frozen) / gpus + at_once * sample"), "Only the weights are counted"),
        (_GPU.format("(8 * learning + 2 * frozen) / gpus + at_once * sample"), "Numbers of 2 bytes"),
        (_GPU.format("16 * (learning + frozen) / gpus + at_once * sample"), "What is frozen has neither"),
        (_GPU.format("16 * learning / gpus + at_once * sample"), "What is frozen takes room, too"),
        (_GPU.format("(16 * learning + 4 * frozen + at_once * sample) / gpus"), "Samples are not divided"),
        (_GPU.format("16 * learning + 4 * frozen + at_once * sample"), "Each GPU has its part of the state only"),
        (_GPU.format("(16 * learning + 4 * frozen) / gpus + sample"), "One sample is counted"),
        (_GPU.format("(16 * learning + 4 * frozen) / gpus"), "What samples keep is forgotten"),
    ],
}
