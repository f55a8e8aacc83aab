"""Exercises of lesson 02: SigLIP's loss, the bias it should begin with, hard negatives, and MIL-NCE."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minivlm.contrastive.clip import softmax_loss
from minivlm.contrastive.mmv import TEMPERATURE, nce_loss
from minivlm.contrastive.negatives import hard_negative_loss
from minivlm.contrastive.siglip import sigmoid_loss
from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec, Mistake


def check_sigmoid(answer: Callable) -> None:
    image, text = _vectors(1), _vectors(2)
    scale, bias = image.new_tensor(7.0), image.new_tensor(-3.0)
    sign = 2 * torch.eye(5, device=image.device) - 1

    def pairs(scale: Tensor = scale, bias: Tensor = bias, sign: Tensor = sign) -> Tensor:
        return -F.logsigmoid(sign * (scale * image @ text.T + bias))  # (pictures, texts)

    logits = scale * image @ text.T + bias
    classics = {
        "The mean over all pairs: sum over the texts of a picture, and take the mean over the pictures only.":
            pairs().mean(),
        "The sum over all pairs: sum over the texts of a picture, but take the MEAN over the pictures.": pairs().sum(),
        "The sign is turned round: own pairs are a yes (+1), all others a no (-1).": pairs(sign=-sign).sum(1).mean(),
        "The sign is wrong: a loss is minus the log of the probability.": -pairs().sum(1).mean(),
        "Every pair is taken for a yes: a picture and another's text are a no, the logit times -1.":
            pairs(sign=sign.abs()).sum(1).mean(),
        "Only the own pairs are asked about: every other pair is a question too, and its answer is no.":
            pairs().diagonal().mean(),
        "`bias` is missing: the logit of a pair is scale * cosine + bias.": pairs(bias=0 * bias).sum(1).mean(),
        "`scale` is missing: the logit of a pair is scale * cosine + bias.": pairs(scale=scale / scale).sum(1).mean(),
        "`scale` multiplies the bias too: the logit of a pair is scale * cosine + bias.":
            pairs(bias=scale * bias).sum(1).mean(),
        "`bias` is subtracted: the logit of a pair is scale * cosine + bias.": pairs(bias=-bias).sum(1).mean(),
        "The sign multiplies only the cosine: it turns the whole logit round, the bias with it.":
            -F.logsigmoid(sign * (scale * image @ text.T) + bias).sum(1).mean(),
        "A softmax over the texts is CLIP's loss: here every pair is a yes-no question of its own.":
            softmax_loss(image, text, scale),
        "The log is missing: the loss is minus the LOG of the sigmoid.": -(sign * logits).sigmoid().sum(1).mean(),
    }  # fmt: skip
    compare(answer(image, text, scale, bias), sigmoid_loss(image, text, scale, bias), classics)


def best_bias(batch: int) -> float:
    """The bias at which one yes among `batch` pairs costs least, if all cosines are 0: the log of the odds."""
    return -math.log(batch - 1)


def check_bias(answer: Callable) -> None:
    for batch in (64, 7, 32768):
        want = best_bias(batch)
        said = answer(batch)
        if isinstance(said, bool) or not isinstance(said, (int, float, Tensor)) or torch.as_tensor(said).numel() != 1:
            raise Mistake(f"It must return one number, got {said!r}.")
        got = float(said)
        classics = {
            -want: "The sign is wrong: nearly all pairs are a no, so the bias must be negative.",
            -math.log(batch): f"Nearly: the sigmoid must be 1/{batch}, and its logit is the log of the ODDS, one yes "
            f"to {batch - 1} no, not the log of the probability.",
            1 / batch: "That is the probability of a yes: which number has it as its sigmoid?",
            -math.log2(batch - 1): "Log to the base 2: the sigmoid is made of the natural exponential.",
            -math.log10(batch - 1): "Log to the base 10: the sigmoid is made of the natural exponential.",
            -math.log(batch**2 - batch): "All pairs of the batch against one: there is one yes in each ROW of "
            f"{batch}, so {batch} in all.",
            -10.0: "That is SigLIP's choice for batches of 32,768, whatever the batch: work it out from `batch`.",
            0.0: "At 0 every pair is a yes with probability one half, but only one in a row is a yes.",
        }
        if math.isclose(got, want, abs_tol=1e-3):
            continue
        named = [message for wrong, message in classics.items() if math.isclose(got, wrong, abs_tol=1e-3)]
        raise Mistake(named[0] if named else f"For a batch of {batch} it must give {want:.3f}, got {got:.3f}.")


def check_hard_negatives(answer: Callable) -> None:
    image, text, foil = _vectors(1), _vectors(2), _vectors(3)
    scale = image.new_tensor(7.0)
    own, ones = torch.arange(5, device=image.device), torch.eye(5, device=image.device)
    more = scale * image @ torch.cat([text, foil]).T  # (pictures, texts and foils)
    per_image, per_text = F.cross_entropy(more, own), F.cross_entropy(scale * text @ image.T, own)
    others = scale * torch.cat([text, foil]) @ image.T  # (texts and foils, pictures)
    own_foil = torch.cat([scale * image @ text.T, scale * (image * foil).sum(1, keepdim=True)], dim=1)
    classics = {
        "Foils are counted as right answers: a foil belongs to no picture, so only the own text is the target.":
            (F.cross_entropy(more, torch.cat([ones, ones], dim=1) / 2) + per_text) / 2,
        "The targets are the foils: column i is picture i's text, column B + i its foil.":
            (F.cross_entropy(more, own + 5) + per_text) / 2,
        "Foils are in the wrong direction as well: a foil must not choose among pictures, since none is its own.":
            (per_image + F.cross_entropy(others, own.repeat(2))) / 2,
        "Foils are in the wrong direction: they are more TEXTS for a picture to choose among, and choose none.":
            (F.cross_entropy(scale * image @ text.T, own) + F.cross_entropy(others, own.repeat(2))) / 2,
        "The foils are not used: this is CLIP's loss.": softmax_loss(image, text, scale),
        "Each picture meets only its own foil: let it choose among all foils of the batch, as among all texts.":
            (F.cross_entropy(own_foil, own) + per_text) / 2,
        "One direction only: texts must choose among pictures as well.": per_image,
        "The two directions are added: the loss is their mean.": per_image + per_text,
        "The cosines are not multiplied by `scale`.": hard_negative_loss(image, text, foil, scale / scale),
        "Text and foil are exchanged: the foil is what a picture must NOT choose.":
            hard_negative_loss(image, foil, text, scale),
    }  # fmt: skip
    compare(answer(image, text, foil, scale), hard_negative_loss(image, text, foil, scale), classics)


def check_candidates(answer: Callable) -> None:
    image, texts = _vectors(1), _vectors(2, 15)
    own = torch.eye(5, dtype=torch.bool, device=image.device)

    def loss(cosines: Tensor, back: bool = True, above: bool = True, twice: bool = False) -> Tensor:
        """Of `cosines` as picture, owner, candidate: a share's loss a picture, (5,)."""
        right, wrong = cosines[own], cosines if twice else cosines.masked_fill(own[..., None], -torch.inf)
        parts = [wrong.flatten(1)] + [right] * above + [wrong.transpose(0, 1).flatten(1)] * back
        return torch.cat(parts, dim=1).logsumexp(dim=1) - right.logsumexp(dim=1)

    plain = (image @ texts.T).view(5, 5, 3)
    cosines = plain / TEMPERATURE
    below = loss(cosines) + cosines[own].logsumexp(dim=1)  # the log of what is below the line
    classics = {
        "Every candidate has to fit: it is enough if one does, so sum the `exp` of the own pairs BEFORE the log.":
            (below - cosines[own].mean(dim=1)).mean(),
        "The best candidate alone is above the line: all K own pairs count there.":
            (below - cosines[own].amax(dim=1)).mean(),
        "Other pictures with this one's texts are missing below the line.": loss(cosines, back=False).mean(),
        "The own pairs are missing below the line: then it is no share, and can fall below 0.":
            loss(cosines, above=False).mean(),
        "Own pairs are counted more than once below the line: mask them among the wrong ones, in both directions.":
            loss(cosines, above=False, twice=True).mean(),
        "The cosines are not divided by 0.07.": loss(plain).mean(),
        "The cosines are multiplied by 0.07: divide.": loss(plain * TEMPERATURE).mean(),
        "The sum over the pictures: take the mean.": loss(cosines).sum(),
        "The texts are taken in the wrong order: those of picture i are the rows i*K to i*K + K-1.":
            loss((image @ texts.T).view(5, 3, 5).transpose(1, 2) / TEMPERATURE).mean(),
        "The sign is wrong: a loss is MINUS the log of the share.": -loss(cosines).mean(),
    }  # fmt: skip
    compare(answer(image, texts), nce_loss(image, texts), classics)


def _vectors(seed: int, count: int = 5) -> Tensor:
    """Vectors of length 1."""
    return F.normalize(draw(count, 8, seed=seed), dim=-1)


EXERCISES = {
    "02.sigmoid_loss": ExerciseSpec("Every pair a question", 3, sigmoid_loss, check_sigmoid),
    "02.bias": ExerciseSpec("What to say when you know nothing", 1, best_bias, check_bias),
    "02.hard_negatives": ExerciseSpec("Foils as wrong answers", 3, hard_negative_loss, check_hard_negatives),
    "02.candidates": ExerciseSpec("One of them fits", 3, nce_loss, check_candidates),
}
