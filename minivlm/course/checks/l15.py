"""Exercises of lesson 15: a layer converted by hand, the layer where two models part, weights in eight bits, and the
memory of a GPU on paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec, Mistake
from minivlm.planning import FROZEN, LEARNING
from minivlm.precision import rounded
from minivlm.pretrained import from_transformers
from minivlm.pretrained.decoders import PERSIMMON
from minivlm.pretrained.keys import rename, split_heads
from minivlm.pretrained.small import small_persimmon
from minivlm.runtime import pick_device
from minivlm.side_by_side import apart, outputs, twins

Named = list[tuple[str, Tensor]]
FUSED = "self_attn.query_key_value"
THEIRS, OURS = "model.layers.0.", "blocks.0."


def layer_names(theirs: nn.Module) -> dict[str, str]:
    """What the modules of the first block that keep their weights are called in theirs, and in ours."""
    named = {old: new for new, old in twins(theirs).items()}
    return {old.removeprefix(THEIRS): new.removeprefix(OURS) for old, new in named.items() if old.startswith(THEIRS)}


def convert_layer(weights: Named, names: Mapping[str, str], heads: int) -> dict[str, Tensor]:
    """The package's conversion of one block of Persimmon; it knows the names itself."""
    whole = split_heads({f"layers.0.{key}": value for key, value in weights}, heads)
    return {key.removeprefix(OURS): value for key, value in rename(whole, PERSIMMON).items()}


