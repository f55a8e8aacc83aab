"""MMV: pictures, sounds and texts in a fine and a coarse space, where sounds and texts that never met in training can
be compared (Alayrac et al. 2020, arXiv:2006.16228).

Token count: a picture, a sound and a text become one vector each. Equal to `mmv/models/mm_embeddings.py` of the
released code from the backbones' features on; the backbones of that code (TSM-ResNet50 over frames, ResNet50 over a
log-mel spectrogram) are not here, so a published model takes their features.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.attention import capturing
from minivlm.contrastive.graphs import GRAPHS
from minivlm.contrastive.towers import check_ids, gathered
from minivlm.layers import check_positive
from minivlm.vision.spectrogram import SpectrogramViTConfig
from minivlm.vision.vit import ViTConfig

TEMPERATURE = 0.07


@dataclass(frozen=True)
class GivenConfig:
    """A backbone that is elsewhere: its features, `width` numbers each, are what the model is called with."""

    width: int

    def build(self) -> Given:
        return Given(self)


class Given(nn.Module):
    def __init__(self, config: GivenConfig):
        super().__init__()
        self.config = config

    def forward(self, features: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B 1 D"], Float[Tensor, "B D"]]:
        """As a tower gives them: all tokens, here one, and one vector."""
        if features.ndim != 2 or features.shape[1] != self.config.width:
            got = tuple(features.shape)
            raise ValueError(f"this model is given features (B, {self.config.width}) of its backbones, got {got}")
        return features[:, None], features


@dataclass(frozen=True)
class WordsConfig:
    """At most `context` ids to a vector of `width`, from word vectors of `word_width`. `pad_id` is not read; None: it
    is read as a word like others, as the released code does."""

    vocab_size: int
    context: int
    word_width: int
    width: int
    pad_id: int | None

    def __post_init__(self):
        check_positive(vocab_size=self.vocab_size, context=self.context, word_width=self.word_width, width=self.width)


class BagOfWords(nn.Module):
    """Each number of a text's vector is its strongest word's: neither order nor repetition counts. The word vectors
    stay as they are (word2vec's, in the published model); only what is made of them is learned."""

    def __init__(self, config: WordsConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.word_width)
        self.embedding.requires_grad_(False)
        self.projection = nn.Linear(config.word_width, config.width)

    def forward(self, input_ids: Int[Tensor, "T L"]) -> Float[Tensor, "T D"]:
        check_ids(input_ids, self.config.vocab_size, self.config.context)
        words = F.relu(self.projection(self.embedding(input_ids)))  # (T, L, D)
        if self.config.pad_id is not None:
            words = words * (input_ids != self.config.pad_id)[..., None]  # no number is below 0, so 0 never wins
        return words.amax(dim=1)


@dataclass(frozen=True)
class MMVConfig:
    """Backbones, the widths of the two spaces, and the `graph` that leads into them: "fac", "shared" or "disjoint"."""

    vision: ViTConfig | GivenConfig
    audio: SpectrogramViTConfig | GivenConfig
    text: WordsConfig
    fine: int
    coarse: int
    graph: str = "fac"

    def __post_init__(self):
        check_positive(fine=self.fine, coarse=self.coarse)
        if self.graph not in GRAPHS:
            raise ValueError(f"unknown graph {self.graph!r}; choose one of {', '.join(GRAPHS)}")

    def build(self) -> MMV:
        return MMV(self)


@dataclass(frozen=True)
class MMVOutput:
    """Cosines over the temperature, of every picture with every sound, in the fine space, of every picture with every
    text and of every sound with every text, in the coarse one. `audio_text` is None where no way leads there: in a
    disjoint graph, and while fine and coarse are trained. `loss` is None unless there are one sound and as many texts
    a picture. `maps` as in `minivlm.model.Output`."""

    image_audio: Float[Tensor, "I A"]
    image_text: Float[Tensor, "I T"]
    audio_text: Float[Tensor, "A T"] | None
    loss: Float[Tensor, ""] | None
    maps: dict[str, Tensor]


class MMV(nn.Module):
    def __init__(self, config: MMVConfig):
        super().__init__()
        self.config = config
        self.vision, self.audio, self.text = config.vision.build(), config.audio.build(), BagOfWords(config.text)
        widths = (config.vision.width, config.audio.width, config.text.width)
        self.graph = GRAPHS[config.graph](*widths, config.fine, config.coarse)

    def encode_image(self, images: Float[Tensor, "I *picture"]) -> tuple[Float[Tensor, "I F"], Float[Tensor, "I C"]]:
        """Vectors of length 1 in the fine and in the coarse space."""
        fine, coarse = self.graph.image(self.vision(images)[1])
        return F.normalize(fine, dim=-1), F.normalize(coarse, dim=-1)

    def encode_audio(
        self, audio: Float[Tensor, "A *sound"]
    ) -> tuple[Float[Tensor, "A F"], Float[Tensor, "A C"] | None]:
        """As `encode_image`; the second is None where no way leads from sounds to the coarse space."""
        fine, coarse = self.graph.audio(self.audio(audio)[1])
        return F.normalize(fine, dim=-1), None if coarse is None else F.normalize(coarse, dim=-1)

    def encode_text(self, input_ids: Int[Tensor, "T L"]) -> Float[Tensor, "T C"]:
        """Vectors of length 1 in the coarse space."""
        return F.normalize(self.graph.text(self.text(input_ids)), dim=-1)

    def forward(
        self,
        images: Float[Tensor, "I *picture"],
        audio: Float[Tensor, "A *sound"],
        input_ids: Int[Tensor, "T L"],
        capture: bool = False,
    ) -> MMVOutput:
        """All three comparisons, and the loss where sound i, and texts i*K to i*K + K-1 of I*K, belong to picture i."""
        with capturing(self) if capture else nullcontext({}) as maps:
            image_fine, image_coarse = self.encode_image(images)
            audio_fine, audio_coarse = self.encode_audio(audio)
            text = self.encode_text(input_ids)
        loss = None
        if len(images) == len(audio) and len(text) % len(images) == 0:
            loss = nce_loss(image_fine, audio_fine) + nce_loss(image_coarse, text)
        return MMVOutput(
            image_fine @ audio_fine.T / TEMPERATURE,
            image_coarse @ text.T / TEMPERATURE,
            None if audio_coarse is None else audio_coarse @ text.T / TEMPERATURE,
            loss,
            maps,
        )


def nce_loss(image: Float[Tensor, "B E"], other: Float[Tensor, "BK E"]) -> Float[Tensor, ""]:
    """-log of the share that a picture's own pairs have among those and all wrong pairs: this picture with others'
    sounds or texts, and others' pictures with this one's. Averaged over pictures; over all processes' pairs.

    With K candidates a picture (MIL-NCE) it is enough if one of them fits. Equations 2 and 3 of the paper; released
    code of the same authors (MIL-NCE's, VATT's) counts each own pair a second time below the line.
    """
    (all_images, start), (all_others, _) = gathered(image), gathered(other)
    count, total = len(image), len(all_images)
    from_image = (image @ all_others.T).view(count, total, -1) / TEMPERATURE  # (B, all, K)
    to_image = (all_images @ other.T).view(total, count, -1).transpose(0, 1) / TEMPERATURE  # (B, all, K)
    own = F.one_hot(torch.arange(count, device=image.device) + start, total).bool()  # (B, all)
    right = from_image[own]  # (B, K)
    wrong = torch.cat([from_image, to_image], dim=2).masked_fill(own[..., None], -torch.inf).flatten(1)
    return (torch.cat([right, wrong], dim=1).logsumexp(dim=1) - right.logsumexp(dim=1)).mean()
