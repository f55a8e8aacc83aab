"""How fast it says words, the likeliest each time: beside transformers' `generate`, the same weights; eager, compiled,
and on a GPU as a captured graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from minivlm.bench import rivals
from minivlm.bench.timing import Ratio, Work, alternate, ratio
from minivlm.decoding import FixedDecoding
from minivlm.model import VLM
from minivlm.pretrained import from_transformers

RIVAL = "transformers' generate"


def saying(
    samples: int,
    words: int,
    rounds: int,
    ways: dict[str, tuple[Callable | None, float]],
    device: str = "cpu",
    prompt: int = 24,
) -> list[Ratio]:
    """So many words after a picture and a prompt, for each of the `ways`: what makes its step faster (None:
    `VLM.generate` as it is), and the ratio that is wanted. First of all words, then of those after the first alone, for
    which picture and prompt need not be read. RuntimeError where both do not say the same."""
    theirs = rivals.llava().to(device).eval()
    ours, work = from_transformers(theirs), rivals.task(samples, prompt, device, labelled=False)
    works: dict[str, Work] = {
        f"{name}, {count}": speaker(count)
        for count in (1, words)
        for name, speaker in (
            (RIVAL, lambda count: _theirs(theirs, work, count)),
            *((way, lambda count, made=made: _ours(ours, work, count, made[0])) for way, made in ways.items()),
        )
    }
    said = {name: work() for name, work in works.items() if name.endswith(f", {words}")}
    for name, spoken in said.items():
        if spoken.shape[1] != words or not torch.equal(spoken, said[f"{RIVAL}, {words}"]):
            raise RuntimeError(f"{name} words: {spoken.shape[1]} came, or not those of {RIVAL}: times say nothing")
    took = alternate(works, rounds)
    return [made for way, (_, wanted) in ways.items() for made in _ratios(took, way, wanted, samples, words)]


def _ratios(took: dict[str, list[float]], way: str, wanted: float, samples: int, words: int) -> list[Ratio]:
    whole, later = ({}, {})
    for name in (way, RIVAL):
        whole[name], first = took[f"{name}, {words}"], took[f"{name}, 1"]
        later[name] = [max(full - start, 1e-3) for full, start in zip(whole[name], first, strict=True)]
    what = f"{words} words, batch {samples}"
    return [
        ratio(told, (way, times[way]), (RIVAL, times[RIVAL]), wanted)
        for told, times in ((f"{what}, with reading", whole), (f"{what}, after the first", later))
    ]


def _theirs(model: nn.Module, work: rivals.Task, words: int) -> Work:
    mask, length = torch.ones_like(work.theirs["input_ids"]), work.theirs["input_ids"].shape[1]
    asked = dict(**work.theirs, attention_mask=mask, max_new_tokens=words, do_sample=False)
    return lambda: model.generate(**asked)[:, length:]


def _ours(model: VLM, work: rivals.Task, words: int, faster: Callable | None) -> Work:
    if faster is None or words == 1:
        return lambda: model.generate(work.batch, words)
    fixed = FixedDecoding(model, work.batch, words, faster)
    return lambda: fixed(work.batch)
