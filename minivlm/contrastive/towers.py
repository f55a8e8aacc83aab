"""What all two-tower models share: the text tower, the output, and gathering features across processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from minivlm.attention import Attention
from minivlm.layers import MLP, Block, check_activation, check_divides, check_positive


@dataclass(frozen=True)
class TextConfig:
    """A text tower that reads at most `context` ids; `causal`: each word sees only those before it."""

    vocab_size: int
    context: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    activation: str
    eps: float
    causal: bool

    def __post_init__(self):
        check_positive(vocab_size=self.vocab_size, context=self.context, width=self.width, depth=self.depth)
        check_divides(self.heads, self.width)
        check_activation(self.activation)


class TextTower(nn.Module):
    """Words to normed states (B, T, D), with learned positions. Padding is for the caller's pooling to deal with."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        norm = partial(nn.LayerNorm, config.width, eps=config.eps)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context, config.width))
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.01)
        self.blocks = nn.ModuleList(
            Block(Attention(config.width, config.heads), MLP(config.width, config.mlp_width, config.activation), norm)
            for _ in range(config.depth)
        )
        self.final_norm = norm()

    def forward(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        check_ids(input_ids, self.config.vocab_size, self.config.context)
        x = self.embedding(input_ids) + self.position_embedding[: input_ids.shape[1]]
        for block in self.blocks:
            x = block(x, is_causal=self.config.causal)
        return self.final_norm(x)


def check_ids(input_ids: Tensor, vocab_size: int, context: int) -> None:
    """Refuse what is no batch of texts for this tower: TypeError or ValueError saying what came."""
    if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        got = input_ids.dtype if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise TypeError(f"input_ids must be an integer tensor (B, T), got {got}: encode the text first")
    if input_ids.ndim != 2 or input_ids.numel() == 0:
        raise ValueError(f"input_ids must be (B, T) with B, T >= 1, got {tuple(input_ids.shape)}")
    if input_ids.shape[1] > context:
        raise ValueError(f"this text tower reads at most {context} ids, got {input_ids.shape[1]}: cut the text")
    if input_ids.device.type != "meta" and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocab_size:
        low, high = int(input_ids.min()), int(input_ids.max())
        raise ValueError(f"input_ids run from {low} to {high}, the vocabulary has 0..{vocab_size - 1}")


@dataclass(frozen=True)
class ContrastiveOutput:
    """Similarities of every picture with every text, (I, T); `loss` is None unless there is one text a picture.

    The embeddings, (I, E) and (T, E), have length 1. `maps` as in `minivlm.model.Output`.
    """

    logits_per_image: Float[Tensor, "I T"]
    loss: Float[Tensor, ""] | None
    image_embeds: Float[Tensor, "I E"]
    text_embeds: Float[Tensor, "T E"]
    maps: dict[str, Tensor]


def gathered(features: Float[Tensor, "B E"]) -> tuple[Float[Tensor, "all E"], int]:
    """The features of all processes, and where ours start among them; gradients flow back to the process they came
    from.

    With gradients averaged over processes (as DDP does) a loss over these is exactly the loss of one large batch.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return features, 0
    return torch.cat(all_gather(features)), dist.get_rank() * len(features)
