"""MMV on scenes that can be heard: pictures are trained with sounds and with captions, and sounds find captions.

The picture tower starts as the bundled CLIP's and stays as it is, and so do the word vectors, which are those of the
bundled decoder: it has only ever read. What hears, and the ways into both spaces, are learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.contrastive.mmv import MMV
from minivlm.data.captions import caption
from minivlm.data.scenes import Scenes, render, sample_scenes
from minivlm.data.tones import tones
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.pretrained.keys import load_exactly
from minivlm.storage import bundled
from minivlm.streams import generator
from minivlm.train import Stage, Step

OBJECTS = (2, 4)  # of a scene, fewest and most: one alone has too few captions, and four fill all beats


@dataclass(frozen=True)
class Size:
    batch_size: int
    steps: int


SIZES = {"smoke": Size(8, 5), "cpu": Size(128, 150), "gpu": Size(1024, 3000)}


@dataclass(frozen=True)
class Triples:
    """(pictures, log-mel spectrograms, captions), `candidates` captions a picture, one after the other: the first tells
    the scene, the others scenes that are not shown, as speech beside a video often does."""

    tokenizer: Tokenizer
    batch_size: int
    context: int
    candidates: int = 2
    seed: int = 0
    device: str | torch.device = "cpu"

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        told = sample_scenes(self.batch_size * self.candidates, chance, "train", *OBJECTS)
        texts = [caption(told[i], chance) for i in range(len(told))]
        here = slice(rows.start * self.candidates, rows.stop * self.candidates)
        scenes = told[here][slice(None, None, self.candidates)]
        images, audio = render(scenes, 64, self.device), tones(scenes.to(self.device))
        return Step((images, audio, self.tokenizer.pad(texts[here], self.context).to(self.device)), len(rows))


def start(model: MMV) -> MMV:
    """Give a mini model the bundled picture tower and word vectors, both frozen. Returns it."""
    load_exactly(model.vision, bundled("clip", "cpu").vision.state_dict())
    model.text.embedding.load_state_dict(bundled("decoder", "cpu").embedding.state_dict())
    model.vision.requires_grad_(False)
    return model


def stages(model: MMV, size: Size, seed: int = 0) -> list[Stage]:
    device = next(model.parameters()).device
    triples = Triples(mini_tokenizer(), size.batch_size, model.config.text.context, seed=seed, device=device)
    return [Stage("contrast", triples, size.steps, lr=2e-3)]


@torch.no_grad()
def embedded(model: MMV, scenes: Scenes, batch_size: int = 256) -> dict[str, Float[Tensor, "S _"] | None]:
    """Vectors of scenes: "image_fine", "image_coarse", "audio_fine", "audio_coarse" (None where there is no way), and
    those of their captions in reading order, "text"."""
    device, context = next(model.parameters()).device, model.config.text.context
    found = {}
    for first in range(0, len(scenes), batch_size):
        some = scenes[first : first + batch_size]
        texts = mini_tokenizer().pad([caption(some[i]) for i in range(len(some))], context)
        image, audio = model.encode_image(render(some, 64, device)), model.encode_audio(tones(some.to(device)))
        text = model.encode_text(texts.to(device))
        for name, part in zip(NAMES, (*image, *audio, text), strict=True):
            found.setdefault(name, []).append(part)
    return {name: None if parts[0] is None else torch.cat(parts) for name, parts in found.items()}


NAMES = ("image_fine", "image_coarse", "audio_fine", "audio_coarse", "text")


def ranks(query: Float[Tensor, "S E"], answers: Float[Tensor, "S E"]) -> Int[Tensor, " S"]:
    """How many answers are at least as near to a query as its own, itself among them: 1 is best."""
    near = query @ answers.T
    return (near >= near.diagonal()[:, None]).sum(dim=1)
