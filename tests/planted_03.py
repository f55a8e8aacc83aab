"""Wrong answers to the exercises of lesson 03, and what their check must say of them."""

_PROJECT = """
import torch.nn.functional as F
def project(features, w1, b1, w2, b2):
    hidden = F.linear(features, w1, b1)
    return {}
"""
_MERGE = """
def merge_row(words, ids, visual, image_id):
    place = int((ids == image_id).nonzero())
    return torch.cat([{}])
"""
_LABELS = """
from minivlm.batch import IGNORE
def answer_labels(tokenizer, dialog):
    labels = {start}
    for question, answer in dialog:
        asked = tokenizer.encode(question)
        labels += {asked}
        labels += tokenizer.encode(answer) + [{end}]
    return {result}
"""


def _labels(
    start: str = "[IGNORE, IGNORE]",
    asked: str = "[IGNORE] * len(asked)",
    end: str = "tokenizer.eos_id",
    result: str = "labels",
) -> str:
    return _LABELS.format(start=start, asked=asked, end=end, result=result)


MISTAKES = {
    "03.projection": [
        (_PROJECT.format("F.linear(hidden, w2, b2)"), "no activation between"),
        (_PROJECT.format("F.linear(F.relu(hidden), w2, b2)"), "a ReLU"),
        (_PROJECT.format("F.gelu(F.linear(hidden, w2, b2))"), "belongs between the two maps"),
        (_PROJECT.format("F.linear(F.gelu(F.linear(features.mean(1), w1, b1)), w2, b2)"), "mixes the patches"),
        (_PROJECT.format("F.gelu(hidden) @ w2 + b2"), "the wrong way round"),
    ],
    "03.merge": [
        (_MERGE.format("words[: place + 1], visual, words[place + 1 :]"), "placeholder is still there, before"),
        (_MERGE.format("words[:place], visual, words[place:]"), "placeholder is still there, after"),
        (_MERGE.format("words[: place - 1], visual, words[place + 1 :]"), "Off by one: the word before"),
        (_MERGE.format("words[:place], visual, words[place + 2 :]"), "Off by one: the word after"),
        (_MERGE.format("visual, words[:place], words[place + 1 :]"), "wrong place: .* at the front"),
        (_MERGE.format("words[:place], words[place + 1 :], visual"), "wrong place: .* at the end"),
    ],
    "03.labels": [
        (_labels(start="[IGNORE, tokenizer.image_id]"), "loss is taken on the picture"),
        (_labels(asked="asked"), "loss is taken on the question"),
        (_labels(start="[tokenizer.bos_id, tokenizer.image_id]", asked="asked"), "taken on everything"),
        (_labels(result="labels[1:] + [IGNORE]"), "Off by one: .* to the left"),
        (_labels(end="IGNORE"), "end of the answer is not learned"),
    ],
}
