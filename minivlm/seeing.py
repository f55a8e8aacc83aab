"""Seeing: the first half of a vision-language model, from a batch's pictures to visual tokens and what each stands for.

Pictures may differ in size; then each has views, and tokens, of its own number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.batch import Batch
from minivlm.layout import Grid, Views, VisualLayout
from minivlm.vision.vision import cut_views

if TYPE_CHECKING:
    from minivlm.model import VLMConfig


class Seeing(nn.Module):
    """Encoder, connector and separators of a design. `VLM` adds the decoder, whose words some separators are, and the
    fusion."""

    def __init__(self, config: VLMConfig):
        super().__init__()
        self.config = config
        self.vision = config.vision.build()
        self.connector = config.make_connector()
        self.separators = config.separators.build(config.visual_width)
        with torch.device("cpu"):  # parts that do not go together are refused now, not with the first picture
            self._check_parts()

    def features(
        self, images: Float[Tensor, "B M 3 H W"], sizes: Int[Tensor, "B M 2"] | None = None
    ) -> Float[Tensor, "B M N D"]:
        """What the connector reads, (B, M, N, D); made once for a frozen encoder and given back as `Batch.features`.
        Where pictures differ in size (`sizes`), the features of the smaller ones are filled up on the right."""
        layer = {} if self.config.layer is None else {"layer": self.config.layer}
        states = self.vision.features(images.flatten(0, 1), None if sizes is None else sizes.flatten(0, 1), **layer)
        first = int(self.config.vision.class_token and not self.config.class_token)
        return states[:, first:].unflatten(0, images.shape[:2])  # (B, M, N, D)

    def connect(
        self, features: Float[Tensor, "B M N D"], batch: Batch, pictures: Sequence[Views] | None = None
    ) -> Float[Tensor, "B M K Dout"]:
        """The visual tokens of every picture, of which `pictures` says what views they have (None: those that the
        batch's sizes give); a connector that reads the question is given the batch's instruction."""
        shape, flat = features.shape[:2], features.flatten(0, 1)
        pictures = pictures or self._views(batch, len(flat))
        self._check_grids(grid for views in set(pictures) for grid in views)
        rows, there = cut_views(flat, pictures)  # (V, n, D): V views of all pictures
        sample = [number // shape[1] for number, views in enumerate(pictures) for _ in views]  # whose each view is
        tokens = self.connector(rows, *self._told(batch, sample), **self._which(there))  # (V, k, Dout)
        if not self.config.separators.words and there is None and len(rows) == len(flat):
            return tokens.unflatten(0, shape)
        return self._separate(tokens, pictures).unflatten(0, shape)

    def _told(self, batch: Batch, sample: list[int]) -> tuple[Tensor, ...]:
        """The words that a connector reads beside each view, (V, P), and which are there; () for one that reads
        none."""
        if not self.connector.conditioned:
            return ()
        ids, mask = batch.instruction, batch.instruction_mask
        if ids is None:
            raise ValueError(
                "this design reads the question into its visual tokens, so each question needs a sample of its own: "
                "pack dialogs of one question, or give Batch an instruction"
            )
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        return ids[sample], mask[sample]

    def _which(self, there: Bool[Tensor, "V n"] | None) -> dict[str, Tensor]:
        """What a connector is told of views that differ in size."""
        if there is None or self.connector.pointwise:
            return {}
        if not self.connector.masked:
            self._refuse(there.sum(dim=1).tolist())
        return {"mask": there}

    def _separate(self, tokens: Float[Tensor, "V k D"], pictures: Sequence[Views]) -> Float[Tensor, "P K D"]:
        sources = {views: self.separators.arrange(views, self.connector)[1] for views in set(pictures)}
        ends = [self.connector.num_tokens(grid) for views in pictures for grid in views]
        own = iter([row[:end] for row, end in zip(tokens, ends, strict=True)])
        joined = [torch.cat([next(own) for _ in views]) for views in pictures]
        return self.separators(joined, [sources[views] for views in pictures], self.language.embedding)

    def _arranged(self, pictures: Sequence[Views], images: int) -> VisualLayout:
        """What the visual tokens stand for: the same in each picture, or a stack of all, `images` a sample."""
        each = {views: self.separators.arrange(views, self.connector)[0] for views in set(pictures)}
        if len(each) == 1:
            return next(iter(each.values()))
        return VisualLayout.stack([each[views] for views in pictures], images)

    def _views(self, batch: Batch, count: int) -> list[Views]:
        """The views of each of a batch's `count` pictures, sample after sample."""
        vision = self.config.vision
        if batch.sizes is None:
            size = vision.image_size if batch.images is None else tuple(batch.images.shape[3:])
            return [vision.views(size)] * count
        return [vision.views(tuple(size)) for size in batch.sizes.flatten(0, 1).tolist()]

    def _check(self, batch: Batch) -> None:
        size = self.config.language.vocab_size
        if batch.input_ids.min() < 0 or batch.input_ids.max() >= size:
            low, high = int(batch.input_ids.min()), int(batch.input_ids.max())
            raise ValueError(f"input_ids run from {low} to {high}, the vocabulary has 0..{size - 1}: wrong tokenizer?")
        is_image = batch.input_ids == self.config.image_id
        if batch.text_mask is not None:
            is_image = is_image & batch.text_mask
        self._check_features(batch)
        counts, wanted = is_image.sum(dim=1), batch.num_images
        if (counts != wanted).any():
            sample = int((counts != wanted).nonzero()[0])
            raise ValueError(
                f"sample {sample}: {int(counts[sample])} <image> ids (id {self.config.image_id}) and "
                f"{int(wanted[sample])} pictures; put one <image> id into the text for each picture"
            )

    def _check_parts(self) -> None:
        """ValueError where encoder, connector and separators do not go together for a picture of the encoder's size."""
        connector, config = self.connector, self.config
        kind, views = type(connector).__name__, config.vision.views(config.vision.image_size)
        counts = [rows * cols for rows, cols in views]
        if connector.pointwise:
            made, got = connector.num_tokens(views[0]), counts[0] + config.class_token
            if made != got:
                raise ValueError(f"{kind} makes {made} tokens of {got} features: class_token must be the same for both")
        elif config.class_token and not connector.class_token:
            raise ValueError(f"{kind} reads patches alone: class_token must be False, got {config.class_token}")
        self._check_grids(views)
        if len(set(counts)) > 1 and not (connector.pointwise or connector.masked):
            self._refuse(counts)
        self.separators.arrange(views, connector)

    def _check_grids(self, grids: Iterable[Grid]) -> None:
        own = self.config.vision.grid
        others = {grid for grid in grids if grid != own} if self.connector.one_grid else set()
        if others:
            got = ", ".join(f"{rows}x{cols}" for rows, cols in sorted(others))
            raise ValueError(
                f"{type(self.connector).__name__} is made for {own[0]}x{own[1]} features, this picture has {got}: "
                "resize it, or take a connector that reads any"
            )

    def _refuse(self, counts: list[int]) -> None:
        raise ValueError(
            f"{type(self.connector).__name__} reads views of one size, these have {counts} features: give it pictures "
            "of one size, or take a connector that reads any"
        )

    def _check_features(self, batch: Batch) -> None:
        if batch.features is None:
            return
        size = self.config.vision.image_size
        sizes = [size] if batch.sizes is None else [tuple(size) for size in batch.sizes.flatten(0, 1).tolist()]
        needed, width = max(map(self.config.features_of, sizes)), self.config.vision.width
        count, got = batch.features.shape[2:]
        if got != width or count < needed or (count > needed and batch.sizes is None):
            shape = tuple(batch.features.shape)
            raise ValueError(f"features must be (B, M, {needed}, {width}) for this encoder, got {shape}")
