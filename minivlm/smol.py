"""Does a real language model learn to name what it is shown? SmolLM2 in the place of a mini design's decoder answers in
sentences, on scenes and on emoji; the test is the category of emoji that no training shows.

Where pictures stand among the words, the decoder learns with low-rank adapters; where a fusion adds layers of its own
(looks from outside, or experts), these learn and the decoder stays as it is.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.choices import choice_scores
from minivlm.data.emoji import Emoji, emoji
from minivlm.data.naming import KIND, KINDS, NAME, kind_sentence
from minivlm.data.scenes import sample_scenes
from minivlm.evaluate import wilson
from minivlm.language.chat import ChatTokenizer
from minivlm.model import VLM
from minivlm.precision import PrecisionCost, precision_costs
from minivlm.recipes import LORA_RANK, new_parts
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.speaking import Sentences, TalkBank, say, with_smollm2
from minivlm.streams import generator
from minivlm.tables import Run, bundled_results, read, write
from minivlm.train import Stage, train_whole


@dataclass(frozen=True)
class Size:
    """Emoji in the bank (None: all) and scenes beside them, batch, steps while only what is new learns and steps of
    all, emoji in the test (None: all)."""

    emoji: int | None
    scenes: int
    batch_size: int
    align_steps: int
    steps: int
    test: int | None


SIZES = {
    "smoke": Size(emoji=12, scenes=4, batch_size=2, align_steps=2, steps=2, test=9),
    "cpu": Size(emoji=None, scenes=500, batch_size=8, align_steps=100, steps=500, test=None),
    "gpu": Size(emoji=None, scenes=2000, batch_size=64, align_steps=200, steps=2000, test=None),
}


@dataclass(frozen=True)
class SmolResult(Run):
    """What one run came to, on held-out emoji.

    learned   what of the decoder learned: "lora", or "frozen"
    losses    mean of the first and of the last tenth of the steps
    asked     how many emoji
    right     of how many the right category is the likeliest: by the model that "sees", by the same without the picture
              ("blind"), and by always saying the commonest category of training ("constant")
    log_prob  mean log-probability of the right category among all, of the first two
    said      a few emoji's names, and what the model says they are
    """

    learned: str
    losses: list[float]
    asked: int
    right: dict[str, int]
    log_prob: dict[str, float]
    said: dict[str, str]
    machine: dict[str, str]

    def interval(self, who: str) -> tuple[float, float]:
        """Wilson's 95 % interval of the share that is right."""
        return wilson(self.right[who], self.asked)


