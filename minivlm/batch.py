"""A batch: pictures and words of some samples, whatever the design makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
    instruction        (B, P) int, the words that a connector which reads the question reads; others ignore them
    instruction_mask   (B, P) bool, False = padding (default: no padding)
    image_mask  (B, M) bool, False = no picture: of samples with fewer than M, the last ones (default: all have M)
    sizes      (B, M, 2) int, height and width of each picture, where they differ; what of `images` is right of that or
               below is padding (default: all are as large as `images`, or as the encoder's pictures)
    """

    images: Float[Tensor, "B M 3 H W"] | None
    input_ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"] | None = None
    text_mask: Bool[Tensor, "B T"] | None = None
    segments: Int[Tensor, "B T"] | None = None
    features: Float[Tensor, "B M N D"] | None = None
    instruction: Int[Tensor, "B P"] | None = None
    instruction_mask: Bool[Tensor, "B P"] | None = None
    image_mask: Bool[Tensor, "B M"] | None = None
    sizes: Int[Tensor, "B M 2"] | None = None

    def __post_init__(self):
        ids = self.input_ids
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"input_ids must be an integer tensor (B, T), got {_described(ids)}")
        if ids.ndim != 2 or ids.numel() == 0:
            raise ValueError(f"input_ids must be (B, T) with B, T >= 1, got {tuple(ids.shape)}")
        self._check_text()
        self._check_visual()
        self._check_instruction()

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
        self._check_image_mask()
        self._check_sizes()

    def _check_sizes(self) -> None:
        sizes, visual = self.sizes, self.visual
        if sizes is None:
            return
        if visual is None:
            raise ValueError("sizes without images or features: leave them out where there are no pictures")
        if sizes.is_floating_point() or tuple(sizes.shape) != (*visual.shape[:2], 2):
            raise ValueError(f"sizes must be integers {(*visual.shape[:2], 2)}, got {_described(sizes)}")
        if self.images is not None and (
            (sizes < 1).any() or (sizes > torch.tensor(self.images.shape[3:], device=sizes.device)).any()
        ):
            low, high = sizes.amin(dim=(0, 1)).tolist(), sizes.amax(dim=(0, 1)).tolist()
            room = tuple(self.images.shape[3:])
            raise ValueError(f"sizes are (height, width) from (1, 1) to the images' {room}; got {low} to {high}")

    def _check_image_mask(self) -> None:
        mask, visual = self.image_mask, self.visual
        if mask is None:
            return
        if visual is None:
            raise ValueError("image_mask without images or features: leave it out where there are no pictures")
        if mask.dtype != torch.bool or mask.shape != visual.shape[:2]:
            raise ValueError(f"image_mask must be boolean {tuple(visual.shape[:2])}, got {_described(mask)}")
        if (mask.int().diff(dim=1) > 0).any():
            raise ValueError("image_mask must not rise along a sample: its pictures first, then what fills up")

    def _check_instruction(self) -> None:
        ids, mask = self.instruction, self.instruction_mask
        if ids is None:
            if mask is not None:
                raise ValueError("instruction_mask without an instruction: give both, or neither")
            return
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"instruction must be an integer tensor (B, P), got {_described(ids)}")
        if ids.ndim != 2 or len(ids) != len(self.input_ids):
            raise ValueError(f"instruction must be (B, P) with B = {len(self.input_ids)}, got {tuple(ids.shape)}")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != ids.shape):
            raise ValueError(f"instruction_mask must be boolean {tuple(ids.shape)}, got {_described(mask)}")

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def visual(self) -> Tensor | None:
        """The pictures, or what was made of them: `images`, `features` or None."""
        return self.images if self.images is not None else self.features

    @property
    def num_images(self) -> Int[Tensor, " B"]:
        """How many pictures each sample has."""
        if self.image_mask is not None:
            return self.image_mask.sum(dim=1)
        count = 0 if self.visual is None else self.visual.shape[1]
        return torch.full((len(self),), count, device=self.input_ids.device)

    def to(self, device: torch.device | str) -> Batch:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if v is not None else None for k, v in moved.items()})

    def blind(self, image_id: int) -> Batch:
        """The same words without the pictures: what a model without eyes would be given."""
        words = self.input_ids != image_id
        kept = words if self.text_mask is None else words & self.text_mask
        return replace(self, images=None, features=None, image_mask=None, sizes=None, text_mask=kept)

    @classmethod
    def pack(
        cls,
        tokenizer: Encodes,
        dialogs: Sequence[Sequence[tuple[str, str]]],
        images: Float[Tensor, "B M 3 H W"] | None = None,
        features: Float[Tensor, "B M N D"] | None = None,
        contexts: Sequence[str] | None = None,
        sizes: Int[Tensor, "B M 2"] | None = None,
    ) -> Batch:
        """One sequence a sample: its pictures (and a text that all may read, its context), then every (question,
        answer) of its dialog as a segment of its own, so that no question sees another and one picture's tokens serve
        them all. Learned: the answers and their end.

        An empty answer leaves the question open, for `VLM.generate`; an empty question makes a caption of the answer.
        Where every dialog is one question, that question is also the `instruction`.
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
        ids, labels, segments = zip(*rows, strict=True)
        last = max(max(row) for row in segments)
        asked = [tokenizer.encode(dialog[0][0]) for dialog in dialogs if len(dialog) == 1]
        told = asked if len(asked) == len(dialogs) else None
        return cls(
            images,
            _padded(ids, tokenizer.pad_id),
            _padded(labels, IGNORE),
            _padded([[True] * len(row) for row in ids], False),
            _padded(segments, last),
            features,
            None if told is None else _padded(told, tokenizer.pad_id),
            None if told is None else _padded([[True] * len(row) for row in told], False),
            sizes=sizes,
        )


def pad_pictures(
    pictures: Sequence[Sequence[Float[Tensor, "3 _ _"]]],
) -> tuple[Float[Tensor, "B M 3 H W"], Bool[Tensor, "B M"], Int[Tensor, "B M 2"]]:
    """Pictures of any size, those of each sample, as one tensor filled up with zeros on the right and below; with it
    which are there and how large they are, as `Batch` takes them. What is not there is black and as large as can be."""
    count = max(map(len, pictures), default=0)
    if count == 0:
        raise ValueError("no pictures: leave images out instead")
    largest = [max(picture.shape[side] for sample in pictures for picture in sample) for side in (1, 2)]
    first = next(picture for sample in pictures for picture in sample)
    images = first.new_zeros(len(pictures), count, 3, *largest)
    sizes = torch.tensor(largest).expand(len(pictures), count, 2).clone()
    for b, sample in enumerate(pictures):
        for m, picture in enumerate(sample):
            images[b, m, :, : picture.shape[1], : picture.shape[2]] = picture
            sizes[b, m] = torch.tensor(picture.shape[1:])
    there = torch.arange(count) < torch.tensor([len(sample) for sample in pictures])[:, None]
    return images, there, sizes


def each_apart(
    dialogs: Sequence[Sequence[tuple[str, str]]], pictures: Int[Tensor, " B"]
) -> tuple[list[list[tuple[str, str]]], Int[Tensor, " Q"]]:
    """Every question as a dialog of its own, and the picture that each is about."""
    counts = torch.tensor([len(dialog) for dialog in dialogs])
    return [[turn] for dialog in dialogs for turn in dialog], pictures.repeat_interleave(counts)


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of one length, (B, longest), with `fill` on the right; at least one column."""
    length = max(1, *map(len, rows))
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])


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
