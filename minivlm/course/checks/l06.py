"""Exercises of lesson 06: the gated layer, which word sees which picture, and how much comes from pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivlm.attention import Attention
from minivlm.course.checks import Norm, compare, draw
from minivlm.course.exercise import ExerciseSpec, Mistake
from minivlm.figures.fusion import look_share
from minivlm.fusion.cross_attention import GatedLayer, View


def gated_layer(
    x: Tensor,
    pictures: Tensor,
    attention_norm: nn.Module,
    attention: Attention,
    attention_gate: Tensor,
    mlp_norm: nn.Module,
    mlp: nn.Module,
    mlp_gate: Tensor,
) -> Tensor:
    """The package's `GatedLayer` with these parts: words (B, L, D) look at all visual tokens (B, Lk, Dv)."""
    layer = GatedLayer(attention, mlp, nn.Identity, 1)
    layer.attention_norm, layer.mlp_norm = attention_norm, mlp_norm
    layer.attention_gate, layer.mlp_gate = nn.Parameter(attention_gate), nn.Parameter(mlp_gate)
    everything = torch.ones(len(x), 1, x.shape[1], pictures.shape[1], dtype=torch.bool, device=x.device)
    return layer(x, View(attention.k(pictures), attention.v(pictures), everything), blind_mlp=True)


class _MLP(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, draw(9, 6, seed=34)).relu(), draw(6, 9, seed=35))


def _attention() -> Attention:
    """Two heads over visual tokens as wide as words, so that roles can be exchanged without an error."""
    attention = Attention(width=6, heads=2, bias=False).to(draw(1, seed=1).device)
    for seed, weights in enumerate(attention.parameters(), start=41):
        weights.data = draw(*weights.shape, seed=seed)
    return attention


@torch.no_grad()
def check_gated_layer(answer: Callable) -> None:
    x, pictures = 2 * draw(2, 4, 6, seed=21), 3 * draw(2, 4, 6, seed=22) + 1
    one, other = (torch.tensor([value], device=x.device) for value in (0.9, -0.6))
    inputs = (x, pictures, Norm(23), _attention(), one, Norm(25), _MLP(), other)
    compare(answer(*inputs), gated_layer(*inputs), _wrong_layers(*inputs))


