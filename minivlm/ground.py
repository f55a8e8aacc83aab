"""Does squeezing a picture into few tokens cost place? Designs learn to say where things are, with all but the
connector alike: encoder and decoder are those of the bundled LLaVA-1.5, which can answer, and learn words for places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from minivlm.compare import budgeted
from minivlm.data.referring import referents
from minivlm.data.scenes import sample_scenes
from minivlm.grounding import Grounding, locate_all, name_all, with_places
from minivlm.language.tokenizer import grounded_tokenizer
from minivlm.model import VLM, VLMConfig
from minivlm.pretrained.keys import load_exactly
from minivlm.recipes import new_parts
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.storage import bundled
from minivlm.streams import Bank, generator
from minivlm.tables import Run, bundled_results, interval, read, write
from minivlm.train import Stage, train_whole

CELLS = 32  # places along each side, as published; here 2 pixels each
MOST = 4  # objects in a scene: with nine, telling them apart takes most of the training


@dataclass(frozen=True)
class Size:
    """Scenes in the bank, batch, steps, scenes of the test."""

    scenes: int
    batch_size: int
    steps: int
    test: int


SIZES = {
    "smoke": Size(scenes=40, batch_size=4, steps=3, test=10),
    "cpu": Size(scenes=12000, batch_size=16, steps=4000, test=300),
    "gpu": Size(scenes=30000, batch_size=128, steps=3000, test=1000),
}


@dataclass(frozen=True)
class GroundResult(Run):
    """What one run came to, on test scenes.

    scenes how many different ones training shows
    iou    mean IoU of said and true box, over objects whose colour and shape training shows together
    found  share of them with an IoU of at least 0.5
    novel  mean IoU over the other objects
    blind  mean IoU of the same model without the picture
    named  share of boxes whose object is named right: size, colour and shape
    """

    scenes: int
    iou: float
    found: float
    novel: float
    blind: float
    named: float
    machine: dict[str, str]


def ground(
    design: str,
    tokens: int | None,
    seed: int,
    scale: str | None = None,
    steps: int | None = None,
    scenes: int | None = None,
    folder: str | Path = "runs/ground",
    precision: str | None = None,
) -> GroundResult:
    """Teach a mini design (with `tokens` a picture, or its own number) places, and test it; what is found in `folder`
    is not run again. `steps` replaces those of the scale, `scenes` the size of its bank."""
    scale = choose_scale(scale, SIZES)
    config, size = budgeted(design, tokens), SIZES[scale]
    size = replace(size, steps=steps or size.steps, scenes=scenes or size.scenes)
    path = Path(folder) / f"{design}-{config.num_tokens}-{scale}-{size.scenes}-{size.steps}-seed{seed}.json"
    if not path.exists():
        torch.manual_seed(seed)
        model = start(config).to(pick_device())
        bank = Bank.make(model, sample_scenes(size.scenes, generator(seed, 0), max_objects=MOST))
        train_whole(model, stages(model, bank, size, seed + 1), precision=precision)
        run = Run(design, config.num_tokens, seed, scale, size.steps)
        scores = examine(model, size.test)
        write(GroundResult(**vars(run), scenes=size.scenes, **scores, machine=machine(precision)), path)
    return read(path, GroundResult)


def start(config: VLMConfig) -> VLM:
    """A design with encoder and decoder of the bundled LLaVA-1.5 (its connector too, where that is the design's), and
    words for places."""
    model, answering = config.build(), bundled("llava15", "cpu")
    load_exactly(model.vision, answering.vision.state_dict())
    load_exactly(model.language, answering.language.state_dict())
    if config.connector == answering.config.connector:
        load_exactly(model.connector, answering.connector.state_dict())
    return with_places(model, CELLS)


def stages(model: VLM, bank: Bank, size: Size, seed: int) -> list[Stage]:
    """What is new and the decoder learn places together."""
    places = Grounding(grounded_tokenizer(CELLS), bank, size.batch_size, seed=seed)
    return [Stage("ground", places, size.steps, lr=2e-3, trains=(*new_parts(model), "language"))]


def examine(model: VLM, scenes: int) -> dict[str, float]:
    """The scores of a `GroundResult` on so many test scenes, always the same."""
    tokenizer = grounded_tokenizer(CELLS)
    bank = Bank.make(model, sample_scenes(scenes, generator(77, 0), "test", max_objects=MOST))
    found = referents(bank.scenes)
    located, blind = (locate_all(model, tokenizer, found, bank.features, without) for without in (False, True))
    known = [item.iou for item in located if not item.referent.novel]
    return {
        "iou": mean(known),
        "found": mean(value >= 0.5 for value in known),
        "novel": mean(item.iou for item in located if item.referent.novel),
        "blind": mean(item.iou for item in blind if not item.referent.novel),
        "named": mean(name_all(model, tokenizer, found, bank.features)),
    }


def bundled_grounding(scale: str = "cpu") -> list[GroundResult]:
    """The runs that come with the package; an empty list for a scale that none were made at."""
    return bundled_results(scale, GroundResult, "grounding-")


def grounding_table(results: Iterable[GroundResult]) -> str:
    """A Markdown table, a row for each design and number of tokens, scenes and steps, best mean IoU first: means over
    seeds, with half of the 95 % interval where there are several."""
    rows: dict[tuple[str, int, int, int], list[GroundResult]] = {}
    for result in results:
        rows.setdefault((result.design, result.tokens, result.scenes, result.steps), []).append(result)
    scores = {"iou": "mean IoU", "found": "IoU >= 0.5", "novel": "new combinations", "blind": "blind",
              "named": "boxes named right"}  # fmt: skip
    head = ("design", "tokens", "scenes", "steps", "seeds", *scores.values())
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for what, runs in sorted(rows.items(), key=lambda row: -mean(run.iou for run in row[1])):
        cells = [_cell([getattr(run, name) for run in runs]) for name in scores]
        lines.append(f"| {' | '.join(map(str, what))} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    middle, half = interval(values)
    return f"{middle:.2f}" if math.isnan(half) else f"{middle:.2f} ± {half:.2f}"
