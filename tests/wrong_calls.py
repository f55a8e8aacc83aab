"""Calls that are wrong, each with the one error that it must get. Run as a program, it makes them all.

That happens in a process of its own, because the other tests check every shape at run time and would get in first: what
is tried here is what a user meets.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny
import torch
from safetensors.torch import save_file
from torch import nn

from minivlm import Batch, budget, build, from_transformers, load, mini, save, setup
from minivlm.__main__ import main
from minivlm.arena import Margins
from minivlm.attention import LayerCache, attend
from minivlm.connectors.separators import Separators
from minivlm.contrastive.mmv import GivenConfig
from minivlm.data.emoji import emoji
from minivlm.data.files import load_image, read_folder
from minivlm.data.scenes import Scenes, sample_scenes
from minivlm.data.tasks import ask
from minivlm.data.tones import tones
from minivlm.evaluate import zero_shot
from minivlm.figures import show
from minivlm.figures.training import accuracy_bars, curves, picture_grid
from minivlm.language.tokenizer import Tokenizer
from minivlm.model import VLM
from minivlm.pretrained.keys import load_exactly
from minivlm.recipes import VLM_SIZES, answer, vlm_stages
from minivlm.runtime import pick_scale
from minivlm.storage import warm_start
from minivlm.streams import generator
from minivlm.train import Stage, train

HERE = Path(tempfile.mkdtemp())
MODEL, CLIP, MMV = tiny.vlm().eval(), tiny.towers("clip").eval(), tiny.mmv().eval()
READER = tiny.reader().eval()
WORD, IMAGE = len(tiny.TOKENIZER) - 1, Tokenizer.image_id
IDS = torch.tensor([[1, IMAGE, WORD], [1, IMAGE, WORD]])
PICTURES = torch.rand(2, 1, 3, 16, 16)
SCENES = sample_scenes(4, generator(0, 0))


def batch(**changes) -> Batch:
    return replace(Batch(PICTURES, IDS), **changes)


def file(name: str, content: bytes | str = b"") -> Path:
    path = HERE / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def saved(name: str = "good.safetensors", model: nn.Module = MODEL) -> Path:
    save(model, HERE / name)
    return HERE / name


def truncated() -> Path:
    return file("truncated.safetensors", saved().read_bytes()[:-100])


def flipped() -> Path:
    """The right file, its header damaged."""
    content = bytearray(saved().read_bytes())
    content[20:40] = b"\xff" * 20
    return file("flipped.safetensors", bytes(content))


def foreign() -> Path:
    save_file({"w": torch.zeros(2)}, HERE / "foreign.safetensors")
    return HERE / "foreign.safetensors"


def swapped() -> Path:
    """The weights of one design under the configuration of another."""
    from minivlm.storage import _to_dict

    metadata = {"minivlm": json.dumps(_to_dict(CLIP.config))}
    save_file({k: v.contiguous() for k, v in MODEL.named_parameters()}, HERE / "swapped.safetensors", metadata)
    return HERE / "swapped.safetensors"


def pickled() -> Path:
    return file("weights.pt", pickle.dumps({"a": 1}))


def folder(line: str | bytes) -> Path:
    file("data.jsonl", line)
    return HERE


def stage(**changes) -> Stage:
    return replace(tiny.vlm_stages(MODEL)[0], **changes)


def adapted(rank: int = 2) -> VLM:
    model = tiny.vlm()
    model.adapt_language(rank)
    return model


def trained_elsewhere() -> None:
    """A run in the folder of a run of another model."""
    train(tiny.vlm(), [stage(steps=2)], HERE / "run", quiet=True)
    train(tiny.vlm(width=32), [stage(steps=2)], HERE / "run", quiet=True)


def shorter_stages() -> None:
    train(tiny.vlm(), [stage(steps=3)], HERE / "longer", quiet=True)
    train(tiny.vlm(), [stage(steps=2)], HERE / "longer", quiet=True)


def poisoned() -> None:
    """A model that has gone wrong says at which step."""
    model = tiny.vlm()
    with torch.no_grad():
        model.connector[0].weight[0] = torch.nan
    train(model, [stage()], quiet=True)


def with_environment(name: str, value: str, call: Callable[[], object]) -> None:
    os.environ[name] = value
    try:
        call()
    finally:
        del os.environ[name]


# what is tried: (the call, the error it must get, words that its message must hold)
CALLS: dict[str, tuple[Callable[[], object], type[BaseException], str]] = {
    # --- the batch and the model
    "ids are a list": (lambda: Batch(None, [[1, 2]]), TypeError, "input_ids must be an integer tensor"),
    "ids are floats": (lambda: Batch(None, torch.rand(2, 3)), TypeError, "integer tensor"),
    "ids without a batch": (lambda: Batch(None, torch.tensor([1, 2])), ValueError, "(B, T)"),
    "an empty batch": (lambda: Batch(None, IDS[:0]), ValueError, "B, T >= 1"),
    "no dialogs": (lambda: Batch.pack(tiny.TOKENIZER, []), ValueError, "empty batch"),
    "labels of another length": (lambda: batch(labels=IDS[:, :2]), ValueError, "labels must be (2, 3)"),
    "a mask of numbers": (lambda: batch(text_mask=torch.ones_like(IDS)), TypeError, "text_mask must be boolean"),
    "a sample without words": (lambda: batch(text_mask=torch.zeros(2, 3).bool()), ValueError, "no words"),
    "segments that go back": (lambda: batch(segments=torch.tensor([[0, 1, 0]] * 2)), ValueError, "must not decrease"),
    "an instruction in words": (lambda: batch(instruction="what is it ?"), TypeError, "integer tensor (B, P), got str"),
    "an instruction of floats": (lambda: batch(instruction=torch.rand(2, 3)), TypeError, "got torch.float32 (2, 3)"),
    "an instruction for one": (lambda: batch(instruction=IDS[:1]), ValueError, "(B, P) with B = 2, got (1, 3)"),
    "an instruction without a batch": (lambda: batch(instruction=IDS[0]), ValueError, "(B, P) with B = 2, got (3,)"),
    "a mask of no instruction": (lambda: batch(instruction_mask=IDS > 0), ValueError, "without an instruction"),
    "an instruction's mask of numbers": (
        lambda: batch(instruction=IDS, instruction_mask=IDS), ValueError, "instruction_mask must be boolean (2, 3)"
    ),
    "an instruction's mask of another length": (
        lambda: batch(instruction=IDS, instruction_mask=IDS[:, :2] > 0), ValueError, "got torch.bool (2, 2)"
    ),
    "a question that nobody told": (lambda: READER(batch()), ValueError, "give Batch an instruction"),
    "an instruction too long": (
        lambda: READER(batch(instruction=IDS.repeat(1, 4))), ValueError, "12 words: this Q-Former reads at most 9"
    ),
    "an instruction of the decoder's words": (
        lambda: READER(batch(instruction=IDS + 1000)), ValueError, "encode them with its tokenizer"
    ),
    "pictures and features": (lambda: batch(features=torch.rand(2, 1, 4, 16)), ValueError, "not both"),
    "pictures of bytes": (lambda: batch(images=(PICTURES * 255).byte()), TypeError, "float tensor"),
    "pictures without M": (lambda: batch(images=PICTURES[:, 0]), ValueError, "(B, M, 3, H, W)"),
    "fewer pictures than texts": (lambda: batch(images=PICTURES[:1]), ValueError, "B = 2"),
    "a grey picture": (lambda: MODEL(batch(images=PICTURES[:, :, :1])), ValueError, "(B, 3, H, W)"),
    "a picture of another size": (lambda: MODEL(batch(images=torch.rand(2, 1, 3, 17, 16))), ValueError, "17x16"),
    "a picture with NaN": (lambda: MODEL(batch(images=PICTURES / 0 * 0)), ValueError, "NaN"),
    "a picture with infinity": (lambda: MODEL(batch(images=PICTURES / 0)), ValueError, "infinite"),
    "features of another encoder": (
        lambda: MODEL(batch(images=None, features=torch.rand(2, 1, 4, 15))), ValueError, "(B, M, 4, 16)"
    ),
    "no <image> for a picture": (lambda: MODEL(batch(input_ids=IDS.clamp(min=4))), ValueError, "0 <image> ids"),
    "an <image> too many": (lambda: MODEL(batch(input_ids=IDS.clamp(max=IMAGE, min=IMAGE))), ValueError, "put one"),
    "an <image> without a picture": (lambda: MODEL(Batch(None, IDS)), ValueError, "0 pictures"),
    "ids beyond the vocabulary": (lambda: MODEL(batch(input_ids=IDS + 1000)), ValueError, "wrong tokenizer"),
    "negative ids": (lambda: MODEL(batch(input_ids=IDS - 5)), ValueError, "wrong tokenizer"),
    "nothing to be said": (lambda: MODEL(batch(labels=torch.full_like(IDS, -100))), ValueError, "label"),
    "labels beyond the vocabulary": (lambda: MODEL(batch(labels=IDS + 1000)), ValueError, "label"),
    "no new word wanted": (lambda: MODEL.generate(batch(), 0), ValueError, "at least 1"),
    "a part that is not there": (lambda: MODEL.train_only("eyes"), ValueError, "no part named eyes"),
    "an adapter of no rank": (lambda: adapted(0), ValueError, "rank"),
    "a second adapter": (lambda: adapted().adapt_language(2), ValueError, "has adapters already"),
    "an adapter that is not there": (lambda: MODEL.train_only("adapter"), ValueError, "no part named adapter"),
    "an empty question": (lambda: answer(MODEL, tiny.TOKENIZER, PICTURES[0, 0], " "), ValueError, "empty question"),
    # --- two towers
    "a text for a text tower": (lambda: CLIP.encode_text("a circle"), TypeError, "encode the text first"),
    "a text too long": (lambda: CLIP.encode_text(torch.full((1, 25), 5)), ValueError, "at most 24"),
    "no texts": (lambda: CLIP.encode_text(IDS[:0]), ValueError, "B, T >= 1"),
    "pictures of integers for CLIP": (lambda: CLIP(PICTURES[:, 0].int(), IDS), TypeError, "float tensor"),
    "no pictures for CLIP": (lambda: CLIP(PICTURES[:0, 0], IDS), ValueError, "B >= 1"),
    # --- pictures, sounds and texts
    "a waveform for a spectrogram": (lambda: MMV.encode_audio(torch.rand(2, 8192)), ValueError, "(A, 64, 64)"),
    "a spectrogram of integers": (lambda: MMV.encode_audio(torch.ones(2, 64, 64).long()), TypeError, "float tensor"),
    "the log of silence": (lambda: MMV.encode_audio(torch.zeros(2, 64, 64).log()), ValueError, "log of silence"),
    "words beyond the vocabulary of MMV": (lambda: MMV.encode_text(IDS + 1000), ValueError, "the vocabulary has"),
    "features of other backbones": (
        lambda: GivenConfig(2048).build()(torch.rand(2, 1024)), ValueError, "features (B, 2048)"
    ),
    "more objects than beats": (
        lambda: tones(sample_scenes(2, generator(0, 0), min_objects=6)), ValueError, "needs"
    ),
    # --- configurations and parts
    "an unknown design": (lambda: build("lava15"), ValueError, "did you mean llava15"),
    "a design that is a number": (lambda: build(15), ValueError, "unknown design 15"),
    "an unknown preset": (lambda: build("llava", "huge"), ValueError, "mini, published"),
    "a budget without a decoder": (lambda: budget("clip"), ValueError, "no decoder"),
    "a budget of no words": (lambda: budget("llava", words=-1), ValueError, "words"),
    "a budget of no pixels": (lambda: budget("fuyu", image_size=(0, 9)), ValueError, "0x9 pixels shows nothing"),
    "a budget of half a size": (lambda: budget("fuyu", image_size=(9,)), ValueError, "one side, or height and width"),
    "a budget of a word": (lambda: budget("fuyu", image_size="672x1008"), TypeError, "one side, or height and width"),
    "a budget of nothing": (lambda: budget(7), TypeError, "name of a design or the configuration of one, got int"),
    "heads that do not divide": (lambda: replace(mini.language(), heads=5), ValueError, "does not split into 5"),
    "a picture below a patch": (lambda: replace(mini.vision(), image_size=(4, 64)), ValueError, "no whole patch"),
    "an unknown activation": (lambda: replace(mini.vision(), activation="gelo"), ValueError, "known: "),
    "an unknown pool": (lambda: replace(mini.vision(), pool="max"), ValueError, "known: "),
    "a tag that is no tuple of words": (lambda: Separators(tags=(3, 4)), TypeError, "a tag is a tuple of words"),
    "no depth": (lambda: replace(mini.language(), depth=0), ValueError, "depth"),
    "a layer that is not there": (lambda: MODEL.vision.hidden(PICTURES[:, 0], -4), ValueError, "layer -4"),
    "an image id outside": (lambda: replace(MODEL.config, image_id=9999), ValueError, "outside the vocabulary"),
    "a mask and is_causal": (
        lambda: attend(*[torch.rand(1, 1, 2, 2)] * 3, torch.ones(2, 2).bool(), True), ValueError, "not both"
    ),
    "a cache that is full": (
        lambda: LayerCache(1).append(*[torch.rand(1, 1, 2, 2)] * 2), ValueError, "make a longer cache"
    ),
    "a model of no known class": (lambda: from_transformers(nn.Linear(1, 1)), TypeError, "known classes"),
    "weights that do not fit": (lambda: load_exactly(MODEL, CLIP.state_dict()), ValueError, "do not fit"),
    "a model of another size": (lambda: warm_start(tiny.vlm()), ValueError, "bundled weights are for"),
    # --- files
    "no such file": (lambda: load(HERE / "none.safetensors"), FileNotFoundError, "no file"),
    "a folder for a file": (lambda: load(HERE), FileNotFoundError, "no config.json"),
    "an empty file": (lambda: load(file("empty.safetensors")), ValueError, "not a whole safetensors file"),
    "a truncated file": (lambda: load(truncated()), ValueError, "copy or download it again"),
    "a damaged file": (lambda: load(flipped()), ValueError, "not a whole safetensors file"),
    "a pickle": (lambda: load(pickled()), ValueError, "is a pickle"),
    "a pickle by another name": (lambda: load(pickled().rename(HERE / "p.safetensors")), ValueError, "not a whole"),
    "a file of another program": (lambda: load(foreign()), ValueError, "not written by minivlm"),
    "weights of another design": (lambda: load(swapped()), ValueError, "do not fit"),
    "a model with adapters": (lambda: saved(model=adapted()), ValueError, "with adapters cannot be saved"),
    "a decoder with adapters": (
        lambda: saved(model=adapted().language), ValueError, "with adapters cannot be saved"
    ),
    "a picture that is a text": (lambda: load_image(file("a.png", "hello"), 64), ValueError, "not a picture"),
    "a picture that is not there": (lambda: load_image(HERE / "b.png", 64), ValueError, "no such picture"),
    "a folder without data": (lambda: read_folder(HERE / "nowhere"), ValueError, "no such file"),
    "a line that is no JSON": (lambda: read_folder(folder("{image: 1}")), ValueError, ":1: not a line of JSON"),
    "an answer that is empty": (
        lambda: read_folder(folder('{"image": "a.png", "question": "?", "answer": ""}')), ValueError, "answer is empty"
    ),
    "a picture outside the folder": (
        lambda: read_folder(folder('{"image": "../a.png", "caption": "x"}')), ValueError, "lies outside"
    ),
    # --- data
    "an unknown split": (lambda: sample_scenes(1, generator(0, 0), "dev"), ValueError, "train or test"),
    "ten objects": (lambda: sample_scenes(1, generator(0, 0), max_objects=10), ValueError, "max_objects <= 9"),
    "no scenes": (lambda: Scenes.from_list([]), ValueError, "at least one"),
    "an unknown task": (lambda: ask(SCENES, generator(0, 0), ["COLOUR"]), ValueError, "unknown tasks ['COLOUR']"),
    "an unknown emoji split": (lambda: emoji("dev"), ValueError, "split"),
    "an id that is no word": (lambda: tiny.TOKENIZER.decode([10_000]), ValueError, "outside the vocabulary"),
    "a word listed twice": (lambda: Tokenizer(["a", "a"]), ValueError, "names a word twice"),
    "a class without a text": (
        lambda: zero_shot(torch.rand(2, 4), torch.rand(0, 4).mean(0)[None], IDS[:, 0]), ValueError, "a single text"
    ),
    # --- training
    "no steps": (lambda: stage(steps=0), ValueError, "steps >= 1"),
    "a learning rate of 0": (lambda: stage(lr=0.0), ValueError, "lr > 0"),
    "a batch that does not split": (
        lambda: train(MODEL, [stage(micro_batches=3)], quiet=True), ValueError, "multiple of 3"
    ),
    "a loss that is not finite": (poisoned, FloatingPointError, "step 0"),
    "a folder of another model": (trained_elsewhere, ValueError, "another model"),
    "a folder of other stages": (shorter_stages, ValueError, "other stages"),
    "an unknown way of learning": (lambda: vlm_stages(MODEL, VLM_SIZES["smoke"], language="x"), ValueError, "tuned"),
    "an unknown scale": (
        lambda: with_environment("MINIVLM_SCALE", "huge", lambda: pick_scale(torch.device("cpu"))), ValueError, "smoke"
    ),
    "a seed that is no number": (lambda: with_environment("MINIVLM_SEED", "x", setup), ValueError, "no whole number"),
    # --- figures
    "a figure without words": (lambda: show(picture_grid(PICTURES[:, 0], ["a", "b"])[0], " "), ValueError, "alt"),
    "captions that do not match": (lambda: picture_grid(PICTURES[:, 0], ["a"]), ValueError, "2 pictures and 1"),
    "no curves": (lambda: curves({}), ValueError, "got 0"),
    "too many bars": (lambda: accuracy_bars({str(n): {} for n in range(20)}), ValueError, "got 20"),
    # --- an arena
    "margins of other seeds": (
        lambda: Margins(["a"], {"one": np.zeros((3, 1)), "other": np.zeros((2, 1))}), ValueError, "other (2, 1)"
    ),
    "margins of other questions": (
        lambda: Margins(["a"], {"one": np.zeros((3, 2)), "other": np.zeros((3, 2))}), ValueError, "must be (seeds, 1)"
    ),
    "margins without seeds": (
        lambda: Margins(["a"], {"one": np.zeros(1), "other": np.zeros(1)}), ValueError, "must be (seeds, 1)"
    ),
    "margins of no questions": (
        lambda: Margins([], {"one": np.zeros((3, 0)), "other": np.zeros((3, 0))}), ValueError, "of no questions"
    ),
    "margins in a list": (lambda: Margins(["a"], {"one": [[0.0]], "other": [[0.0]]}), TypeError, "one are a list"),
    # --- the command line, whose errors end the program with one line
    "asking about no picture": (lambda: main(["ask", "none.png", "what ?"]), SystemExit, "no such picture"),
    "asking two towers": (
        lambda: main(["ask", str(HERE / "a.png"), "what ?", "--model", str(saved("clip.safetensors", CLIP))]),
        SystemExit, "model that answers",
    ),
    "judging a file that is not there": (lambda: main(["eval", "none.safetensors"]), SystemExit, "no file"),
    "judging on nothing": (lambda: main(["eval", str(saved()), "--per-task", "0"]), SystemExit, "at least 1"),
    "training an unknown design": (lambda: main(["train", "lava"]), SystemExit, "did you mean"),
    "training for no steps": (
        lambda: main(["train", "llava", "--scale", "smoke", "--steps", "0", "--out", str(HERE / "o")]),
        SystemExit, "steps >= 1",
    ),
}  # fmt: skip


def attempt(call: Callable[[], object]) -> tuple[list[str], str]:
    """The class, with those it is a kind of, and the message of what a call raises."""
    try:
        call()
    except BaseException as error:
        return [kind.__name__ for kind in type(error).__mro__], str(error)
    return ["nothing"], ""


if __name__ == "__main__":
    sys.stdout = sys.stderr  # what the calls print; the results go to the real one
    for name, (call, _, _) in CALLS.items():
        print(json.dumps([name, *attempt(call)]), file=sys.__stdout__, flush=True)
    whole = saved()
    before = whole.read_bytes()
    for path in (truncated(), flipped(), swapped()):
        attempt(lambda path=path: load(path))
    print(
        json.dumps(["the good file", ["whole" if whole.read_bytes() == before else "spoilt"], ""]), file=sys.__stdout__
    )
