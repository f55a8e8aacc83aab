"""Wrong answers to the exercises of lesson 02, and what their check must say of them."""

_SIGMOID = """
import torch.nn.functional as F
def pair_loss(image, text, scale, bias):
    logits = {logits}
    sign = {sign}
    return {result}
"""


def _sigmoid(
    logits: str = "scale * image @ text.T + bias",
    sign: str = "2 * torch.eye(len(image), device=image.device) - 1",
    result: str = "-F.logsigmoid(sign * logits).sum(dim=1).mean()",
) -> str:
    return _SIGMOID.format(logits=logits, sign=sign, result=result)


_BIAS = """
import math
def best_bias(batch):
    return {result}
"""

_HARD = """
import torch.nn.functional as F
def foil_loss(image, text, foil, scale):
    own = torch.arange(len(image), device=image.device)
    per_image = F.cross_entropy({choices}, {target})
    per_text = F.cross_entropy({askers}, {asked})
    return {result}
"""


def _hard(
    choices: str = "scale * image @ torch.cat([text, foil]).T",
    target: str = "own",
    askers: str = "scale * text @ image.T",
    asked: str = "own",
    result: str = "(per_image + per_text) / 2",
) -> str:
    return _HARD.format(choices=choices, target=target, askers=askers, asked=asked, result=result)


_CANDIDATES = """
import torch
def candidates_loss(image, texts):
    cosines = {cosines}
    own = torch.eye(len(image), dtype=torch.bool, device=image.device)
    right = cosines[own]
    wrong = {wrong}
    below = torch.cat([{below}], dim=1)
    return {result}
"""


def _candidates(
    cosines: str = "(image @ texts.T / 0.07).view(len(image), len(image), -1)",
    wrong: str = "cosines.masked_fill(own[..., None], -torch.inf)",
    below: str = "right, wrong.flatten(1), wrong.transpose(0, 1).flatten(1)",
    result: str = "(below.logsumexp(dim=1) - right.logsumexp(dim=1)).mean()",
) -> str:
    return _CANDIDATES.format(cosines=cosines, wrong=wrong, below=below, result=result)


BOTH = "scale * torch.cat([text, foil]) @ image.T"

MISTAKES = {
    "02.sigmoid_loss": [
        (_sigmoid(result="-F.logsigmoid(sign * logits).mean()"), "The mean over all pairs"),
        (_sigmoid(result="-F.logsigmoid(sign * logits).sum()"), "The sum over all pairs"),
        (_sigmoid(sign="1 - 2 * torch.eye(len(image), device=image.device)"), "sign is turned round"),
        (_sigmoid(result="F.logsigmoid(sign * logits).sum(dim=1).mean()"), "minus the log of the probability"),
        (_sigmoid(sign="1"), "Every pair is taken for a yes"),
        (_sigmoid(logits="scale * image @ text.T"), "`bias` is missing"),
        (_sigmoid(logits="image @ text.T + bias"), "`scale` is missing"),
        (_sigmoid(logits="scale * (image @ text.T + bias)"), "`scale` multiplies the bias"),
        (_sigmoid(result="-F.logsigmoid((sign * logits).diagonal()).mean()"), "Only the own pairs"),
    ],
    "02.bias": [
        (_BIAS.format(result="math.log(batch - 1)"), "sign is wrong"),
        (_BIAS.format(result="-math.log(batch)"), "log of the ODDS"),
        (_BIAS.format(result="-10.0"), "SigLIP's choice"),
        (_BIAS.format(result="-math.log2(batch - 1)"), "base 2"),
        (_BIAS.format(result="[1.0, 2.0]"), "must return one number"),
        (_BIAS.format(result="-1.0"), r"For a batch of 64 it must give -4\.143, got -1\.000"),
    ],
    "02.hard_negatives": [
        (
            _hard(target="torch.eye(len(image), device=image.device).repeat(1, 2) / 2"),
            "Foils are counted as right answers",
        ),
        (_hard(target="own + len(image)"), "The targets are the foils"),
        (_hard(askers=BOTH, asked="own.repeat(2)"), "in the wrong direction as well"),
        (
            _hard(choices="scale * image @ text.T", askers=BOTH, asked="own.repeat(2)"),
            "wrong direction: they are more TEXTS",
        ),
        (_hard(choices="scale * image @ text.T"), "foils are not used"),
        (_hard(result="per_image"), "One direction only"),
        (_hard(choices="image @ torch.cat([text, foil]).T", askers="text @ image.T"), "not multiplied by `scale`"),
    ],
    "02.candidates": [
        (_candidates(result="(below.logsumexp(dim=1) - right.mean(dim=1)).mean()"), "Every candidate has to fit"),
        (_candidates(result="(below.logsumexp(dim=1) - right.amax(dim=1)).mean()"), "best candidate alone"),
        (_candidates(below="right, wrong.flatten(1)"), "Other pictures with this one's texts are missing"),
        (_candidates(below="wrong.flatten(1), wrong.transpose(0, 1).flatten(1)"), "missing below the line: then"),
        (
            _candidates(wrong="cosines", below="wrong.flatten(1), wrong.transpose(0, 1).flatten(1)"),
            "counted more than once",
        ),
        (_candidates(cosines="(image @ texts.T).view(len(image), len(image), -1)"), "not divided by 0.07"),
        (_candidates(result="(below.logsumexp(dim=1) - right.logsumexp(dim=1)).sum()"), "take the mean"),
        (
            _candidates(cosines="(image @ texts.T / 0.07).view(len(image), -1, len(image)).transpose(1, 2)"),
            "in the wrong order",
        ),
        (_candidates(result="(right.logsumexp(dim=1) - below.logsumexp(dim=1)).mean()"), "The sign is wrong"),
    ],
}
