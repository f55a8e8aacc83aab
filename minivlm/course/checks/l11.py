"""Exercises of lesson 11: how many frames fit, LLaMA-VID's two tokens of a frame, and frames that keep their order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.context_content import ContextContent, ContextContentConfig
from minivlm.connectors.perceiver import FrameEmbedding
from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec, Mistake
from minivlm.figures.video import frames_that_fit

FITS = ((576, 4096, 64), (2, 4096, 64), (7, 96, 20), (4, 40, 8), (30, 40, 20), (9, 9, 9))  # tokens, context, words


def check_fit(answer: Callable) -> None:
    given = [answer(*case) for case in FITS]
    if not all(isinstance(count, int) for count in given):
        raise Mistake(f"Frames are whole: return an int, got {given[0]!r}.")
    want = [frames_that_fit(*case) for case in FITS]
    classics = {
        "The words are forgotten: they take a position each, and what is left is for frames.":
            [context // tokens for tokens, context, _ in FITS],
        "It rounds up: the last frame would be cut off, and a part of it is not a frame.":
            [-(-(context - words) // tokens) for tokens, context, words in FITS],
        "It counts positions: divide what the words leave by the tokens of a frame.":
            [context - words for _, context, words in FITS],
        "One too few: where the last frame ends exactly at the end, it fits.":
            [max(0, (context - words - 1) // tokens) for tokens, context, words in FITS],
        "The words are paid for with every frame: there is one text beside all frames.":
            [context // (tokens + words) for tokens, context, words in FITS],
    }  # fmt: skip
    compare(torch.tensor(given), torch.tensor(want), {told: torch.tensor(counts) for told, counts in classics.items()})


class _Given(nn.Module):
    """In place of the Q-Former: what its queries have come to ask."""

    def __init__(self, asking: Tensor):
        super().__init__()
        self.asking = asking

    def forward(self, *_: Tensor) -> Tensor:
        return self.asking


def two_tokens(asking: Tensor, patches: Tensor, key: nn.Module, context: nn.Module, content: nn.Module) -> Tensor:
    """The package's `ContextContent` with these parts: queries (B, Q, D), patches (B, N, D) to tokens (B, 2, Dout)."""
    bert = BertConfig(width=2, depth=1, heads=1, mlp_width=2)
    config = ContextContentConfig(2, VocabularyConfig(2, context=2), asking.shape[1], bert)
    connector = ContextContent(config, patches.shape[2], 1, (patches.shape[1], 1))
    connector.norm, connector.encoder, connector.query = nn.Identity(), _Given(asking), nn.Identity()
    connector.key, connector.context, connector.content = key, context, content
    words = torch.zeros(len(patches), 1, dtype=torch.long, device=patches.device)
    return connector(patches, words, words == 0)


class _Linear(nn.Module):
    """A linear map with weights of its own seed, behind a GELU if it is `bent`."""

    def __init__(self, seed: int, out: int, bent: bool = False):
        super().__init__()
        self.weight, self.bias, self.bent = draw(out, 6, seed=seed), draw(out, seed=seed + 1), bent

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.gelu(x) if self.bent else x, self.weight, self.bias)


@torch.no_grad()
def check_two(answer: Callable) -> None:
    for frames, queries, count in ((4, 4, 4), (3, 2, 5)):  # all alike first: no mistake changes the shape
        inputs = (draw(frames, queries, 6, seed=11), 2 * draw(frames, count, 6, seed=12))
        inputs += (_Linear(13, 6), _Linear(15, 5), _Linear(17, 5, bent=True))
        compare(answer(*inputs), two_tokens(*inputs), _wrong_tokens(*inputs))


