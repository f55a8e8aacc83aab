"""Recipes: what each kind of design is trained on, for how long, at each scale; and how the bundled weights are
made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minivlm import hearing, mini
from minivlm.batch import Batch
from minivlm.contrastive.mmv import MMV
from minivlm.contrastive.regions import RegionCLIP
from minivlm.data.scenes import CELLS, Scene, sample_scenes
from minivlm.data.tasks import TASKS, evaluation_bank
from minivlm.designs import build
from minivlm.evaluate import evaluate, mean_accuracy, table
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.model import VLM
from minivlm.pages import GlyphPages, PagePairs, PageTexts
from minivlm.pretrained.keys import load_exactly
from minivlm.runtime import pick_device, pick_scale
from minivlm.storage import load, save, warm_start
from minivlm.streams import Bank, CaptionPairs, Descriptions, Dialogs, Regions, Telegrams, generator
from minivlm.train import Source, Stage, train
from minivlm.vision.reading import Reader


@dataclass(frozen=True)
class Size:
    """How much a recipe does at one scale: scenes in the bank, batch, steps of each stage, questions a scene."""

    scenes: int
    batch_size: int
    align_steps: int
    steps: int
    per_scene: int = 8


VLM_SIZES = {
    "smoke": Size(scenes=64, batch_size=8, align_steps=3, steps=6),
    "cpu": Size(scenes=6000, batch_size=16, align_steps=100, steps=1200, per_scene=12),
    "gpu": Size(scenes=60000, batch_size=256, align_steps=200, steps=3000, per_scene=12),
}
CLIP_SIZES = {
    "smoke": Size(scenes=64, batch_size=32, align_steps=0, steps=5),
    "cpu": Size(scenes=0, batch_size=128, align_steps=0, steps=120),
    "gpu": Size(scenes=0, batch_size=1024, align_steps=0, steps=3000),
}

LANGUAGE = {"tuned": ("language",), "lora": ("adapter",), "frozen": ()}  # the parts that learn of the decoder
LORA_RANK = 8


def new_parts(model: VLM) -> tuple[str, ...]:
    """Its parts that are not pretrained: the connector, learned separators, and what the fusion adds."""
    return tuple(part for part in model.parts if part in ("connector", "separators", "fusion"))


def vlm_stages(
    model: VLM,
    size: Size,
    seed: int = 0,
    tasks: tuple[str, ...] = TASKS,
    bank: Bank | None = None,
    language: str = "tuned",
) -> list[Stage]:
    """`two_stages` on scenes.

    `bank`: scenes and features made earlier, for models that share an encoder (default: made here). `language`: what
    of the decoder learns in the second stage, a key of `LANGUAGE`; ValueError for another.
    """
    tokenizer = mini_tokenizer()
    bank = bank or Bank.make(model, sample_scenes(size.scenes, generator(seed, 0)))
    captions = Dialogs(tokenizer, bank, size.batch_size, captions=True, seed=seed)
    apart = model.connector.conditioned
    questions = Dialogs(tokenizer, bank, size.batch_size, tasks, size.per_scene, apart=apart, seed=seed + 1)
    return two_stages(model, captions, questions, size, language)


def two_stages(model: VLM, captions: Source, questions: Source, size: Size, language: str = "tuned") -> list[Stage]:
    """LLaVA's two stages: first the decoder stays as it is while all that is new (the connector, and what the fusion
    adds) learns to pass captions on, then the decoder learns to answer as well."""
    new = new_parts(model)
    return [
        Stage("align", captions, size.align_steps, lr=3e-3, trains=new),
        Stage("instruct", questions, size.steps, lr=1e-3, trains=(*new, *learning(language))),
    ]


def learning(language: str) -> tuple[str, ...]:
    """The parts of the decoder that learn in the second stage; ValueError for what is no key of `LANGUAGE`."""
    if language not in LANGUAGE:
        raise ValueError(f"unknown language {language!r}; choose one of {', '.join(LANGUAGE)}")
    return LANGUAGE[language]


def train_design(
    name: str, scale: str | None, seed: int, folder: str | Path, steps: int | None, data: str | None = None
) -> torch.nn.Module:
    """Train a mini design by its recipe, with checkpoints in `folder`. `steps` replaces those of every stage; `data`
    names a dataset on the hub, or a folder of shards, to learn from instead of scenes."""
    device = pick_device()
    scale = scale or pick_scale(device)
    torch.manual_seed(seed)
    model = _started(build(name, device="cpu")).to(device)
    if data is None:
        stages = _scene_stages(model, scale, seed)
    else:
        from minivlm.hub import hub_stages

        stages = hub_stages(model, data, scale, seed)
    if steps is not None:
        stages = [replace(stage, steps=steps) for stage in stages]
    train(model, stages, folder)
    return model


def _started(model: torch.nn.Module) -> torch.nn.Module:
    """With the pretrained parts that its kind begins with."""
    if isinstance(model, VLM):
        return warm_start(model)
    return hearing.start(model) if isinstance(model, MMV) else model


def _scene_stages(model: torch.nn.Module, scale: str, seed: int) -> list[Stage]:
    if isinstance(model, VLM):
        return vlm_stages(model, VLM_SIZES[scale], seed)
    if isinstance(model, MMV):
        return hearing.stages(model, hearing.SIZES[scale], seed)
    size, context, device = CLIP_SIZES[scale], model.config.text.context, next(model.parameters()).device
    pairs = CaptionPairs(mini_tokenizer(), size.batch_size, context, seed, device=device)
    return [Stage("contrast", pairs, size.steps, lr=1e-3)]


def evaluation_table(model: VLM, per_task: int) -> str:
    """Accuracy per task on the fixed bank of test questions, beside the same model without the pictures."""
    scenes, questions = evaluation_bank(per_task=per_task)
    features = Bank.make(model, scenes).features
    tokenizer = mini_tokenizer()
    sees = evaluate(model, tokenizer, questions, features)
    blind = evaluate(model, tokenizer, questions, features, blind=True)
    return f"{table(sees, blind)}\nmean {mean_accuracy(sees):.1%}, blind {mean_accuracy(blind):.1%}"


def answer(model: VLM, tokenizer: Tokenizer, image: Float[Tensor, "3 H W"], question: str) -> str:
    """What a model says to one question about one picture."""
    if not question.strip():
        raise ValueError('an empty question: ask something like "what color is the circle ?"')
    batch = Batch.pack(tokenizer, [[(question, "")]], images=image[None, None])
    return tokenizer.decode(model.generate(batch.to(next(model.parameters()).device))[0].tolist())


def pretrain_all(out: Path, runs: Path, seed: int = 0) -> None:
    """Make every bundled weight: a CLIP whose encoder most mini designs share, a decoder that reads scenes told in
    words, one that reads pages told in words too, a LLaVA-1.5 made of the first two, and encoders that have read pages.
    Each step resumes where it stopped."""
    pretrain_clip(out, runs, seed)
    pretrain_readers(out, runs, seed)
    pretrain_decoder(out, runs, seed)
    pretrain_page_decoder(out, runs, seed)
    pretrain_llava(out, runs, seed)
    (out / "README.md").write_text(weights_note(out), encoding="utf-8")


def weights_note(folder: Path) -> str:
    """What the trained models of a folder are, and what its LLaVA answers right, as Markdown."""
    made = evaluation_table(load(folder / "llava15.safetensors"), per_task=500)
    return f"""# Bundled weights

