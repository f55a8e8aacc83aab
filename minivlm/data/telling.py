"""Telling: a video whole in words, as `captions` does with a scene."""

from __future__ import annotations

from minivlm.data.scenes import BACKGROUND_NAMES, COLOR_NAMES, SHAPE_NAMES, SIZE_NAMES
from minivlm.data.videos import HEADINGS, MOVERS, PROPS, VISITORS, Videos

_WAYS = tuple(HEADINGS)


def tell_videos(videos: Videos) -> list[str]:
    """The movers and their ways, what stands there, then what happens, one after the other, and the background: "a
    small red star moving left , a large blue ring moving up , a small pink heart , then a lime flash , then a large
    green cross , on gray ." """
    return [_tell(videos[i : i + 1]) for i in range(len(videos))]


def _tell(video: Videos) -> str:
    shapes, colors, sizes, ways, beats, flashes = (
        getattr(video, name)[0].tolist() for name in ("shape", "color", "size", "heading", "beat", "flash")
    )

    def name(column: int) -> str:
        return f"a {SIZE_NAMES[sizes[column]]} {COLOR_NAMES[colors[column]]} {SHAPE_NAMES[shapes[column]]}"

    told = [f"{name(column)} moving {_WAYS[ways[column]]}" for column in MOVERS]
    told += [name(column) for column in PROPS if shapes[column] >= 0]
    events = {beats[column]: name(column) for column in VISITORS if beats[column] >= 0}
    events |= {beat: f"a {COLOR_NAMES[color]} flash" for beat, color in enumerate(flashes) if color >= 0}
    told += [f"then {events[beat]}" for beat in sorted(events)]
    return f"{' , '.join(told)} , on {BACKGROUND_NAMES[int(video.background[0])]} ."
