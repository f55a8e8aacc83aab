"""Videos: moving scenes whose whole truth is known. A video is data - objects that stand, move or come for a while, and
one that flashes - and is rendered in batches, on any device, at any number of frames.

It lasts 8 beats. In a beat at most one thing happens: a visitor is there, or the first mover flashes, in a colour that
is not its own. Movers go on all the while, each its own way, and what leaves on one side comes in again on the other,
so where a mover is at any one time says nothing of where it goes. Played backwards a video is as likely as it was
forwards, so all its frames, put in a bag, do not tell which way or what came first either: that takes their order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.data.scenes import BACKGROUNDS, COLORS, SIZES, windows
from minivlm.data.shapes import SHAPES

BEATS = 8
HEADINGS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # each next to its opposite
REACH = (0.14, 0.86)  # where centres may be, in sides of the picture: nothing is ever cut off
SPEED = 0.12  # how far a mover comes in a beat, in sides: after six it is where it was
MOVERS, PROPS, VISITORS = range(0, 2), range(2, 4), range(4, 8)  # columns
FLASHER = 0  # the column of the mover that flashes
_BACK_TO_FRONT = (*PROPS, *reversed(MOVERS), *VISITORS)  # whatever happens is in front when it does


@dataclass(frozen=True)
class Shown:
    """What can be seen: index of shape (-1: not there), colour and size of each object, and its centre as fractions of
    width (x) and height (y)."""

    shape: Int[Tensor, "*frames columns"]
    color: Int[Tensor, "*frames columns"]
    size: Int[Tensor, "*frames columns"]
    x: Float[Tensor, "*frames columns"]
    y: Float[Tensor, "*frames columns"]

    def column(self, number: int) -> Shown:
        """That object alone, frame after frame of all videos, (frames, 1)."""
        return Shown(*(getattr(self, f.name)[..., number].reshape(-1, 1) for f in fields(self)))


@dataclass(frozen=True)
class Videos:
    """A batch of videos of `frames` frames each. Columns of the (B, 8) tensors are the 2 movers, up to 2 props that
    stand there all the time, and up to 4 visitors; no two of a video share a shape.

    shape    index into the shapes, -1 = there is none
    x, y     the centre in the middle of the video
    heading  index into `HEADINGS`, -1 = it stands
    beat     the one in which it is there, -1 = in all
    flash    the colour that the first mover has in each beat, -1 = its own

    ValueError for a number of frames that are no whole number a beat.
    """

    frames: int
    shape: Int[Tensor, "B columns"]
    color: Int[Tensor, "B columns"]
    size: Int[Tensor, "B columns"]
    x: Float[Tensor, "B columns"]
    y: Float[Tensor, "B columns"]
    heading: Int[Tensor, "B columns"]
    beat: Int[Tensor, "B columns"]
    flash: Int[Tensor, "B beats"]
    background: Int[Tensor, " B"]

    def __post_init__(self):
        if self.frames < BEATS or self.frames % BEATS:
            raise ValueError(f"a video has {BEATS} beats of 1 or more whole frames, so not {self.frames} frames")

    def __len__(self) -> int:
        return len(self.background)

    def __getitem__(self, index: slice | Tensor) -> Videos:
        return Videos(self.frames, *(value[index] for value in self._tensors()))

    def to(self, device: torch.device | str) -> Videos:
        return Videos(self.frames, *(value.to(device) for value in self._tensors()))

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in fields(self)[1:]]

    def backwards(self) -> Videos:
        """The same videos played from their end to their beginning."""
        heading = torch.where(self.heading < 0, self.heading, self.heading ^ 1)
        beat = torch.where(self.beat < 0, self.beat, BEATS - 1 - self.beat)
        return replace(self, heading=heading, beat=beat, flash=self.flash.flip(1))

    def only(self, movers: int) -> Videos:
        """The same videos with nothing in them but their first `movers` movers; the first flashes as it did."""
        gone = torch.arange(self.shape.shape[1], device=self.shape.device) >= movers
        nothing = torch.full_like(self.shape, -1)
        return replace(self, shape=nothing.where(gone, self.shape), beat=nothing.where(gone, self.beat))

    def beat_of(self) -> Int[Tensor, " T"]:
        """The beat of each frame."""
        return torch.arange(self.frames, device=self.shape.device) * BEATS // self.frames

    def shown(self) -> Shown:
        """What can be seen of each object in each frame, all (B, T, columns)."""
        beat = self.beat_of()
        there = (self.beat[:, None] < 0) | (self.beat[:, None] == beat[:, None])  # (B, T, columns)
        color = self.color[:, None].repeat(1, self.frames, 1)
        flash = self.flash[:, beat]  # (B, T)
        color[..., FLASHER] = torch.where(flash < 0, color[..., FLASHER], flash)
        x, y = self._places().unbind(dim=-1)
        shape, size = (value[:, None].expand_as(there) for value in (self.shape, self.size))
        return Shown(torch.where(there, shape, -1), color, size, x, y)

    def _places(self) -> Float[Tensor, "B T columns 2"]:
        device, (low, high) = self.x.device, REACH
        frame = torch.arange(self.frames, device=device)
        since = (frame + 0.5) * BEATS / self.frames - BEATS / 2  # beats since the middle, (T,)
        step = SPEED * torch.tensor([*HEADINGS.values(), (0, 0)], device=device)[self.heading]  # (B, columns, 2)
        place = torch.stack([self.x, self.y], dim=-1)[:, None] + since[:, None, None] * step[:, None]
        return low + (place - low).remainder(high - low)  # (B, T, columns, 2)


def sample_videos(n: int, generator: torch.Generator, frames: int = BEATS) -> Videos:
    """`n` random videos. Of visitors and of flashes there are 1 to 4, each number as often."""
    if n < 1:
        raise ValueError(f"need n >= 1 videos, got {n}")
    columns = len(_BACK_TO_FRONT)

    def below(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    visits, visit_beats, is_flash = _events(n, generator)
    there = torch.ones(n, columns, dtype=torch.bool)
    there[:, PROPS.start : PROPS.stop] = torch.arange(len(PROPS)) < below(len(PROPS) + 1, n, 1)
    there[:, VISITORS.start : VISITORS.stop] = torch.arange(len(VISITORS)) < visits
    shape = torch.rand(n, len(SHAPES), generator=generator).argsort(dim=1)  # (n, 8): no shape twice
    color, size = below(len(COLORS), n, columns), below(len(SIZES), n, columns)
    heading, beat = torch.full((n, columns), -1), torch.full((n, columns), -1)
    ways = torch.rand(n, len(HEADINGS), generator=generator).argsort(dim=1)  # no way twice, so none hides another
    heading[:, MOVERS.start : MOVERS.stop] = ways[:, : len(MOVERS)]
    beat[:, VISITORS.start : VISITORS.stop] = visit_beats
    x, y = REACH[0] + (REACH[1] - REACH[0]) * torch.rand(2, n, columns, generator=generator)
    rank = torch.rand(n, len(COLORS), generator=generator).scatter_add(1, color[:, :1], torch.ones(n, 1))
    others = rank.argsort(dim=1)[:, :BEATS]  # colours that are not the first mover's, one a beat
    return Videos(
        frames, torch.where(there, shape, -1), color, size, x, y, heading, torch.where(there, beat, -1),
        torch.where(is_flash, others, -1), below(len(BACKGROUNDS), n),
    )  # fmt: skip


def _events(
    n: int, generator: torch.Generator
) -> tuple[Int[Tensor, "n 1"], Int[Tensor, "n 4"], Bool[Tensor, "n beats"]]:
    """The number of visitors, the beat of each, neither the first nor the last, and which other beats are flashes."""
    visits, flashes = torch.randint(1, 5, (2, n, 1), generator=generator)
    rank = torch.rand(n, BEATS, generator=generator)
    rank[:, 0] = rank[:, -1] = 1  # what appears was not there before, and goes
    beats = rank.argsort(dim=1)[:, : len(VISITORS)]  # (n, 4)
    taken = torch.zeros(n, BEATS).scatter(1, beats, (torch.arange(len(VISITORS)) < visits).float())
    order = (torch.rand(n, BEATS, generator=generator) + taken).argsort(dim=1)
    return visits, beats, order.argsort(dim=1) < flashes


def render_videos(
    videos: Videos, size: int | tuple[int, int] = 64, device: str | torch.device | None = None
) -> Float[Tensor, "B T 3 H W"]:
    """Pictures in [0, 1], anti-aliased; `size` is (H, W) or one side, in pixels. What is nearer hides what is
    behind."""
    videos = videos.to(device) if device is not None else videos
    height, width = (size, size) if isinstance(size, int) else size
    device, shown = videos.shape.device, videos.shown()
    palette = torch.tensor(list(COLORS.values()), device=device)
    backgrounds = torch.tensor(list(BACKGROUNDS.values()), device=device)[videos.background]  # (B, 3)
    canvas = backgrounds.repeat_interleave(videos.frames * height * width, dim=0)  # (B*T*H*W, 3)
    for layer in map(shown.column, _BACK_TO_FRONT):
        for frame, column, place, cover in windows(layer, height, width):
            flat = frame[:, None] * height * width + place  # (n, w*w)
            paint = palette[layer.color[frame, column]][:, None] - canvas[flat]  # (n, w*w, 3)
            canvas.index_add_(0, flat.flatten(), (paint * cover[..., None]).flatten(0, 1))
    pictures = canvas.view(len(videos), videos.frames, height, width, 3)
    return pictures.permute(0, 1, 4, 2, 3).contiguous().clamp_(0, 1)  # (B, T, 3, H, W)
