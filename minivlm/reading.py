"""Reading, by design: the same pages, questions, decoder and steps, so that only how the page is seen differs.

The encoders have read pages before and are frozen (`pretraining.pretrain_readers`), and the decoder has read pages told
in words (`pretraining.pretrain_page_decoder`). The connector learns to spell (`spelling`), then both learn to answer.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minivlm.compare import budgeted
from minivlm.data.reading import PAGE_TASKS, page_bank
from minivlm.data.typesetting import sample_pages
from minivlm.evaluate import evaluate
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLM, VLMConfig
from minivlm.pages import PageBank, PageDialogs
from minivlm.recipes import new_parts
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.spelling import PagePlaces, Spelling
from minivlm.storage import start_from, warm_start
from minivlm.streams import generator
from minivlm.tables import BLIND, Run, bundled_results, percent, read, write
from minivlm.train import Stage, train_whole


@dataclass(frozen=True)
class Size:
    """Pages in the bank; batch and steps of spelling, and of answering; proposals of questions a page; test questions a
    task."""

    pages: int
    spell_batch: int
    spell_steps: int
    batch_size: int
    steps: int
    per_page: int
    per_task: int


SIZES = {
    "smoke": Size(pages=24, spell_batch=4, spell_steps=2, batch_size=4, steps=2, per_page=6, per_task=6),
    "cpu": Size(pages=3000, spell_batch=64, spell_steps=1500, batch_size=16, steps=700, per_page=12, per_task=400),
    "gpu": Size(pages=40000, spell_batch=256, spell_steps=3000, batch_size=128, steps=3000, per_page=12, per_task=1000),
}


@dataclass(frozen=True)
class ReadingResult(Run):
    """What one run came to: the share of right answers a task on test pages, whose texts no training page shows."""

    trained_weights: int
    accuracy: dict[str, float]
    machine: dict[str, str]


def read_pages(
    design: str,
    seed: int,
    scale: str | None = None,
    folder: str | Path = "runs/reading",
    precision: str | None = None,
) -> ReadingResult:
    """Train a mini design (or variant, or "blind": the decoder without pages) to answer questions on pages, and test
    it; what is found in `folder` is not run again. ValueError for an unknown scale, or a design that cannot read."""
    scale = choose_scale(scale, SIZES)
    size, blind = SIZES[scale], design == BLIND
    config = budgeted("deepseek_vl" if blind else design, None)
    tokens = 0 if blind else config.num_tokens
    path = Path(folder) / f"{design}-{tokens}-{scale}-seed{seed}.json"
    if not path.exists():
        torch.manual_seed(seed)
        model = begun(config)
        bank = PageBank.make(model, sample_pages(size.pages, generator(seed, 0)))
        steps = learn(model, bank, size, seed + 1, blind, precision)
        pages, questions = page_bank(per_task=size.per_task)
        test = PageBank.make(model, pages)
        scores = evaluate(model, mini_tokenizer(), questions, test.features, blind=blind)
        accuracy = {task: scores[task].accuracy for task in PAGE_TASKS}
        learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
        made = machine(precision)
        write(ReadingResult(design, tokens, seed, scale, steps, learned, accuracy, made), path)
    return read(path, ReadingResult)


def begun(config: VLMConfig) -> VLM:
    """A mini design with an encoder that has read pages, and the decoder that has read about them."""
    model = warm_start(config.build())
    start_from(model.language, ("decoder_pages",))
    return model.to(pick_device())


def learn(model: VLM, bank: PageBank, size: Size, seed: int, blind: bool = False, precision: str | None = None) -> int:
    """Train in place; returns how many steps that took. A connector without places has nothing to spell."""
    spells = model.connector.pointwise and not blind
    if spells:
        places = PagePlaces.make(model, mini_tokenizer(), bank, size.spell_batch, seed)
        train_whole(Spelling(model), [Stage("spell", places, size.spell_steps, lr=3e-3)])
    questions = PageDialogs(mini_tokenizer(), bank, size.batch_size, per_page=size.per_page, blind=blind, seed=seed)
    learning = ("language",) if blind else (*new_parts(model), "language")
    train_whole(model, [Stage("answer", questions, size.steps, lr=1e-3, trains=learning)], precision=precision)
    return spells * size.spell_steps + size.steps


def readings_table(results: Sequence[ReadingResult]) -> str:
    """A Markdown table, a row a design, the best reader of needles first, the blind one last: accuracy in per cent,
    mean over seeds and half of the 95 % interval of that mean (Student's t)."""
    designs: dict[str, list[ReadingResult]] = {}
    for result in results:
        designs.setdefault(result.design, []).append(result)
    means = {name: statistics.mean(run.accuracy["NEEDLE"] for run in runs) for name, runs in designs.items()}
    lines = [
        f"| design | tokens | {' | '.join(PAGE_TASKS)} |",
        f"| --- | ---: | {' | '.join('---:' for _ in PAGE_TASKS)} |",
    ]
    for name in sorted(designs, key=lambda name: (name == BLIND, -means[name])):
        cells = (percent([run.accuracy[task] for run in designs[name]]) for task in PAGE_TASKS)
        lines.append(f"| {name} | {designs[name][0].tokens or '-'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bundled_readings(scale: str = "cpu") -> list[ReadingResult]:
    """The runs whose results come with the package."""
    return bundled_results(scale, ReadingResult, "reading-")