Made by `python -m minivlm pretrain`, on scenes that are drawn as they are needed. In 16 bits.

- `clip.safetensors`: a CLIP trained on scenes told whole and object by object; its picture tower is the encoder of
  most mini designs.
- `reader.safetensors`, `reader_any.safetensors`, `reader_two.safetensors`: encoders that have learned to say which
  glyphs stand where on a page: a tower of 64 pixels, one for pictures of any size, and two in one.
- `decoder.safetensors`: a decoder that has only ever read text: scenes told in words, and questions on them.
- `decoder_pages.safetensors`: the same after it has read about pages too.
- `llava15.safetensors`: a LLaVA-1.5 made of the first and the decoder, trained on questions about pictures.

The LLaVA on the fixed bank of test questions, where all combinations of colour and shape occur, trained on or not:

```
{made}
```
"""


def pretrain_clip(out: Path, runs: Path, seed: int) -> None:
    """A CLIP on scenes told whole and object by object, sparse ones first: the encoder of every mini design."""
    torch.manual_seed(seed)
    clip = build("clip", device=pick_device())
    device, grid = next(clip.parameters()).device, clip.config.vision.grid
    sparse = CaptionPairs(mini_tokenizer(), 128, context=32, seed=seed, objects=(1, 6), device=device, describe=partly)
    crowded = replace(sparse, seed=seed + 1, objects=(4, 9))
    mixed = replace(sparse, seed=seed + 2, objects=(1, 9))
    stages = [
        Stage("sparse scenes", Regions(sparse, grid), steps=900, lr=1.5e-3),
        Stage("crowded scenes", Regions(crowded, grid), steps=800, lr=1.5e-3),
        Stage("all scenes", Regions(mixed, grid), steps=1600, lr=1.5e-3),
    ]
    train(RegionCLIP(clip), stages, runs / "clip", precision="bf16", save_every=100)
    save(clip, out / "clip.safetensors", torch.float16)


def pretrain_readers(out: Path, runs: Path, seed: int) -> None:
    """The encoders that have read pages. All begin as the first: the one for pictures of any size with its places
    spread over a larger picture, the large one of the two in one with its places repeated, tile by tile, while the
    small one is the first itself and stays so."""
    torch.manual_seed(seed)
    source = GlyphPages(mini.reader(), 8, device=pick_device())
    pages = Stage("pages", replace(source, charts=False, seed=seed), 2500, lr=2e-3)
    charts = Stage("charts", replace(source, seed=seed + 1), 2500, lr=2e-3)
    reader = learn_to_read(Reader(mini.reader()), [pages, charts], runs / "reader")
    save(reader.vision, out / "reader.safetensors", torch.float16)
    learned = load(out / "reader.safetensors", "cpu").state_dict()
    places = learned["position_embedding"].unflatten(0, mini.reader().grid)  # (rows, cols, D)

    anything = Reader(mini.reader_any())
    spread = F.interpolate(places.movedim(-1, 0)[None], mini.reader_any().grid, mode="bicubic")[0].flatten(1).T
    load_exactly(anything.vision, learned | {"position_embedding": spread})
    source = replace(source, vision=mini.reader_any(), any_size=True, seed=seed + 2)
    learn_to_read(anything, [Stage("any size", source, 600, lr=1e-3)], runs / "reader_any")
    save(anything.vision, out / "reader_any.safetensors", torch.float16)

    two = Reader(mini.reader_two())
    load_exactly(two.vision.low, learned)
    two.vision.low.requires_grad_(False)
    shared = {key: value for key, value in learned.items() if key in two.vision.high.state_dict()}
    two.vision.high.load_state_dict(shared | {"position_embedding": places.repeat(2, 2, 1)}, strict=False)
    source = replace(source, vision=mini.reader_two(), any_size=False, seed=seed + 3)
    first = Stage("two", source, 800, lr=1e-3)
    learn_to_read(two, [first, Stage("two, on", replace(source, seed=seed + 4), 1600, lr=1.5e-3)], runs / "reader_two")
    save(two.vision, out / "reader_two.safetensors", torch.float16)


def learn_to_read(reader: Reader, stages: list[Stage], folder: Path) -> Reader:
    """Train it in place, with checkpoints in `folder`; returns it."""
    train(reader.to(pick_device()), stages, folder, precision="bf16", save_every=100)
    return reader


def partly(scene: Scene, chance: torch.Generator) -> str:
    """A caption of at most four of the objects, whichever come first in a shuffle."""
    kept = torch.randperm(len(scene.objects), generator=chance)[:4].tolist()
    told = (scene.objects[i] for i in kept)
    return " , ".join(f"a {o.describe()} at {CELLS[o.cell]}" for o in told)


def pretrain_decoder(out: Path, runs: Path, seed: int) -> None:
    """A decoder that has only ever read: pairs of words first, then sentences it must find one thing in, then all
    tasks on scenes told in words."""
    torch.manual_seed(seed)
    model = build("llava15", device=pick_device())
    finding = Descriptions(mini_tokenizer(), 16, ("COLOR", "SHAPE", "EXIST", "LOC"), objects=(4, 9), seed=seed + 1)
    answering = Descriptions(mini_tokenizer(), 16, per_scene=16, seed=seed + 2)
    stages = [
        Stage("read", Telegrams(mini_tokenizer(), 24, seed=seed), steps=700, lr=2e-3, trains=("language",)),
        Stage("find", finding, steps=1600, lr=1.5e-3, trains=("language",)),
        Stage("answer", answering, steps=2400, lr=1.5e-3, trains=("language",)),
    ]
    train(model, stages, runs / "decoder", save_every=100)
    save(model.language, out / "decoder.safetensors", torch.float16)


def pretrain_page_decoder(out: Path, runs: Path, seed: int) -> None:
    """The decoder, after it has read about pages as well: pairs of words first, then pages told in words."""
    torch.manual_seed(seed)
    model = warm_start(build("deepseek_vl", device="cpu")).to(pick_device())
    pairs, texts = PagePairs(mini_tokenizer(), 24, seed=seed), PageTexts(mini_tokenizer(), 16, seed=seed + 1)
    stages = [
        Stage("pairs", pairs, steps=800, lr=2e-3, trains=("language",)),
        Stage("pages", texts, steps=1000, lr=1.5e-3, trains=("language",)),
    ]
    train(model, stages, runs / "decoder_pages", precision="bf16", save_every=100)
    save(model.language, out / "decoder_pages.safetensors", torch.float16)


def pretrain_llava(out: Path, runs: Path, seed: int) -> None:
    """The mini LLaVA-1.5 that lesson 00 asks."""
    torch.manual_seed(seed)
    model = warm_start(build("llava15", device="cpu")).to(pick_device())
    train(model, vlm_stages(model, VLM_SIZES["cpu"], seed), runs / "llava15", save_every=100)
    save(model, out / "llava15.safetensors", torch.float16)
