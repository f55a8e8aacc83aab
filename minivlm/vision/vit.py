"""The vision transformer: cut a picture into patches, treat each as a word (Dosovitskiy et al. 2020, arXiv:2010.11929).

Token count: (H / patch) * (W / patch) patches in, the same out, plus one class token where the tower has one.
Published towers differ only in what `clip_vit`, `siglip_vit`, `eva_vit`, `eva2_vit` and `vit` spell out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.attention import Attention
from minivlm.layers import MLP, Block, check_activation, check_divides, check_positive
from minivlm.layout import Views
from minivlm.vision.vision import Vision, check_images

POOLS = ("class", "map", "tanh", "mean")


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of a tower. `image_size` is (H, W) in pixels; those beyond the last whole patch are not looked at (SigLIP
    SO400M reads 384 pixels as 27 patches of 14). Pictures come in [0, 1]; `mean` and `std`, a number a colour channel,
    are what training centred them with, and 0 and 1 for a caller who has done so."""

    image_size: tuple[int, int]
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    mean: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), kw_only=True)
    std: tuple[float, float, float] = field(default=(1.0, 1.0, 1.0), kw_only=True)

    def __post_init__(self):
        check_positive(patch_size=self.patch_size, width=self.width, mlp_width=self.mlp_width)
        if self.depth < 0:
            raise ValueError(f"depth must be at least 0, got {self.depth}")
        height, width = self.image_size
        if min(height, width) < self.patch_size:
            raise ValueError(f"image {height}x{width} holds no whole patch of {self.patch_size} pixels")
        check_divides(self.heads, self.width)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class ViTConfig(TowerConfig):
    """The variant of a tower. `pool` says how one vector is made of all tokens: "class" = the class token (CLIP), "map"
    = an attention head with one learned query (SigLIP), "tanh" = the class token through a tanh layer (ViT), "mean" =
    the mean of all (towers that come without a head). `branch_norm`: a block norms what its halves give, not what they
    read. `final_norm`: all is normed in the end."""

    activation: str
    eps: float
    class_token: bool
    pre_norm: bool
    patch_bias: bool
    pool: str
    branch_norm: bool = False
    final_norm: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_activation(self.activation)
        if self.pool not in POOLS:
            raise ValueError(f"unknown pool {self.pool!r}; known: {', '.join(POOLS)}")
        if self.pool in ("class", "tanh") and not self.class_token:
            raise ValueError(f'pool "{self.pool}" reads the class token, but class_token is False')

    @property
    def layers(self) -> int | None:
        """After how many blocks its state can be read."""
        return self.depth

    def views(self, size: tuple[int, int]) -> Views:
        """One grid, whatever is asked: this tower refuses pictures of another size."""
        return (self.grid,)

    def build(self) -> ViT:
        return ViT(self)


clip_vit = partial(
    ViTConfig, activation="quick_gelu", eps=1e-5, class_token=True, pre_norm=True, patch_bias=False, pool="class"
)
siglip_vit = partial(
    ViTConfig, activation="gelu_tanh", eps=1e-6, class_token=False, pre_norm=False, patch_bias=True, pool="map"
)
eva_vit = partial(
    ViTConfig, activation="gelu", eps=1e-6, class_token=True, pre_norm=False, patch_bias=True, pool="class"
)
eva2_vit = partial(eva_vit, branch_norm=True, final_norm=False)
vit = partial(ViTConfig, activation="gelu", eps=1e-12, class_token=True, pre_norm=False, patch_bias=True, pool="tanh")
bare_patches = partial(eva_vit, depth=0, heads=1, mlp_width=1, final_norm=False)  # no block, so any size will do


class BranchNormBlock(Block):
    """EVA2-CLIP-E's block: x += norm(attention(x)); x += norm(mlp(x))."""

    def forward(self, x: Float[Tensor, "B L D"], **attention_options) -> Float[Tensor, "B L D"]:
        x = x + self.attention_norm(self.attention(x, **attention_options))
        return x + self.mlp_norm(self.mlp(x))


