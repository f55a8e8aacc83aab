"""Speaking: a real language model, SmolLM2, in the place of the mini decoder; and sentences on pictures to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.batch import Batch
from minivlm.compare import budgeted
from minivlm.connectors.separators import LEARNED, Separators
from minivlm.data.emoji import Emoji, load_images
from minivlm.data.naming import tell_emoji, tell_scene
from minivlm.data.scenes import Scenes, render
from minivlm.language.chat import ChatTokenizer
from minivlm.language.decoder import Decoder
from minivlm.language.depths import DepthsConfig
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLM, VLMConfig
from minivlm.pretrained import smollm2
from minivlm.pretrained.keys import load_exactly
from minivlm.storage import start_encoder
from minivlm.streams import generator
from minivlm.train import Step


def with_smollm2(
    design: str, tokens: int | None = None, opened: tuple[Decoder, ChatTokenizer] | None = None
) -> tuple[VLM, ChatTokenizer]:
    """A mini design (with `tokens` a picture, or its own number) whose decoder is SmolLM2 with its weights, and whose
    encoder is a bundled one; and the tokenizer. `opened`: a decoder and its tokenizer in SmolLM2's place.

    ValueError for a design whose connector reads the question: it knows none of these words. ImportError where the
    package with the weights is missing.
    """
    decoder, tokenizer = opened or _open()
    model = spoken(budgeted(design, tokens), decoder, tokenizer).build()
    start_encoder(model)
    load_exactly(getattr(model.language, "decoder", model.language), decoder.state_dict())
    model.fusion.start_from(model.language)
    return model.eval(), tokenizer


def _open() -> tuple[Decoder, ChatTokenizer]:
    decoder, real = smollm2()
    return decoder, ChatTokenizer(real)


def spoken(config: VLMConfig, decoder: Decoder, tokenizer: ChatTokenizer) -> VLMConfig:
    """The design with another decoder and its words. Layers that it adds stand as far apart, in shares of the depth."""
    if config.make_connector().conditioned:
        raise ValueError(f"{type(config.connector).__name__} reads the question, and knows none of SmolLM2's words")
    language, fusion = config.language, config.fusion
    if hasattr(fusion, "every"):
        fusion = replace(fusion, every=fusion.every * max(1, decoder.config.depth // language.depth))
    routed = isinstance(language, DepthsConfig)
    return replace(
        config,
        language=replace(language, decoder=decoder.config) if routed else decoder.config,
        image_id=tokenizer.image_id,
        eos_id=tokenizer.eos_id,
        fusion=fusion,
        separators=_retold(config.separators, tokenizer),
    )


def _retold(separators: Separators, tokenizer: ChatTokenizer) -> Separators:
    """The same in the words of `tokenizer`: a new line for a newline, tags spelled as they were."""
    newline = separators.newline
    if newline not in (None, LEARNED):
        [newline] = tokenizer.encode("\n")
    tags = (tag if LEARNED in tag else tokenizer.encode(mini_tokenizer().decode(tag)) for tag in separators.tags)
    return replace(separators, newline=newline, tags=tuple(map(tuple, tags)))


@dataclass(frozen=True)
class TalkBank:
    """Pictures as a frozen encoder sees them, computed once, and the questions and answers on each."""

    features: Float[Tensor, "S 1 N D"]
    dialogs: list[list[tuple[str, str]]]

    def pack(self, tokenizer: ChatTokenizer, chosen: Sequence[int]) -> Batch:
        """Those pictures, each with all of its dialog in the chat format."""
        dialogs = [[(tokenizer.ask(q), a) for q, a in self.dialogs[i]] for i in chosen]
        return Batch.pack(tokenizer, dialogs, features=self.features[list(chosen)])

    def __add__(self, other: TalkBank) -> TalkBank:
        return TalkBank(torch.cat([self.features, other.features]), self.dialogs + other.dialogs)

    @classmethod
    def of_emoji(cls, model: VLM, emojis: Sequence[Emoji]) -> TalkBank:
        images = load_images(emojis, model.config.vision.image_size[0])
        return cls(see(model, images), [tell_emoji(emoji) for emoji in emojis])

    @classmethod
    def of_scenes(cls, model: VLM, scenes: Scenes) -> TalkBank:
        images = render(scenes, model.config.vision.image_size)
        return cls(see(model, images), [tell_scene(scenes[i]) for i in range(len(scenes))])


@torch.no_grad()
def see(model: VLM, images: Float[Tensor, "S 3 H W"], batch_size: int = 128) -> Float[Tensor, "S 1 N D"]:
    """What the model's encoder makes of pictures."""
    device = next(model.parameters()).device
    return torch.cat([model.features(part[:, None].to(device)).cpu() for part in images.split(batch_size)])


@dataclass(frozen=True)
class Sentences:
    """Batches of a bank's pictures with their dialogs."""

    tokenizer: ChatTokenizer
    bank: TalkBank
    batch_size: int
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        chosen = torch.randint(len(self.bank.dialogs), (self.batch_size,), generator=chance)[rows.start : rows.stop]
        batch = self.bank.pack(self.tokenizer, chosen.tolist())
        return Step((batch,), int((batch.labels >= 0).sum()))


def say(
    model: VLM, tokenizer: ChatTokenizer, features: Float[Tensor, "S 1 N D"], question: str, most: int = 24
) -> list[str]:
    """What the model answers to a question about each picture, in at most `most` words or pieces of words."""
    batch = Batch.pack(tokenizer, [[(tokenizer.ask(question), "")]] * len(features), features=features)
    said = model.generate(batch.to(next(model.parameters()).device), most)
    return [tokenizer.decode(row) for row in said.tolist()]
