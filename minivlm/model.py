"""The vision-language model: vision -> connector -> fusion -> language; a `Batch` in, an `Output` out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.attention import capturing
from minivlm.fusion.interleave import interleave, merge
from minivlm.language.llama import LlamaConfig
from minivlm.layout import Layout
from minivlm.vision.vit import ViTConfig, check_images

IGNORE = -100  # the label of a token that is not to be learned


@runtime_checkable
class Encodes(Protocol):
    """What `Batch.pack` needs of a tokenizer."""

    pad_id: int
    bos_id: int
    eos_id: int
    image_id: int

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Batch:
    """Pictures and words of B samples. The text holds ONE `<image>` id a picture, whatever the design makes of it.

    images     (B, M, 3, H, W) float in [0, 1], or None where there are none or `features` are given instead
    input_ids  (B, T) int
    labels     (B, T) int, what is to be said at each place; `IGNORE` (-100) = not to be learned
    text_mask  (B, T) bool, False = padding (default: no padding)
    segments   (B, T) int, not decreasing; 0 = shared, n = seen only by the n-th question (default: all shared)
    features   (B, M, N, D) float, what `VLM.features` made of the pictures earlier
    """

    images: Float[Tensor, "B M 3 H W"] | None
    input_ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"] | None = None
    text_mask: Bool[Tensor, "B T"] | None = None
    segments: Int[Tensor, "B T"] | None = None
    features: Float[Tensor, "B M N D"] | None = None

    def __post_init__(self):
        ids = self.input_ids
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"input_ids must be an integer tensor (B, T), got {_described(ids)}")
        if ids.ndim != 2 or ids.numel() == 0:
            raise ValueError(f"input_ids must be (B, T) with B, T >= 1, got {tuple(ids.shape)}")
        self._check_text()
        self._check_visual()

    def _check_text(self) -> None:
        for name in ("labels", "text_mask", "segments"):
            value = getattr(self, name)
            if value is not None and value.shape != self.input_ids.shape:
                raise ValueError(
                    f"{name} must be {tuple(self.input_ids.shape)} like input_ids, got {tuple(value.shape)}"
                )
        if self.text_mask is not None and self.text_mask.dtype != torch.bool:
            raise TypeError(f"text_mask must be boolean (True = a word), got {self.text_mask.dtype}")
        if self.text_mask is not None and not self.text_mask.any(dim=1).all():
            raise ValueError("a sample has no words at all: text_mask is False in a whole row")
        if self.segments is not None and (self.segments.diff(dim=1) < 0).any():
            raise ValueError(
                "segments must not decrease along a sample: the shared part first, then question after question"
            )

    def _check_visual(self) -> None:
        if self.images is not None and self.features is not None:
            raise ValueError("give images or features, not both: features stand in for the pictures they were made of")
        for name, value, ndim in (("images", self.images, 5), ("features", self.features, 4)):
            if value is None:
                continue
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise TypeError(f"{name} must be a float tensor, got {_described(value)}")
            if value.ndim != ndim or len(value) != len(self.input_ids):
                wanted = "(B, M, 3, H, W)" if name == "images" else "(B, M, N, D)"
                raise ValueError(f"{name} must be {wanted} with B = {len(self.input_ids)}, got {tuple(value.shape)}")

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> Batch:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if v is not None else None for k, v in moved.items()})

    def blind(self, image_id: int) -> Batch:
        """The same words without the pictures: what a model without eyes would be given."""
        words = self.input_ids != image_id
        return replace(
            self, images=None, features=None, text_mask=words if self.text_mask is None else words & self.text_mask
        )

    @classmethod
    def pack(
        cls,
        tokenizer: Encodes,
        dialogs: Sequence[Sequence[tuple[str, str]]],
        images: Float[Tensor, "B M 3 H W"] | None = None,
        features: Float[Tensor, "B M N D"] | None = None,
        contexts: Sequence[str] | None = None,
    ) -> Batch:
        """One sequence a sample: its pictures (and a text that all may read, its context), then every (question,
        answer) of its dialog as a segment of its own, so that no question sees another and one picture's tokens serve
        them all. Learned: the answers and their end.

        An empty answer leaves the question open, for `VLM.generate`; an empty question makes a caption of the answer.
        """
        if len(dialogs) == 0:
            raise ValueError("an empty batch: dialogs holds no sample")
        visual = images if images is not None else features
        pictures = visual.shape[1] if visual is not None else 0
        prefix = [tokenizer.bos_id] + [tokenizer.image_id] * pictures
        contexts = [""] * len(dialogs) if contexts is None else contexts
        rows = [
            _pack_row(tokenizer, prefix + tokenizer.encode(context), dialog)
            for context, dialog in zip(contexts, dialogs, strict=True)
        ]
        length = max(len(ids) for ids, _, _ in rows)

        def padded(column: int, fill: int) -> Tensor:
            return torch.tensor([row[column] + [fill] * (length - len(row[column])) for row in rows])

        lengths = torch.tensor([len(ids) for ids, _, _ in rows])
        segments = padded(2, max(max(row[2]) for row in rows))
        mask = torch.arange(length) < lengths[:, None]
        return cls(images, padded(0, tokenizer.pad_id), padded(1, IGNORE), mask, segments, features)


def _pack_row(tokenizer: Encodes, prefix: list[int], dialog: Sequence[tuple[str, str]]) -> tuple[list, list, list]:
    ids, labels, segments = list(prefix), [IGNORE] * len(prefix), [0] * len(prefix)
    for number, (question, answer) in enumerate(dialog, start=1):
        asked = tokenizer.encode(question)
        said = tokenizer.encode(answer) + [tokenizer.eos_id] if answer else []
        ids += asked + said
        labels += [IGNORE] * len(asked) + said
        segments += [number] * len(asked + said)
    return ids, labels, segments


def _described(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


@dataclass(frozen=True)
class Output:
    """What a forward pass gives, always.

    logits  (B, L, V), a score for every next word at every position of the sequence
    loss    mean over the labelled words, or None without labels
    layout  what stands at each of the L positions
    maps    with `capture`: what each site attended to, by its name; else empty
    """

    logits: Float[Tensor, "B L V"]
    loss: Float[Tensor, ""] | None
    layout: Layout
    maps: dict[str, Tensor]


@runtime_checkable
class ConnectorConfig(Protocol):
    def build(self, width: int, out_width: int) -> nn.Module: ...


@dataclass(frozen=True)
class VLMConfig:
    """A design: its three parts, and which state of the encoder the connector reads (`layer`; None = after the final
    norm). The class token, where the encoder has one, is dropped."""

    vision: ViTConfig
    connector: ConnectorConfig
    language: LlamaConfig
    image_id: int
    eos_id: int
    layer: int | None = -2

    def __post_init__(self):
        for name in ("image_id", "eos_id"):
            if not 0 <= getattr(self, name) < self.language.vocab_size:
                raise ValueError(
                    f"{name} {getattr(self, name)} is outside the vocabulary of {self.language.vocab_size}"
                )

    def build(self) -> VLM:
        return VLM(self)


class VLM(nn.Module):
    """A decoder that sees: its encoder's patches, through its connector, stand among its words."""

    PARTS = ("vision", "connector", "language")

    def __init__(self, config: VLMConfig):
        super().__init__()
        self.config = config
        self.vision = config.vision.build()
        self.connector = config.connector.build(config.vision.width, config.language.width)
        self.language = config.language.build()

    @property
    def image_token_id(self) -> int:
        return self.config.image_id

    def features(self, images: Float[Tensor, "B M 3 H W"]) -> Float[Tensor, "B M N D"]:
        """What the connector reads, (B, M, N, D); made once for a frozen encoder and given back as `Batch.features`."""
        flat = images.flatten(0, 1)  # (B*M, 3, H, W)
        check_images(flat, self.config.vision.image_size)
        layer = self.config.layer
        states = self.vision(flat)[0] if layer is None else self.vision.hidden(flat, layer)
        return states[:, int(self.config.vision.class_token) :].unflatten(0, images.shape[:2])  # (B, M, N, D)

    def forward(self, batch: Batch, capture: bool = False) -> Output:
        """Read a whole batch. `capture` also returns every attention map of this very pass; the numbers stay the
        same."""
        with capturing(self) if capture else nullcontext({}) as maps:
            x, layout = self._sequence(batch)
            plain = batch.segments is None and batch.text_mask is None
            hidden = self.language(x, layout.position, None if plain else layout.attention_mask())
            logits = self.language.logits(hidden)
        loss = answer_loss(logits, layout, batch.labels) if batch.labels is not None else None
        return Output(logits, loss, layout, maps)

    @torch.no_grad()
    def generate(self, batch: Batch, max_new_tokens: int = 16) -> Int[Tensor, "B new"]:
        """Go on from the last word of each sample, the likeliest word each time, until all have said `eos_id`.

        Keys and values of earlier positions are kept, not computed again. After its end a sample is filled with
        `eos_id`.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        x, layout = self._sequence(batch)
        cache = self.language.make_cache(x.shape[1] + max_new_tokens)
        mask = layout.attention_mask()
        hidden = self.language(x, layout.position, mask, cache)
        rows, last = torch.arange(len(x), device=x.device), layout.lengths - 1
        hidden, position, seen = hidden[rows, last], layout.position[rows, last], mask[rows, :, last]  # seen (B, 1, L)
        done, said = torch.zeros_like(rows, dtype=torch.bool), []
        while True:
            word = self.language.logits(hidden).argmax(dim=-1).masked_fill(done, self.config.eos_id)  # (B,)
            said.append(word)
            done = done | (word == self.config.eos_id)
            if done.all() or len(said) == max_new_tokens:
                return torch.stack(said, dim=1)
            position = position + 1
            seen = F.pad(seen, (0, 1), value=True)
            step = self.language.embedding(word)[:, None]  # (B, 1, D)
            hidden = self.language(step, position[:, None], seen[:, :, None], cache)[:, 0]

    def train_only(self, *parts: str) -> None:
        """Let just these parts learn ("vision", "connector", "language"), freeze the rest, and say so."""
        unknown = set(parts) - set(self.PARTS)
        if unknown:
            raise ValueError(f"no part named {', '.join(sorted(unknown))}; this design has {', '.join(self.PARTS)}")
        for name in self.PARTS:
            getattr(self, name).requires_grad_(name in parts)
        for module in self.vision.unread(self.config.layer):
            module.requires_grad_(False)
        for name in self.PARTS:
            weights = list(getattr(self, name).parameters())
            learns = sum(p.numel() for p in weights if p.requires_grad)
            print(f"{name:>10}: {learns:>12,} of {sum(p.numel() for p in weights):,} weights train")

    def _sequence(self, batch: Batch) -> tuple[Float[Tensor, "B L D"], Layout]:
        self._check(batch)
        visual = None
        if batch.images is not None or batch.features is not None:
            features = batch.features if batch.features is not None else self.features(batch.images)
            visual = self.connector(features.flatten(0, 1)).unflatten(0, features.shape[:2])  # (B, M, K, D)
        mask = torch.ones_like(batch.input_ids, dtype=torch.bool) if batch.text_mask is None else batch.text_mask
        segments = torch.zeros_like(batch.input_ids) if batch.segments is None else batch.segments
        picture = self.connector.layout(self.config.vision.grid)
        layout = interleave(batch.input_ids, mask, segments, picture, self.image_token_id)
        return merge(layout, self.language.embedding(batch.input_ids), visual), layout

    def _check(self, batch: Batch) -> None:
        size = self.config.language.vocab_size
        if batch.input_ids.min() < 0 or batch.input_ids.max() >= size:
            low, high = int(batch.input_ids.min()), int(batch.input_ids.max())
            raise ValueError(f"input_ids run from {low} to {high}, the vocabulary has 0..{size - 1}: wrong tokenizer?")
        is_image = batch.input_ids == self.image_token_id
        if batch.text_mask is not None:
            is_image = is_image & batch.text_mask
        expected = (self.config.vision.num_patches, self.config.vision.width)
        if batch.features is not None and tuple(batch.features.shape[2:]) != expected:
            got = tuple(batch.features.shape)
            raise ValueError(f"features must be (B, M, {expected[0]}, {expected[1]}) for this encoder, got {got}")
        visual = batch.images if batch.images is not None else batch.features
        wanted = visual.shape[1] if visual is not None else 0
        counts = is_image.sum(dim=1)
        if (counts != wanted).any():
            sample = int((counts != wanted).nonzero()[0])
            raise ValueError(
                f"sample {sample}: {int(counts[sample])} <image> ids (id {self.image_token_id}) and {wanted} pictures; "
                "put one <image> id into the text for each picture"
            )


def answer_loss(logits: Float[Tensor, "B L V"], layout: Layout, labels: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the labelled words, each predicted at its predecessor; pictures are never a target."""
    rows, columns, targets = answer_positions(layout, labels)
    if len(targets) == 0:
        raise ValueError("nothing to learn: no word of this batch has a label")
    if targets.min() < 0 or targets.max() >= logits.shape[-1]:
        low, high = int(targets.min()), int(targets.max())
        raise ValueError(
            f"labels run from {low} to {high}, the vocabulary has 0..{logits.shape[-1] - 1} ({IGNORE} = none)"
        )
    return F.cross_entropy(logits[rows, layout.predecessor()[rows, columns]].float(), targets)


def answer_positions(
    layout: Layout, labels: Int[Tensor, "B T"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Sample, position in the sequence, and id of every labelled word, sample by sample. A word that nothing comes
    before (the first of all, or of a question where nothing is shared) cannot be predicted and is left out."""
    targets = labels.gather(1, layout.index.clamp(0, labels.shape[1] - 1)).where(layout.is_text, IGNORE)  # (B, L)
    targets = targets.where(layout.predecessor() >= 0, IGNORE)
    rows, columns = (targets != IGNORE).nonzero(as_tuple=True)
    return rows, columns, targets[rows, columns]