def check_layer(answer: Callable) -> None:
    theirs = small_persimmon(seed=151).to(pick_device())
    weights = list(theirs.model.layers[0].state_dict().items())
    names, heads, ids = layer_names(theirs), theirs.config.num_attention_heads, torch.arange(14).view(2, 7) + 5
    ids = ids.to(pick_device())
    want = outputs(theirs, ["model.layers.0"], lambda: theirs(input_ids=ids))["model.layers.0"]
    ours = from_transformers(theirs)

    def through(given: object) -> Tensor:
        _check_fit(given, ours.blocks[0])
        ours.blocks[0].load_state_dict(given)
        return outputs(ours, ["blocks.0"], lambda: ours(ours.embedding(ids)))["blocks.0"]

    def by(cut: Callable[[Tensor], Tensor], of_biases: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        return through(_renamed(weights, names, cut, of_biases or cut))

    def right(value: Tensor) -> Tensor:
        return value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(1, 2)

    def thirds(value: Tensor) -> Tensor:
        return value.unflatten(0, (3, -1))

    classics = {
        "Cut into three thirds: here each head has its own q, k and v, one head after the other.": by(thirds),
        "Every third row is taken: the rows of a head's q stand together.":
            by(lambda value: value.unflatten(0, (-1, 3)).transpose(0, 1)),
        "The weights are right, the biases are cut into thirds: they lie as the weights do.": by(right, thirds),
        "q and k are exchanged: of a head q is the first.": by(lambda value: right(value)[[1, 0, 2]]),
        "k and v are exchanged: of a head v is the last.": by(lambda value: right(value)[[0, 2, 1]]),
        "The heads come in reverse order.":
            by(lambda value: value.unflatten(0, (heads, 3, -1)).flip(0).transpose(0, 1).flatten(1, 2)),
    }  # fmt: skip
    compare(through(answer(weights, names, heads)), want, classics)


def _renamed(weights: Named, names: Mapping[str, str], cut: Callable, of_biases: Callable) -> dict[str, Tensor]:
    made = {}
    for key, value in weights:
        layer, _, kind = key.rpartition(".")
        if layer == FUSED:
            parts = (cut if kind == "weight" else of_biases)(value)
            made |= {f"attention.{name}.{kind}": part for name, part in zip("qkv", parts, strict=True)}
        else:
            made[f"{names[layer]}.{kind}"] = value
    return made


def _check_fit(given: object, block: nn.Module) -> None:
    """Mistake naming what the block misses in an answer, what it does not know, and what has another shape."""
    if not isinstance(given, dict):
        raise Mistake(f"It must return a dict of tensors by our names, got {type(given).__name__}.")
    wanted = block.state_dict()
    if missing := sorted(wanted.keys() - given.keys()):
        raise Mistake(f"The block has more weights than these: {', '.join(missing)} are missing.")
    if surplus := sorted(given.keys() - wanted.keys()):
        raise Mistake(f"The block has no {', '.join(map(str, surplus))}: look at the names of ours.")
    for key, value in wanted.items():
        if tuple(given[key].shape) != tuple(value.shape):
            raise Mistake(f"{key} must have shape {tuple(value.shape)}, got {tuple(given[key].shape)}.")


def first_parting(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> int:
    """The package's: the number of the first layer that is further apart than the tolerance, or how many there are."""
    return _first((ours, theirs, tolerance), apart)


def check_parting(answer: Callable) -> None:
    cases = [_outputs(seed) for seed in range(40)]

    def all_of(rule: Callable) -> Tensor:
        return torch.tensor([int(rule(*case)) for case in cases])

    def last(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> int:
        far = [apart(*pair) > tolerance for pair in zip(ours, theirs, strict=True)]
        return max((number for number, there in enumerate(far) if there), default=len(far))

    classics = {
        "The difference is taken as it is: layers differ in size, so divide by that of theirs.":
            lambda *case: _first(case, lambda one, other: _size(one - other)),
        "Differences of both signs cancel in a mean: square them, or take their absolute values, before it.":
            lambda *case: _first(case, lambda one, other: abs(float((one - other).mean())) / _size(other)),
        "Sizes are compared: two outputs of one size may be far apart. Subtract first.":
            lambda *case: _first(case, lambda one, other: abs(_size(one) - _size(other)) / _size(other)),
        "That is the worst layer: asked is the first, for all behind it read what it gave.": _worst,
        "That is the last layer that is apart: asked is the first.": last,
        "Asked is the first that is apart, not the first that is not.":
            lambda *case: _first(case, lambda one, other: 2 * case[2] * (apart(one, other) <= case[2])),
        "Where no layer is apart, return how many there are.":
            lambda *case: first_parting(*case) % len(case[0]),
    }  # fmt: skip
    compare(all_of(answer), all_of(first_parting), {message: all_of(rule) for message, rule in classics.items()})


def _first(case: tuple, how: Callable[[Tensor, Tensor], float]) -> int:
    ours, theirs, tolerance = case
    far = (number for number, pair in enumerate(zip(ours, theirs, strict=True)) if how(*pair) > tolerance)
    return next(far, len(ours))


def _worst(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> int:
    far = torch.tensor([apart(*pair) for pair in zip(ours, theirs, strict=True)])
    return int(far.argmax()) if far.max() > tolerance else len(ours)


def _size(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _outputs(seed: int) -> tuple[list[Tensor], list[Tensor], float]:
    """Six layers of very different sizes, rounded differently, that part at one of them, or, every eighth time, not."""
    chance = torch.Generator().manual_seed(1500 + seed)
    sizes = 10 ** (3 * torch.randn(6, generator=chance).clamp(-1.5, 1.5))
    theirs = [size * (draw(4, 8, seed=10 * seed + n) + 0.5) for n, size in enumerate(sizes.tolist())]
    start = 6 if seed % 8 == 7 else int(torch.randint(6, (), generator=chance))
    noise = [1e-6 if n < start else 0.2 * float(torch.rand((), generator=chance)) + 0.01 for n in range(6)]
    ours = [value + part * _size(value) * draw(4, 8, seed=700 + 10 * seed + n)
            for n, (value, part) in enumerate(zip(theirs, noise, strict=True))]  # fmt: skip
    if seed % 4 == 1:  # turned: of the same size, and another
        ours = [value if n < start else value.flip(0) for n, value in enumerate(theirs)]
    return ours, theirs, 1e-3


def in_eight_bits(weight: Tensor) -> Tensor:
    """The package's rounding of a map's weight (out, in), multiplied back."""
    whole, scale = rounded(weight)
    return whole * scale


def check_eight_bits(answer: Callable) -> None:
    weight = draw(6, 16, seed=152) * torch.tensor([3.0, 0.1, 1.0, 0.02, 5.0, 1.0], device=pick_device())[:, None]
    largest = weight.abs().amax(dim=1, keepdim=True)

    def by(scale: Tensor, to: Callable[[Tensor], Tensor] = torch.round) -> Tensor:
        return to(weight / scale) * scale

    classics = {
        "One scale for all: a row of small numbers becomes zeros. Each row has its own.": by(weight.abs().max() / 127),
        "The scales are those of columns: a row makes one number of what comes out, so each row has its own.":
            by(weight.abs().amax(dim=0, keepdim=True) / 127),
        "Rounded down: take the nearest whole number.": by(largest / 127, torch.floor),
        "Cut off toward zero: take the nearest whole number.": by(largest / 127, torch.trunc),
        "The largest becomes 128, for which 8 bits with a sign have no place: 127 is the most.": by(largest / 128),
        "The largest becomes 255: 8 bits with a sign end at 127.": by(largest / 255),
        "The largest is sought among signed numbers: -5 is larger than 3 here.":
            by(weight.amax(dim=1, keepdim=True) / 127),
        "These are the whole numbers: multiply them by the scale of their row again.":
            (weight / (largest / 127)).round(),
        "Nothing is rounded.": weight,
    }  # fmt: skip
    compare(answer(weight), in_eight_bits(weight), classics)


def gpu_bytes(learning: float, frozen: float, sample: float, gpus: int, at_once: int) -> float:
    """The package's count, as `Plan.memory_bytes` has it."""
    return (LEARNING * learning + FROZEN * frozen) / gpus + at_once * sample


def check_gpu_bytes(answer: Callable) -> None:
    cases = [(6.7e9, 0.3e9, 1.2e9, 8, 4), (2.1e7, 7.0e9, 0.9e9, 64, 2), (1.3e9, 0.0, 3.1e9, 1, 1)]

    def all_of(rule: Callable) -> Tensor:
        return torch.tensor([float(rule(*case)) for case in cases], dtype=torch.double) / 1e9

    def by(learns: float = LEARNING, rests: float = FROZEN) -> Callable:
        return lambda many, still, sample, gpus, at_once: (learns * many + rests * still) / gpus + at_once * sample

    classics = {
        "AdamW is forgotten: it keeps two numbers more of each weight that learns.": by(learns=8),
        "One number is missing of each weight that learns: a gradient, or one of AdamW's two.": by(learns=12),
        "Only the weights are counted: those that learn have a gradient and AdamW's two numbers beside them.":
            by(learns=4),
        "Numbers of 2 bytes: what learns is kept in 32 bits.": by(8, 2),
        "What is frozen has neither a gradient nor AdamW's numbers: 4 bytes a weight.": by(rests=16),
        "What is frozen takes room, too.": by(rests=0),
        "Samples are not divided by the GPUs: each GPU has so many of its own.":
            lambda many, still, sample, gpus, at_once: (16 * many + 4 * still + at_once * sample) / gpus,
        "Each GPU has its part of the state only: divide it by their number.":
            lambda many, still, sample, gpus, at_once: 16 * many + 4 * still + at_once * sample,
        "One sample is counted: there are several at once.":
            lambda many, still, sample, gpus, at_once: (16 * many + 4 * still) / gpus + sample,
        "What samples keep is forgotten.": lambda many, still, sample, gpus, at_once: (16 * many + 4 * still) / gpus,
    }  # fmt: skip
    compare(all_of(answer), all_of(gpu_bytes), {message: all_of(rule) for message, rule in classics.items()})


EXERCISES = {
    "15.layer": ExerciseSpec("One layer by hand", 3, convert_layer, check_layer),
    "15.parting": ExerciseSpec("Where two models part", 2, first_parting, check_parting),
    "15.eight_bits": ExerciseSpec("A weight in eight bits", 2, in_eight_bits, check_eight_bits),
    "15.gpu_bytes": ExerciseSpec("What a GPU must hold", 2, gpu_bytes, check_gpu_bytes),
}
