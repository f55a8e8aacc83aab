"""Multiway blocks: pictures and words share one attention and have experts of their own for the rest (BEiT-3, Wang et
al. 2022, arXiv:2208.10442). One model encodes pictures, texts, or both (`VLM.encode`), and speaks of pictures.

Token count: a text of T ids with M `<image>` ids and K visual tokens a picture becomes T - M + M * K positions. Equal
to `torchscale.model.BEiT3.BEiT3`, whose vision experts (A) are the fusion's, and text experts (B) the decoder's.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minivlm.fusion.experts import PARTS, Experts, copy_weights, divided
from minivlm.fusion.interleave import count_places
from minivlm.language.decoder import Decoder
from minivlm.layout import Layout, VisualLayout


@dataclass(frozen=True)
class MultiwayConfig:
    """By default every map and every norm of a block, and the final norm, are the modality's own, as in the released
    code. `shared_attention`: only the MLPs are, as the paper tells it. (The paper's third MLP, of both modalities in
    the upper blocks, is not in the code, nor here.)

    `own_places`: pictures bring the places that they were given outside of the decoder, and words count on without
    them, as in the published system; else all places of the sequence count.
    """

    shared_attention: bool = False
    own_places: bool = False

    visual_width: ClassVar[None] = None

    def build(self, decoder: Decoder) -> Multiway:
        return Multiway(self, decoder)


class Multiway(Experts):
    """The patches of a picture all see one another. Words, which are to be said one by one, see what came before."""

    causal = False

    def __init__(self, config: MultiwayConfig, decoder: Decoder):
        super().__init__(decoder, ("mlp",) if config.shared_attention else PARTS)
        self.own_places = config.own_places
        self.norm = None if config.shared_attention else deepcopy(decoder.final_norm)

    def start_from(self, decoder: Decoder) -> None:
        super().start_from(decoder)
        if self.norm is not None:
            copy_weights(decoder.final_norm, self.norm)

    def arrange(
        self,
        input_ids: Int[Tensor, "B T"],
        text_mask: Bool[Tensor, "B T"],
        segments: Int[Tensor, "B T"],
        picture: VisualLayout,
        image_id: int,
    ) -> Layout:
        layout = super().arrange(input_ids, text_mask, segments, picture, image_id)
        if not self.own_places:
            return layout
        words = count_places(layout.segment, layout.is_text)
        return replace(layout, position=torch.where(layout.is_visual, -1, words).where(layout.valid, 0))

    def final_norm(self, decoder: Decoder, layout: Layout) -> Callable[[Tensor], Tensor]:
        route = self.route(layout)
        if self.norm is None or not route.any():
            return decoder.final_norm
        return partial(divided, route, self.norm, decoder.final_norm)