def _wrong_layers(
    x: Tensor, pictures: Tensor, attention_norm: nn.Module, attention: Attention, attention_gate: Tensor,
    mlp_norm: nn.Module, mlp: nn.Module, mlp_gate: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """What the classic mistakes give, by their messages."""
    first, second = attention_gate.tanh(), mlp_gate.tanh()
    seen = attention(attention_norm(x), pictures)
    held = x + first * seen

    def then(held: Tensor, gate: Tensor = second) -> Tensor:
        return held + gate * mlp(mlp_norm(held))

    one, other = attention_gate.sigmoid(), mlp_gate.sigmoid()
    on_sum = first * (x + seen)
    return {
        "There is no tanh: a gate is tanh of the number that is learned.":
            then(x + attention_gate * seen, mlp_gate),
        "The gate of the look has no tanh.": then(x + attention_gate * seen),
        "The gate of the MLP has no tanh.": then(held, mlp_gate),
        "A sigmoid is half open at 0: take tanh, which is shut, so that the decoder starts untouched.":
            then(x + one * seen, other),
        "The gate is on x too: only what is added passes the gate, x itself goes by it.":
            second * (on_sum + mlp(mlp_norm(on_sum))),
        "The gate of the look is on x too: only what is added passes the gate.": then(on_sum),
        "It weighs x against the look, (1 - gate) * x + gate * look: x is kept whole, and the look is added.":
            then((1 - first) * x + first * seen),
        "The MLP has no gate: a new MLP would disturb the decoder from the first step on.": then(held, second * 0 + 1),
        "The look has no gate.": then(x + seen),
        "Neither the look nor the MLP has a gate.": then(x + seen, second * 0 + 1),
        "One gate for both: the look has `attention_gate`, the MLP has `mlp_gate`.": then(held, first),
        "The two gates are exchanged: the look has `attention_gate`, the MLP has `mlp_gate`.":
            then(x + second * seen, first),
        "The norms come after (post-norm): each part READS x through its norm, and adds to x as it is.":
            mlp_norm(_post(attention_norm(x + first * attention(x, pictures)), second, mlp)),
        "The look reads x without `attention_norm`.": then(x + first * attention(x, pictures)),
        "The MLP reads without `mlp_norm`.": held + second * mlp(held),
        "The two norms are exchanged.":
            _post(x + first * attention(mlp_norm(x), pictures), second, lambda held: mlp(attention_norm(held))),
        "The pictures pass `attention_norm`: they come as they are, only the words pass a norm here.":
            then(x + first * attention(attention_norm(x), attention_norm(pictures))),
        "The look is added to the normed x: a residual keeps x as it came.":
            then(attention_norm(x) + first * seen),
        "There is no residual: what the look and the MLP give is ADDED to x.":
            second * mlp(mlp_norm(first * seen)),
        "The MLP is missing.": held,
        "The MLP reads x from before the look: first look, then think.": held + second * mlp(mlp_norm(x)),
        "The words look at themselves: pass the pictures as what `attention` looks at.":
            then(x + first * attention(attention_norm(x), attention_norm(x))),
        "Roles exchanged: the pictures look at the words. The words ask, so they come first.":
            then(x + first * attention(pictures, attention_norm(x))),
    }  # fmt: skip


def _post(held: Tensor, gate: Tensor, mlp: Callable[[Tensor], Tensor]) -> Tensor:
    return held + gate * mlp(held)


def who_sees(is_image: Tensor, pictures: int) -> Tensor:
    """The rule "latest" of `GatedCrossAttention`, a column a picture: (B, T) to (B, T, M)."""
    latest = is_image.cumsum(dim=1) - 1  # as `Layout.latest`: -1 before the first
    return latest[..., None] == torch.arange(pictures, device=is_image.device)


def check_who_sees(answer: Callable) -> None:
    ids = torch.tensor([[0, 1, 0, 0, 1, 1, 0, 0], [1, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0]])
    is_image = ids.bool().to(draw(1, seed=1).device)
    given = answer(is_image, 3)
    if isinstance(given, Tensor) and given.dtype != torch.bool:
        raise Mistake("These are numbers: a mask is boolean, True = may look.")
    compare(given, who_sees(is_image, 3), _wrong_sights(is_image, 3))


def _wrong_sights(is_image: Tensor, pictures: int) -> dict[str, Tensor]:
    want = who_sees(is_image, pictures)
    begun = is_image.cumsum(dim=1)[..., None]  # (B, T, 1)
    number = torch.arange(pictures, device=is_image.device)
    total = begun[:, -1:]  # (B, 1, 1)
    blind = begun == 0
    earlier = begun - is_image[..., None].long()  # those that have begun before this word
    return {
        "All preceding pictures are seen: a word sees the LATEST one only.": begun > number,
        "Off by one: the `<image>` word itself is the first to see its picture.": earlier - 1 == number,
        "All preceding pictures are seen, and the `<image>` word does not see its own.": earlier > number,
        "Off by one picture: the first picture is column 0, so subtract 1 from the number that has begun.":
            begun == number,
        "Every word sees the first picture: it sees the latest that has begun.": (number == 0) & ~blind,
        "Every word sees the first picture, even a word before it.": (number == 0).expand_as(want),
        "A word before the first picture sees picture 0: nothing has begun there, so it sees nothing.":
            want | (blind & (number == 0)),
        "A word before the first picture sees all of them, as published code has it with all preceding pictures: here "
        "it sees nothing.": want | blind,
        "Every word sees every picture, those to come as well.": torch.ones_like(want),
        "It looks ahead: a word sees the picture that comes next, not the latest that has begun.":
            (total > begun) & (begun == number),
        "It is turned over: True = may look, False = may not.": ~want,
        "Only the `<image>` words see a picture: the words after it see it as well, until the next.":
            want & is_image[..., None],
        "Words and pictures are exchanged: a row a word, a column a picture, (B, T, M).": want.transpose(1, 2),
    }  # fmt: skip


def check_share(answer: Callable) -> None:
    sees = torch.tensor([[False, True, True, True], [False, False, False, True]], device=draw(1, seed=1).device)
    cross, own = 2 * draw(2, 4, 5, seed=51) * sees[..., None], draw(2, 4, 5, seed=52)
    compare(answer(cross, own, sees), look_share(cross, own, sees), _wrong_shares(cross, own, sees))


def _wrong_shares(cross: Tensor, own: Tensor, sees: Tensor) -> dict[str, Tensor]:
    looked, read = cross.norm(dim=-1), own.norm(dim=-1)  # (B, L)
    share = looked / (looked + read)
    squared = looked**2 / (looked**2 + read**2)
    channel = (cross.abs() / (cross.abs() + own.abs()))[sees]
    return {
        "Places that see no picture are counted: their share is 0, and it says nothing of the layer.": share.mean(),
        "The shares are added up: take their mean.": share[sees].sum(),
        "It is the ratio of the look to the self-attention: a share has both in its denominator.":
            (looked / read)[sees].mean(),
        "It is the share of the self-attention: the look's length goes on top.": (1 - share)[sees].mean(),
        "The lengths are squared: `.norm(dim=-1)` is the length.": squared[sees].mean(),
        "It divides the mean lengths: take the share at each place first, and then the mean.":
            looked[sees].mean() / (looked[sees].mean() + read[sees].mean()),
        "It is the share of every channel: take the length of the whole vector at each place first.": channel.mean(),
        "The lengths go along the sequence: a place's update is its vector of channels, the last axis.":
            (cross.norm(dim=1) / (cross.norm(dim=1) + own.norm(dim=1))).mean(),
        "It divides by the length of the sum of both updates: add their lengths.":
            (looked / (cross + own).norm(dim=-1))[sees].mean(),
        "It is a share at every place: return the mean, one number.": share[sees],
    }  # fmt: skip


EXERCISES = {
    "06.layer": ExerciseSpec("The gated layer", 3, gated_layer, check_gated_layer),
    "06.sees": ExerciseSpec("Which word sees which picture", 2, who_sees, check_who_sees),
    "06.share": ExerciseSpec("How much comes from pictures", 2, look_share, check_share),
}