def smol_run(
    design: str,
    tokens: int | None,
    seed: int,
    scale: str | None = None,
    steps: int | None = None,
    folder: str | Path = "runs/smol",
    precision: str | None = None,
) -> SmolResult:
    """Teach SmolLM2 to see as that mini design does (with `tokens` a picture, or its own number), and test it; what is
    found in `folder` is not run again. `steps` replaces those of the last stage."""
    scale = choose_scale(scale, SIZES)
    size = SIZES[scale] if steps is None else replace(SIZES[scale], steps=steps)
    path = Path(folder) / f"{design}-{tokens or 'own'}-{scale}-{size.steps}-seed{seed}.json"
    if not path.exists():
        model, tokenizer, losses = taught(design, tokens, seed, size, path.with_suffix(""), precision)
        about = Run(design, model.config.num_tokens, seed, scale, len(losses))
        tenth = max(1, len(losses) // 10)
        result = SmolResult(
            **asdict(about),
            learned="lora" if len(model.adapter) else "frozen",
            losses=[statistics.mean(losses[:tenth]), statistics.mean(losses[-tenth:])],
            **examine(model, tokenizer, some(named("test"), size.test, 77)),
            machine=machine(precision),
        )
        write(result, path)
    return read(path, SmolResult)


def taught(
    design: str, tokens: int | None, seed: int, size: Size, folder: Path, precision: str | None = None
) -> tuple[VLM, ChatTokenizer, list[float]]:
    """A model trained so, its tokenizer, and the loss of every step. Checkpoints are in `folder`: a run that was
    stopped goes on, and one that was finished is opened again. ValueError for a design that routes its decoder."""
    torch.manual_seed(seed)
    model, tokenizer = with_smollm2(design, tokens)
    if model.language.inner is not model.language:
        raise ValueError(f"{design} routes the decoder's places, and the decoder stays: its routers would not learn")
    learned = new_parts(model)
    if "fusion" not in learned:
        model.adapt_language(LORA_RANK)
        learned = (*learned, "adapter")
    model.to(pick_device())
    bank = training_bank(model, size, seed)
    first, second = (Sentences(tokenizer, bank, size.batch_size, seed=2 * seed + number) for number in range(2))
    stages = [
        Stage("align", first, size.align_steps, lr=3e-3, trains=new_parts(model)),
        Stage("instruct", second, size.steps, lr=1e-3, trains=learned),
    ]
    losses = [record["loss"] for record in train_whole(model, stages, folder, precision)]
    return model.eval(), tokenizer, losses


def training_bank(model: VLM, size: Size, seed: int) -> TalkBank:
    """Emoji of the training split, and scenes of one or two objects."""
    scenes = sample_scenes(size.scenes, generator(seed, 0), max_objects=2)
    return TalkBank.of_emoji(model, some(named("train"), size.emoji, seed)) + TalkBank.of_scenes(model, scenes)


def named(split: str) -> list[Emoji]:
    """The emoji of a split that have one of the `KINDS`."""
    return [one for one in emoji(split) if one.category in KINDS]


def some(emojis: Sequence[Emoji], count: int | None, seed: int) -> list[Emoji]:
    """So many of them (None: all) in an order drawn with that seed."""
    return [emojis[i] for i in torch.randperm(len(emojis), generator=generator(seed, 1))[:count].tolist()]


def examine(model: VLM, tokenizer: ChatTokenizer, emojis: Sequence[Emoji]) -> dict[str, Any]:
    """What a `SmolResult` says of a trained model on these emoji."""
    features = TalkBank.of_emoji(model, emojis).features
    truth = torch.tensor([list(KINDS).index(one.category) for one in emojis])
    seen, blind = (kind_scores(model, tokenizer, given) for given in (features, None))
    scores = {"sees": seen, "blind": blind.expand_as(seen)}
    common = Counter(one.category for one in named("train")).most_common(1)[0][0]
    right = {who: int((given.argmax(dim=1) == truth).sum()) for who, given in scores.items()}
    return {
        "asked": len(emojis),
        "right": right | {"constant": sum(one.category == common for one in emojis)},
        "log_prob": {who: float(given.gather(1, truth[:, None]).mean()) for who, given in scores.items()},
        "said": dict(zip([one.name for one in emojis[:8]], say(model, tokenizer, features[:8], NAME), strict=True)),
    }


def kind_scores(
    model: VLM, tokenizer: ChatTokenizer, features: Float[Tensor, "S 1 N D"] | None
) -> Float[Tensor, "S kinds"]:
    """The log-probability of each of the `KINDS` among them all, of pictures as the model's encoder sees them."""
    sentences = [kind_sentence(category) for category in KINDS]
    return choice_scores(model, tokenizer, tokenizer.ask(KIND), sentences, features).log_softmax(dim=1)


def costs_of_fewer_bits(
    model: VLM, tokenizer: ChatTokenizer, emojis: Sequence[Emoji], rounds: int = 3
) -> list[PrecisionCost]:
    """What each precision costs a trained model on these emoji: reading their dialogs, and naming the right kind."""
    bank = TalkBank.of_emoji(model, emojis)
    truth = torch.tensor([list(KINDS).index(one.category) for one in emojis])

    def accuracy(one: VLM) -> float:
        return float((kind_scores(one, tokenizer, bank.features).argmax(dim=1) == truth).float().mean())

    return precision_costs(model, bank.pack(tokenizer, range(len(emojis))), accuracy, rounds)


def bundled_smol(scale: str = "cpu") -> list[SmolResult]:
    """The runs that come with the package; an empty list for a scale that none were made at."""
    return bundled_results(scale, SmolResult, "smol-")


def smol_table(results: Iterable[SmolResult]) -> str:
    """A Markdown table, a row a run: right categories in per cent with Wilson's 95 % interval, without the picture, and
    always the commonest; the mean log-probability of the right one, with and without the picture; and the loss."""
    head = ("design", "tokens", "decoder", "steps", "seed", "emoji", "right", "blind", "commonest",
            "log P", "log P blind", "loss")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for run in results:
        low, high = run.interval("sees")
        shares = {who: f"{run.right[who] / run.asked:.1%}" for who in run.right}
        cells = (run.design, run.tokens, run.learned, run.steps, run.seed, run.asked,
                 f"{shares['sees']} [{low:.1%}, {high:.1%}]", shares["blind"], shares["constant"],
                 *(f"{run.log_prob[who]:.2f}" for who in ("sees", "blind")),
                 " to ".join(f"{loss:.2f}" for loss in run.losses))  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
