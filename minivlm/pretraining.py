"""Pretraining: how every bundled weight is made, from scenes, pages and videos that are drawn as they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from minivlm import mini
from minivlm.contrastive.regions import RegionCLIP
from minivlm.data.scenes import CELLS, Scene
from minivlm.data.sightings import THINGS
from minivlm.data.watching import VIDEO_TASKS
from minivlm.designs import build
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.pages import GlyphPages, PagePairs, PageTexts
from minivlm.pretrained.keys import load_exactly
from minivlm.recipes import VLM_SIZES, evaluation_table, vlm_stages
from minivlm.runtime import pick_device
from minivlm.sighting import GRIDS, Following, Sighted, Sightings
from minivlm.storage import load, save, start_from, warm_start
from minivlm.streams import CaptionPairs, Descriptions, Regions, Telegrams
from minivlm.train import Stage, train_whole
from minivlm.vision.reading import Reader


def pretrain_all(out: Path, runs: Path, seed: int = 0) -> None:
    """Make every bundled weight: a CLIP whose encoder most mini designs share, a decoder that reads scenes told in
    words, one that reads pages told in words too, one that reads videos in exact words too, a LLaVA-1.5 made of the
    first two, and encoders that have read pages. Each step resumes where it stopped."""
    pretrain_clip(out, runs, seed)
    pretrain_readers(out, runs, seed)
    pretrain_decoder(out, runs, seed)
    pretrain_page_decoder(out, runs, seed)
    pretrain_video_decoder(out, runs, seed)
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
- `decoder_videos.safetensors`: the same after it has read videos too, each place of each frame in exact words.
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
    train_whole(RegionCLIP(clip), stages, runs / "clip", precision="bf16", save_every=100)
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
    train_whole(reader.to(pick_device()), stages, folder, precision="bf16", save_every=100)
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
    train_whole(model, stages, runs / "decoder", save_every=100)
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
    train_whole(model, stages, runs / "decoder_pages", precision="bf16", save_every=100)
    save(model.language, out / "decoder_pages.safetensors", torch.float16)


def pretrain_video_decoder(out: Path, runs: Path, seed: int) -> None:
    """The decoder, after it has read videos in exact words as well: a token a thing first, then a token a place of
    grids too, until it tells what happens, and when; then which way things move, which takes it a block more; at last
    with places that only their number tells, in one grid until it says where each is, then in all."""
    torch.manual_seed(seed)
    model = Sighted().to(pick_device())
    start_from(model.language, ("decoder",))
    tasks, moves = (*VIDEO_TASKS, "ORDER", "FLASH", "COUNT"), (*VIDEO_TASKS, "MOVE", "MOVE", "FLASH")
    things = Sightings(mini_tokenizer(), 32, (THINGS,), tasks, per_video=14, seed=seed)
    grids = replace(things, batch_size=16, views=(THINGS, (4, 4)), seed=seed + 1)
    by_place = replace(grids, views=(THINGS, *GRIDS), by_place=0.5, seed=seed + 2)
    ways = replace(grids, batch_size=24, tasks=moves, per_video=8, seed=seed + 3)
    everything = replace(by_place, views=(THINGS, 1, *GRIDS), tasks=moves, seed=seed + 5)
    by_number = replace(ways, views=((4, 4),), by_place=1.0, seed=seed + 6)
    any_grid = replace(ways, views=(1, *GRIDS, (8, 8)), by_place=0.75, seed=seed + 7)
    happens = [
        Stage("things", things, steps=1600, lr=2e-3, trains=("language",)),
        Stage("grids", grids, steps=600, lr=1.5e-3, trains=("language",)),
        Stage("places", by_place, steps=300, lr=1.5e-3, trains=("language",)),
    ]
    moving = [
        Stage("ways", ways, steps=900, lr=1.5e-3, trains=("language",)),
        Stage("by place", replace(by_place, seed=seed + 4), steps=1200, lr=1.5e-3, trains=("language",)),
        Stage("all", everything, steps=1500, lr=1.5e-3, trains=("language",)),
    ]
    where = [
        Stage("by number", by_number, steps=2000, lr=1.5e-3, trains=("language",)),
        Stage("any grid", any_grid, steps=1600, lr=1.5e-3, trains=("language",)),
    ]
    for name, stages, says in (
        ("happens", happens, Following(model, 2)),
        ("moving", moving, Following(model, 3)),
        ("where", where, Following(model, 3, placed=2)),
    ):
        train_whole(says, stages, runs / f"decoder_videos_{name}", save_every=50)
    save(model.language, out / "decoder_videos.safetensors", torch.float16)


def pretrain_llava(out: Path, runs: Path, seed: int) -> None:
    """The mini LLaVA-1.5 that lesson 00 asks."""
    torch.manual_seed(seed)
    model = warm_start(build("llava15", device="cpu")).to(pick_device())
    train_whole(model, vlm_stages(model, VLM_SIZES["cpu"], seed), runs / "llava15", save_every=100)
    save(model, out / "llava15.safetensors", torch.float16)
