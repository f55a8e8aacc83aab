"""Few shots: does a design follow the examples in its prompt, if its decoder follows them in words?

The decoder is frozen all along. What is new, the connector and what the fusion adds, learns on episodes: first the
shots are told in words and only what is asked about is a picture, then half of all, then everything is a picture. From
pictures alone it would not start: before a picture of a circle is to the decoder what the word is, there is nothing to
match it with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minivlm.compare import budgeted
from minivlm.data.episodes import RULES, sample_episodes
from minivlm.data.scenes import sample_scenes
from minivlm.evaluate import score_episodes
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLM
from minivlm.recipes import new_parts
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.storage import warm_start
from minivlm.streams import Bank, Shots, generator, pack_episodes
from minivlm.tables import Run, bundled_results, read, write
from minivlm.train import Stage, train_whole

COUNTS = (0, 1, 2, 4, 8)  # shots of the test; training has 2 to 6


@dataclass(frozen=True)
class Size:
    """Pictures in the bank, batch, steps of the three stages; episodes of each rule and number of shots in the test."""

    scenes: int
    batch_size: int
    steps: tuple[int, int, int]
    episodes: int


SIZES = {
    "smoke": Size(scenes=40, batch_size=4, steps=(2, 2, 2), episodes=10),
    "cpu": Size(scenes=2000, batch_size=64, steps=(500, 700, 1000), episodes=1000),
    "gpu": Size(scenes=20000, batch_size=256, steps=(500, 700, 1000), episodes=4000),
}


@dataclass(frozen=True)
class ShotResult(Run):
    """What one run came to: the share of episodes in which the right label was likelier than the other, after 0, 1, 2,
    4 and 8 shots, by rule; of pictures (`seen`), and of the same episodes told in words (`told`), which no training
    touches."""

    seen: dict[str, list[float]]
    told: dict[str, list[float]]
    machine: dict[str, str]


def few_shots(
    design: str,
    tokens: int | None,
    seed: int,
    scale: str | None = None,
    folder: str | Path = "runs/shots",
    precision: str | None = None,
) -> ShotResult:
    """Train a mini design (with `tokens` a picture, or its own number) on episodes and test it; what is found in
    `folder` is not run again."""
    scale = choose_scale(scale, SIZES)
    config, size = budgeted(design, tokens), SIZES[scale]
    path = Path(folder) / f"{design}-{config.num_tokens}-{scale}-seed{seed}.json"
    if not path.exists():
        torch.manual_seed(seed)
        model = warm_start(config.build()).to(pick_device())
        bank = Bank.make(model, sample_scenes(size.scenes, generator(seed, 0), max_objects=1))
        train_whole(model, stages(model, bank, size, seed + 1), precision=precision)
        test = Bank.make(model, sample_scenes(500, generator(77, 0), max_objects=1))
        seen, told = (examine(model, test, size.episodes, told) for told in (False, True))
        made = machine(precision)
        write(ShotResult(design, config.num_tokens, seed, scale, sum(size.steps), seen, told, made), path)
    return read(path, ShotResult)


def stages(model: VLM, bank: Bank, size: Size, seed: int) -> list[Stage]:
    """Shots in words, half in words, all in pictures; the decoder is frozen."""
    tokenizer = mini_tokenizer()
    new = new_parts(model)
    given = {"shots in words": dict(told=1.0, asked=False), "half in words": dict(told=0.5), "pictures": {}}
    return [
        Stage(name, Shots(tokenizer, bank, size.batch_size, seed=seed + n, **words), steps, lr=2e-3, trains=new)
        for n, ((name, words), steps) in enumerate(zip(given.items(), size.steps, strict=True))
    ]


def examine(
    model: VLM, bank: Bank, episodes: int, told: bool, counts: Sequence[int] = COUNTS
) -> dict[str, list[float]]:
    """The share of fixed test episodes on `bank` that are answered right, by rule, for each of the `counts` of shots;
    all in pictures, or all `told` in words."""
    tokenizer, device = mini_tokenizer(), next(model.parameters()).device
    shares = {rule: [] for rule in RULES}
    for rule in RULES:
        for shots in counts:
            sampled = sample_episodes(bank.scenes, episodes, shots, rule, generator(78, shots))
            right = 0
            for start in range(0, episodes, 100):
                some = sampled[start : start + 100]
                words = torch.full_like(some.scene, told, dtype=torch.bool)
                others = torch.tensor([tokenizer.encode(label)[0] for label in some.wrong()], device=device)
                batch = pack_episodes(tokenizer, some, bank, words).to(device)
                right += score_episodes(model, batch, others).right
            shares[rule].append(right / episodes)
    return shares


def bundled_shots(scale: str = "cpu") -> list[ShotResult]:
    """The runs of few shots that come with the package; an empty list for a scale that none were made at."""
    return bundled_results(scale, ShotResult, "shots-")
