"""The vision-language model: vision -> connector -> fusion -> language; a `Batch` in, an `Output` out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.answers import answer_loss, answer_targets
from minivlm.answers import answer_positions as answer_positions  # where all who read an `Output` find it
from minivlm.attention import LayerCache, capturing
from minivlm.batch import Batch
from minivlm.connectors.connector import Connector
from minivlm.connectors.separators import Separators
from minivlm.fusion.fusion import Fusion, FusionConfig, Interleaved
from minivlm.language.decoder import DecoderConfig
from minivlm.language.lora import add_lora
from minivlm.layout import Grid, Layout
from minivlm.seeing import Seeing
from minivlm.vision.vision import VisionConfig, check_layer


@dataclass(frozen=True)
class Output:
    """What a forward pass gives, always.

    logits  (B, L, V), a score for every next word at every position of the sequence
    loss    mean over the labelled words (and what the decoder adds while it trains: `Decoder.aside`), or None without
            labels
    layout  what stands at each of the L positions
    maps    with `capture`: what each site attended to, by its name; else empty
    """

    logits: Float[Tensor, "B L V"]
    loss: Float[Tensor, ""] | None
    layout: Layout
    maps: dict[str, Tensor]


@runtime_checkable
class ConnectorConfig(Protocol):
    def build(self, width: int, out_width: int, grid: Grid) -> Connector: ...


@dataclass(frozen=True)
class VLMConfig:
    """A design: its parts, and what the connector reads of the encoder: the state after `layer` (None = what it gives
    in the end), with the class token in front (`class_token`) or, as most do, without."""

    vision: VisionConfig
    connector: ConnectorConfig
    language: DecoderConfig
    image_id: int
    eos_id: int
    layer: int | None = -2
    class_token: bool = False
    fusion: FusionConfig = Interleaved()
    separators: Separators = Separators()

    def __post_init__(self):
        if self.class_token and not self.vision.class_token:
            raise ValueError("class_token: this encoder has none to hand on")
        check_layer(self.vision, self.layer)
        if self.separators.words and self.visual_width != self.language.width:
            raise ValueError(
                f"separators are words, {self.language.width} wide, and this fusion reads visual tokens of "
                f"{self.visual_width}: use none, or one width"
            )
        for name in ("image_id", "eos_id"):
            if not 0 <= getattr(self, name) < self.language.vocab_size:
                raise ValueError(
                    f"{name} {getattr(self, name)} is outside the vocabulary of {self.language.vocab_size}"
                )
        if max(self.separators.words, default=0) >= self.language.vocab_size:
            raise ValueError(
                f"separators {self.separators.words} are not all in the vocabulary of {self.language.vocab_size}"
            )

    @property
    def visual_width(self) -> int:
        """Of a visual token: what the fusion reads."""
        return self.fusion.visual_width or self.language.width

    @property
    def num_features(self) -> int:
        """How many vectors of a picture of the encoder's size the connector reads."""
        return self.features_of(self.vision.image_size)

    @property
    def num_tokens(self) -> int:
        """How many visual tokens such a picture becomes."""
        return self.tokens_of(self.vision.image_size)

    def features_of(self, size: tuple[int, int]) -> int:
        """How many vectors of a picture of that (height, width) the connector reads."""
        return sum(rows * cols for rows, cols in self.vision.views(size)) + self.class_token

    def tokens_of(self, size: tuple[int, int]) -> int:
        """How many visual tokens it becomes."""
        with torch.device("meta"):
            connector = self.make_connector()
        return len(self.separators.build(1).arrange(self.vision.views(size), connector)[0])

    def make_connector(self) -> Connector:
        """The connector alone, from the encoder's patches to vectors of the width that its fusion reads."""
        return self.connector.build(self.vision.width, self.visual_width, self.vision.grid)

    def build(self) -> VLM:
        return VLM(self)


