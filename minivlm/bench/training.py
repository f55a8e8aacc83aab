"""How fast it trains: beside transformers and open_clip, packed beside not, compiled beside eager."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable

import torch
from torch import nn

from minivlm import mini
from minivlm.batch import Batch, each_apart
from minivlm.bench import rivals
from minivlm.bench.timing import Ratio, Work, alternate, ratio
from minivlm.data.scenes import render, sample_scenes
from minivlm.data.tasks import ask
from minivlm.designs import build
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.layers import Block
from minivlm.pretrained import from_transformers
from minivlm.runtime import pick_dtype
from minivlm.streams import generator


def step_of(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Work:
    """One step of training: loss and gradient (in 16 bits on a GPU that has them), then AdamW, in one kernel."""
    learning = [weight for weight in model.train().parameters() if weight.requires_grad]
    optimizer, device = torch.optim.AdamW(learning, lr=1e-5, fused=True), learning[0].device
    mixed = pick_dtype(device) == torch.bfloat16

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def llava_step(samples: int, rounds: int, device: str = "cpu", wanted: float = 1.0, words: int = 24) -> Ratio:
    """LLaVA, the same weights, pictures and words; everything trains."""
    theirs = rivals.llava().to(device)
    ours, work = from_transformers(theirs), rivals.task(samples, words, device)
    steps = {
        "ours": step_of(ours, lambda: ours.loss(work.batch)),
        "theirs": step_of(theirs, lambda: theirs(**work.theirs).loss),
    }
    took = alternate(steps, rounds)
    what = f"training step, {samples} pictures with {words} words"
    return ratio(what, ("llava15", took["ours"]), ("transformers' LLaVA", took["theirs"]), wanted)


def packed_and_apart(scenes: int, per_scene: int = 8, device: str = "cpu") -> tuple[nn.Module, Batch, Batch]:
    """The mini LLaVA-1.5, its encoder frozen; questions on some scenes, those on a picture in one sequence, with the
    features of its picture; and the same questions in a sequence each, with the picture itself."""
    torch.manual_seed(0)
    model, chance = build("llava15", device=device), generator(0, 0)
    model.vision.requires_grad_(False)
    drawn = sample_scenes(scenes, chance)
    dialogs = [[(q.text, q.answer) for q in asked] for asked in ask(drawn, chance, per_scene=per_scene)]
    images = render(drawn, model.config.vision.image_size, device)[:, None]
    single, pictures = each_apart(dialogs, torch.arange(scenes))
    packed = Batch.pack(mini_tokenizer(), dialogs, features=model.features(images).cpu()).to(device)
    return model, packed, Batch.pack(mini_tokenizer(), single, images=images.cpu()[pictures]).to(device)


def pairs(scenes: int, rounds: int, device: str = "cpu") -> Ratio:
    """Questions and answers that are learned in a second: packed, of kept features, scored where there is a label."""
    model, packed, apart = packed_and_apart(scenes, device=device)
    steps = {
        "packed": step_of(model, lambda: model.loss(packed)),
        "apart": step_of(model, lambda: model(apart).loss),
    }
    took = alternate(steps, rounds)
    what = f"learning {len(apart)} answers on {scenes} pictures, encoder frozen"
    return ratio(what, ("packed, features kept", took["packed"]), ("a sequence each", took["apart"]), wanted=3.0)


def compiled_step(samples: int, rounds: int, device: str = "cpu", words: int = 24) -> Ratio:
    """The same step with every block compiled. RuntimeError where there is no compiler (`no_compiler`)."""
    eager = from_transformers(rivals.llava().to(device))
    quick, work = compiled(copy.deepcopy(eager)), rivals.task(samples, words, device)
    steps = {
        "compiled": step_of(quick, lambda: quick.loss(work.batch)),
        "eager": step_of(eager, lambda: eager.loss(work.batch)),
    }
    took = alternate(steps, rounds)
    what = f"training step, {samples} pictures with {words} words"
    return ratio(what, ("llava15, compiled", took["compiled"]), ("llava15", took["eager"]), wanted=1.15)


def compiled(model: nn.Module) -> nn.Module:
    """The model, its blocks compiled when they first run."""
    for block in model.modules():
        if isinstance(block, Block):
            block.compile()
    return model


def no_compiler() -> str | None:
    """Why nothing can be compiled here, or None where it can: torch turns a program into C++ on a CPU."""
    if any(shutil.which(name) for name in ("g++", "clang++", "cl")):
        return None
    return "no C++ compiler (g++, clang++) is installed"


def clip_steps(samples: int, rounds: int, device: str = "cpu") -> list[Ratio]:
    """CLIP beside transformers' and open_clip's, each with the weights that ours is given. Texts are as long as can be:
    open_clip reads no others."""
    from open_clip.loss import ClipLoss

    work, open_loss = rivals.task(samples, mini.CONTEXT - 2, device), ClipLoss()
    images, ids = work.batch.images[:, 0], work.batch.input_ids
    theirs, opened = rivals.clip().to(device), rivals.open_clip().to(device)
    losses = {
        "transformers' CLIP": (theirs, lambda: theirs(ids, images, return_loss=True).loss),
        "open_clip's CLIP": (opened, lambda: open_loss(*opened(images, ids))),
    }
    ratios = []
    for name, (rival, loss) in losses.items():
        ours = from_transformers(rival)
        took = alternate({
            "ours": step_of(ours, lambda model=ours: model(images, ids).loss), "theirs": step_of(rival, loss)
        }, rounds)  # fmt: skip
        what = f"training step, {samples} pictures with texts of {mini.CONTEXT} words"
        ratios.append(ratio(what, ("clip", took["ours"]), (name, took["theirs"]), wanted=1.0))
    return ratios
