"""Classic mistakes in the exercises of lesson 11, each with the message that it must get."""

from __future__ import annotations

_FIT = """
def frames_fit(tokens, context, words):
    return {}
"""
_TWO = """
def two_tokens(asking, patches, key, context, content):
    scores = {scores}
    found = {found}
    needed = {needed}
    return torch.cat([context(needed), {content}], dim=1)
"""
_TIMED = """
def timed(frames, times):
    return {}
"""


def _two(
    scores: str = "asking @ key(patches).transpose(1, 2) / patches.shape[2] ** 0.5",
    found: str = "scores.softmax(dim=-1) @ patches",
    needed: str = "found.mean(dim=1, keepdim=True)",
    content: str = "content(patches.mean(dim=1, keepdim=True))",
) -> str:
    return _TWO.format(scores=scores, found=found, needed=needed, content=content)


MISTAKES = {
    "11.fit": [
        (_FIT.format("context // tokens"), "The words are forgotten"),
        (_FIT.format("-((words - context) // tokens)"), "It rounds up"),
        (_FIT.format("(context - words) / tokens"), "Frames are whole"),
        (_FIT.format("context // (tokens + words)"), "paid for with every frame"),
    ],
    "11.two": [
        (
            _two(
                scores="asking @ key(patches).flatten(0, 1).T / patches.shape[2] ** 0.5",
                found="scores.softmax(dim=-1) @ patches.flatten(0, 1)",
            ),
            "the frames of all videos at once",
        ),
        (_two(content="content(patches).mean(dim=1, keepdim=True)"), "projected before the mean"),
        (_two(scores="asking @ key(patches).transpose(1, 2)"), "not divided by sqrt"),
        (_two(found="scores.softmax(dim=1) @ patches"), "Wrong softmax axis"),
        (_two(scores="asking.mean(1, True) @ key(patches).transpose(1, 2) / 6**0.5"), "comes too early"),
        (_two(found="scores.softmax(dim=-1) @ key(patches)"), "The values are projected"),
        (_two(needed="found[:, :1]"), "Only the first query"),
        (_two(content="content(needed)"), "The content is what the queries found"),
    ],
    "11.timed": [
        (_TIMED.format("frames.flatten(1, 2)"), "in a bag of patches"),
        (_TIMED.format("(frames + times).flatten(1, 2)"), "added along the patches"),
        (_TIMED.format("(frames + times[:, None, None]).flatten(1, 2)"), "added along the batch"),
        (_TIMED.format("(frames + times[:, None]).transpose(1, 2).flatten(1, 2)"), "T before N"),
        (_TIMED.format("frames.flatten(1, 2) + times.repeat(frames.shape[2], 1)"), "added along the patches"),
        (_TIMED.format("(frames * times[:, None]).flatten(1, 2)"), "The times are multiplied"),
    ],
}