class VLM(Seeing):
    """A decoder that sees: its encoder's patches, through its connector, meet its words as its fusion has it."""

    def __init__(self, config: VLMConfig):
        super().__init__(config)
        self.language = config.language.build()
        self.fusion = config.fusion.build(self.language)
        if self.language.inner is not self.language and type(self.fusion).blocks is not Fusion.blocks:
            raise ValueError(
                f"{type(self.language).__name__} routes the decoder's own blocks, and {type(self.fusion).__name__} "
                "runs others in their place: take an interleaved design"
            )
        self.adapter = nn.ModuleList()

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have weights: "vision", "connector", "separators" and "fusion" in designs that add some,
        "language", and "adapter" once there is one."""
        every = ("vision", "connector", "separators", "fusion", "language", "adapter")
        return tuple(name for name in every if next(getattr(self, name).parameters(), None) is not None)

    @property
    def image_token_id(self) -> int:
        return self.config.image_id

    def adapt_language(self, rank: int) -> None:
        """Give the decoder low-rank adapters: a part of its own, which can learn while "language" does not."""
        self.adapter = add_lora(self.language, rank)

    def forward(self, batch: Batch, capture: bool = False) -> Output:
        """Read a whole batch. `capture` also returns every attention map of this very pass; the numbers stay the
        same."""
        with capturing(self) if capture else nullcontext({}) as maps:
            hidden, layout = self._states(batch)
            logits = self.language.logits(hidden)
        aside = self.language.aside()
        loss = answer_loss(logits, layout, batch.labels) + aside if batch.labels is not None else None
        return Output(logits, loss, layout, maps)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The loss of `forward` alone. Scores, of which a large vocabulary has many, are made only at the places that
        have a labelled word to predict."""
        if batch.labels is None:
            raise ValueError("nothing to learn: give a batch with labels")
        hidden, layout = self._states(batch)
        rows, places, targets = answer_targets(layout, batch.labels, self.config.language.vocab_size)
        scores = self.language.logits(hidden[rows, places])  # (n, V)
        return F.cross_entropy(scores.float(), targets) + self.language.aside()

    def _states(self, batch: Batch) -> tuple[Float[Tensor, "B L D"], Layout]:
        """Hidden states of a whole batch, and what stands where."""
        x, layout, seen = self._sequence(batch)
        plain = batch.segments is None and batch.text_mask is None and self.fusion.causal
        return self._read(x, layout, seen, None if plain else self.fusion.mask(layout)), layout

    def encode(self, batch: Batch) -> tuple[Float[Tensor, "B L D"], Layout]:
        """Hidden states when every place sees all of its sample, ahead too, and what stands there: the decoder taken
        for an encoder, of pictures, of texts, and of both (BEiT-3)."""
        x, layout, seen = self._sequence(batch)
        return self._read(x, layout, seen, layout.encoder_mask()), layout

    @torch.no_grad()
    def generate(self, batch: Batch, max_new_tokens: int = 16) -> Int[Tensor, "B new"]:
        """Go on from the last word of each sample, the likeliest word each time, until all have said `eos_id`.

        Keys and values of earlier positions are kept, not computed again, nor is what the pictures became. After its
        end a sample is filled with `eos_id`.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        hidden, layout, mask, seen, cache = self._begin(batch, max_new_tokens)
        begun, said = mask.shape[-1] - max_new_tokens, []
        done = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
        while True:
            word = self.language.logits(hidden).argmax(dim=-1).masked_fill(done, self.config.eos_id)  # (B,)
            said.append(word)
            done = done | (word == self.config.eos_id)
            if done.all() or len(said) == max_new_tokens:
                return torch.stack(said, dim=1)
            step = self.language.embedding(word)[:, None]  # (B, 1, D)
            hidden = self._read(step, layout, seen, mask[..., : begun + len(said)], cache)[:, 0]
            layout = replace(layout, position=layout.position + 1)

    def _begin(self, batch: Batch, room: int) -> tuple[Tensor, Layout, Tensor, Any, list[LayerCache]]:
        """Read a batch, with a cache that has room for so many words more. Returns the state of each sample's last
        word, (B, D); the place after it; what each place to come may look at, (B, 1, 1, L + room); what the fusion has
        seen; and the cache."""
        x, layout, seen = self._sequence(batch)
        cache, mask = self.language.make_cache(x.shape[1] + room), self.fusion.mask(layout)
        hidden = self._read(x, layout, seen, mask, cache)
        rows, last = torch.arange(len(x), device=x.device), layout.lengths - 1
        later = F.pad(mask[rows, :, last, None], (0, room), value=True)
        return hidden[rows, last], layout.following(), later, seen, cache

    def train_only(self, *parts: str) -> None:
        """Let just these of its `parts` learn, freeze the rest, and say so."""
        unknown = set(parts) - set(self.parts)
        if unknown:
            raise ValueError(f"no part named {', '.join(sorted(unknown))}; this design has {', '.join(self.parts)}")
        for name in self.parts:
            getattr(self, name).requires_grad_(name in parts)
        picture = self._arranged([self.config.vision.views(self.config.vision.image_size)], 1)
        unread = [*self.vision.unread(self.config.layer), *self.connector.unread(), *self.fusion.unread(picture)]
        nn.ModuleList(unread).requires_grad_(False)
        adapters = set(self.adapter.parameters())  # they stand among the decoder's weights, too
        for name in self.parts:
            weights = [p for p in getattr(self, name).parameters() if name == "adapter" or p not in adapters]
            learns = sum(p.numel() for p in weights if p.requires_grad)
            print(f"{name:>10}: {learns:>12,} of {sum(p.numel() for p in weights):,} weights train")

    def _sequence(self, batch: Batch) -> tuple[Float[Tensor, "B L D"], Layout, Any]:
        """The vectors of the decoder's sequence, what they are, and what the fusion has seen of the pictures."""
        self._check(batch)
        count, visual = 1 if batch.visual is None else batch.visual.shape[:2].numel(), None
        pictures = self._views(batch, count)
        if batch.visual is not None:
            features = self.features(batch.images, batch.sizes) if batch.features is None else batch.features
            visual = self.connect(features, batch, pictures)
        mask = torch.ones_like(batch.input_ids, dtype=torch.bool) if batch.text_mask is None else batch.text_mask
        segments = torch.zeros_like(batch.input_ids) if batch.segments is None else batch.segments
        picture = self._arranged(pictures, 1 if visual is None else visual.shape[1])
        if not self.fusion.opens and picture.kind.ndim > 1:
            raise ValueError("words that look at pictures from outside need pictures of one size: resize them")
        layout = self.fusion.arrange(batch.input_ids, mask, segments, picture, self.image_token_id)
        x = self.fusion.enter(layout, self.language.embedding(batch.input_ids), visual)
        return x, layout, self.fusion.look(visual, layout)

    def _read(self, x: Tensor, layout: Layout, seen: Any, mask: Tensor | None, cache: Any = None) -> Tensor:
        """Hidden states, (B, L, D), of the places of `layout`, all or only the newest, as the fusion has them run."""
        blocks = self.fusion.blocks(self.language, layout, seen)
        return self.language(x, layout.position, mask, cache, blocks, self.fusion.final_norm(self.language, layout))