def _wrong_tokens(
    asking: Tensor, patches: Tensor, key: nn.Module, context: nn.Module, content: nn.Module
) -> dict[str, Tensor]:
    """What the classic mistakes give, by their messages."""
    scale = patches.shape[2] ** -0.5
    scores = asking @ key(patches).transpose(1, 2) * scale  # (B, Q, N)
    found = scores.softmax(dim=-1) @ patches  # (B, Q, D)
    all_keys = key(patches).flatten(0, 1)  # (B*N, D)
    everywhere = (asking @ all_keys.T * scale).softmax(dim=-1) @ patches.flatten(0, 1)
    once = (asking.mean(dim=1, keepdim=True) @ key(patches).transpose(1, 2) * scale).softmax(dim=-1) @ patches
    mean, heard = patches.mean(dim=1, keepdim=True), found.mean(dim=1, keepdim=True)

    def tokens(needed: Tensor = heard, there: Tensor = mean) -> Tensor:
        return torch.cat([context(needed), content(there)], dim=1)

    return {
        "It looks at the frames of all videos at once: each frame's queries see that frame's patches and no others.":
            tokens(everywhere.mean(dim=1, keepdim=True)),
        "The content is projected before the mean: take the mean over patches first. The map is not linear, so the "
        "order counts.": torch.cat([tokens()[:, :1], content(patches).mean(dim=1, keepdim=True)], dim=1),
        "The scores are not divided by sqrt(D).": tokens(
            (scores / scale).softmax(dim=-1).matmul(patches).mean(dim=1, keepdim=True)),
        "Wrong softmax axis: each query shares its attention out over the patches, the last axis.":
            tokens((scores.softmax(dim=1) @ patches).mean(dim=1, keepdim=True)),
        "There is no softmax: scores are not shares.": tokens((scores @ patches).mean(dim=1, keepdim=True)),
        "The mean over queries comes too early: let each query look first, and then take the mean of what they found.":
            tokens(once),
        "The values are projected by `key`: queries gather the patches as they are.":
            tokens((scores.softmax(dim=-1) @ key(patches)).mean(dim=1, keepdim=True)),
        "The keys are the patches as they are: they pass `key` first.":
            tokens(((asking @ patches.transpose(1, 2) * scale).softmax(dim=-1) @ patches).mean(dim=1, keepdim=True)),
        "What the queries found is added up: take the mean over the queries.": tokens(found.sum(dim=1, keepdim=True)),
        "Only the first query is heard: take the mean over all queries.": tokens(found[:, :1]),
        "The content is what the queries found: it is the mean of all patches, whatever is asked.":
            tokens(there=heard),
        "The content takes the largest of each channel: take the mean over patches.":
            tokens(there=patches.amax(dim=1, keepdim=True)),
        "The two tokens are exchanged: the context token comes first.": tokens().flip(1),
        "`context` and `content` are exchanged.": torch.cat([content(heard), context(mean)], dim=1),
    }  # fmt: skip


def timed(frames: Tensor, times: Tensor) -> Tensor:
    """The package's `FrameEmbedding` with these vectors (T, D): frames (B, T, N, D) to patches in a row (B, T*N, D)."""
    layer = FrameEmbedding(len(times), times.shape[1], (frames.shape[2], 1)).to(frames.device)
    layer.embedding = nn.Parameter(times)
    return layer(frames.flatten(1, 2))


@torch.no_grad()
def check_timed(answer: Callable) -> None:
    for shape in ((4, 4, 4, 4), (2, 3, 5, 4)):  # all alike first: no mistake changes the shape
        frames, times = draw(*shape, seed=21), draw(shape[1], shape[3], seed=22)
        compare(answer(frames, times), timed(frames, times), _wrong_times(frames, times))


def _wrong_times(frames: Tensor, times: Tensor) -> dict[str, Tensor]:
    right = frames + times[:, None]
    classics = {
        "The frames have no times: in a bag of patches nobody can tell which frame came first.": frames.flatten(1, 2),
        "Patches that follow one another are of different frames: frame after frame, T before N.":
            right.transpose(1, 2).flatten(1, 2),
        "The times are multiplied: they are added.": (frames * times[:, None]).flatten(1, 2),
        "Only the first patch of each frame is told its time.":
            torch.cat([right[:, :, :1], frames[:, :, 1:]], dim=2).flatten(1, 2),
        "All frames have the time of the first.": (frames + times[0]).flatten(1, 2),
        "The times are counted from the end.": (frames + times.flip(0)[:, None]).flatten(1, 2),
    }  # fmt: skip
    if len(set(frames.shape)) == 1:
        classics |= {
            "The times are added along the patches: `times` broadcasts against the last axes, N and D. Give it an axis "
            "for N: `times[:, None]`.": (frames + times).flatten(1, 2),
            "The times are added along the batch: each video would have one time, and its frames none.":
                (frames + times[:, None, None]).flatten(1, 2),
            "The times are added to channels: `times` is (T, D), a row a frame.":
                (frames + times.T[:, None]).flatten(1, 2),
        }  # fmt: skip
    return classics


EXERCISES = {
    "11.fit": ExerciseSpec("How many frames fit", 1, frames_that_fit, check_fit),
    "11.two": ExerciseSpec("Two tokens a frame", 3, two_tokens, check_two),
    "11.timed": ExerciseSpec("Frames that keep their order", 2, timed, check_timed),
}
