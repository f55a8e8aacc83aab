"""What every fusion is: it says what stands in the decoder's sequence, what may look at what, and how blocks are run.

The plainest answer to each is `Interleaved`'s (LLaVA): visual tokens stand among the words, all look back, and the
decoder's blocks stay as they are. A fusion states where its answer differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.fusion.interleave import interleave, merge
from minivlm.language.decoder import Decoder
from minivlm.layout import Layout, VisualLayout

Block = Callable[..., Tensor]


@runtime_checkable
class FusionConfig(Protocol):
    """`visual_width`: that of the visual tokens it reads; None: the decoder's, among whose words they stand."""

    visual_width: int | None

    def build(self, decoder: Decoder) -> Fusion: ...


class Fusion(nn.Module):
    """`causal`: nothing in its sequence looks ahead. `opens`: each `<image>` id opens into the tokens of its picture;
    otherwise it stays the one word that it is. `one_place`: all patches of a picture are told the same position."""

    causal: ClassVar[bool] = True
    opens: ClassVar[bool] = True
    one_place: ClassVar[bool] = False

    def start_from(self, decoder: Decoder) -> None:
        """Begin as the decoder is now, where weights of this fusion are copies of the decoder's."""

    def unread(self, picture: VisualLayout) -> list[nn.Module]:
        """The modules whose output reaches no word, where a picture becomes the tokens of `picture`."""
        return []

    def arrange(
        self,
        input_ids: Int[Tensor, "B T"],
        text_mask: Bool[Tensor, "B T"],
        segments: Int[Tensor, "B T"],
        picture: VisualLayout,
        image_id: int,
    ) -> Layout:
        """What stands at each of the L places of the decoder's sequence."""
        return interleave(input_ids, text_mask, segments, picture if self.opens else None, image_id, self.one_place)

    def enter(
        self, layout: Layout, text: Float[Tensor, "B T D"], visual: Float[Tensor, "B M K Dv"] | None
    ) -> Float[Tensor, "B L D"]:
        """The vectors that stand there."""
        return merge(layout, text, visual if self.opens else None)

    def mask(self, layout: Layout) -> Bool[Tensor, "B 1 L L"]:
        """Which places each place may look at."""
        return layout.attention_mask(whole_pictures=not self.causal)

    def look(self, visual: Float[Tensor, "B M K Dv"] | None, layout: Layout) -> Any:
        """What `blocks` needs of the pictures, made once for a sequence however many words are said after it."""
        return None

    def blocks(self, decoder: Decoder, layout: Layout, seen: Any) -> list[Block]:
        """What is run in place of the decoder's blocks for the places of `layout`, all or only the newest."""
        return list(decoder.blocks)

    def final_norm(self, decoder: Decoder, layout: Layout) -> Callable[[Tensor], Tensor]:
        """What is run in place of the decoder's final norm, for the same places."""
        return decoder.final_norm

    def kept(self, tokens: int) -> int:
        """How many numbers it keeps of that many visual tokens for decoding, beside the decoder's cache."""
        return 0


@dataclass(frozen=True)
class Interleaved:
    """Nothing of its own: the decoder reads pictures as it reads words."""

    visual_width: ClassVar[None] = None

    def build(self, decoder: Decoder) -> Fusion:
        return Fusion()