class MAPHead(nn.Module):
    """SigLIP's pooling: one learned query attends to all tokens, then an MLP with a residual."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, config.width) * config.width**-0.5)
        self.attention = Attention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        pooled = self.attention(self.probe.expand(len(tokens), -1, -1), context=tokens)  # (B, 1, D)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


class PatchTower(Vision):
    """How a tower begins: it centres the pixels, cuts the picture into patches, and makes a vector of each."""

    def __init__(self, config: TowerConfig, bias: bool):
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=bias)

    def patches(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B rows cols D"]:
        images = (images - self.mean) / self.std
        return self.patch_embedding(images.to(self.patch_embedding.weight.dtype)).movedim(1, -1)


class ViT(PatchTower):
    """A vision tower. `hidden` gives the states a connector reads; calling the tower gives (normed tokens, pooled)."""

    def __init__(self, config: ViTConfig):
        super().__init__(config, config.patch_bias)
        norm = partial(nn.LayerNorm, config.width, eps=config.eps)
        scale = config.width**-0.5
        self.class_embedding = nn.Parameter(torch.randn(config.width) * scale) if config.class_token else None
        positions = config.num_patches + config.class_token
        self.position_embedding = nn.Parameter(torch.randn(positions, config.width) * scale)
        self.pre_norm = norm() if config.pre_norm else nn.Identity()
        block = BranchNormBlock if config.branch_norm else Block
        self.blocks = nn.ModuleList(
            block(
                Attention(config.width, config.heads),
                MLP(config.width, config.mlp_width, config.activation),
                norm,
            )
            for _ in range(config.depth)
        )
        self.final_norm = norm() if config.final_norm else nn.Identity()
        if config.pool == "map":
            self.pool = MAPHead(config)
        elif config.pool == "tanh":
            self.pool = nn.Linear(config.width, config.width)
        else:
            self.pool = None

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        """Patches (and class token) with their positions added: the state before the first block."""
        check_images(images, self.config.image_size)
        x = self.patches(images).flatten(1, 2)  # (B, N, D)
        if self.class_embedding is not None:
            x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)  # (B, 1+N, D)
        return self.pre_norm(x + self.position_embedding)

    def hidden(self, images: Float[Tensor, "B 3 H W"], layer: int = -1) -> Float[Tensor, "B N D"]:
        """The state after `layer`, un-normed: 0 = embeddings, -1 = last block, -2 = the one before (what LLaVA reads).

        Blocks beyond `layer` are not computed. The class token, where there is one, is position 0.
        """
        depth = self.config.depth
        if not -depth - 1 <= layer <= depth:
            raise ValueError(
                f"layer {layer} does not exist: this tower has {depth} blocks (0..{depth} or -1..-{depth})"
            )
        x = self.embed(images)
        for block in self.blocks[: layer if layer >= 0 else depth + 1 + layer]:
            x = block(x)
        return x

    def unread(self, layer: int | None) -> list[nn.Module]:
        """The modules that whoever reads only the state after `layer` (None: after the final norm) never touches."""
        pool = [self.pool] if self.pool is not None else []
        if layer is None:
            return pool
        return [*self.blocks[layer if layer >= 0 else self.config.depth + 1 + layer :], self.final_norm, *pool]

    def features(
        self, images: Float[Tensor, "B 3 H W"], sizes: Int[Tensor, "B 2"] | None = None, layer: int | None = None
    ) -> Float[Tensor, "B N D"]:
        """The state after `layer`, or, without, all tokens after the final norm. `sizes` must be this tower's own."""
        if sizes is not None and (sizes != torch.tensor(self.config.image_size, device=sizes.device)).any():
            height, width = self.config.image_size
            raise ValueError(f"this tower reads {height}x{width} pictures, got {sizes.tolist()}: resize them first")
        return self(images)[0] if layer is None else self.hidden(images, layer)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        """All tokens after the final norm, and one vector for the picture."""
        tokens = self.final_norm(self.hidden(images))
        if self.config.pool == "map":
            return tokens, self.pool(tokens)
        if self.config.pool == "tanh":
            return tokens, torch.tanh(self.pool(tokens[:, 0]))
        if self.config.pool == "mean":
            return tokens, tokens.mean(dim=1)
        return tokens, tokens[:, 0]
