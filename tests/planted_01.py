"""Wrong answers to the exercises of lesson 01, and what their check must say of them."""

_ATTENTION = """
def attention(q, k, v, causal=False):
    scores = q @ k.transpose(-2, -1) {scale}
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu({first})
        scores = scores.masked_fill(later, {masked})
    return scores.softmax(dim={axis}) @ v
"""


def _attention(scale: str = "/ q.shape[-1] ** 0.5", first: int = 1, masked: str = "-torch.inf", axis: int = -1) -> str:
    return _ATTENTION.format(scale=scale, first=first, masked=masked, axis=axis)


_LOSS = """
import torch.nn.functional as F
def contrastive_loss(image, text, scale):
    logits = {logits}
    own = {own}
    return {result}
"""


def _loss(
    logits: str = "scale * image @ text.T",
    own: str = "torch.arange(len(image), device=image.device)",
    result: str = "(F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2",
) -> str:
    return _LOSS.format(logits=logits, own=own, result=result)


_CLASSIFY = """
def classify(images, prompts):
    classes = torch.stack([{one} for captions in prompts])
    return {result}
"""


def _classify(one: str, result: str = "(images @ classes.T).argmax(1)") -> str:
    return _CLASSIFY.format(one=one, result=result)


MEAN = "captions.mean(0) / captions.mean(0).norm()"

MISTAKES = {
    "01.attention": [
        (_attention(scale=""), r"not divided by sqrt\(d\)"),
        (_attention(scale="/ q.shape[-1]"), r"by d, not by sqrt"),
        (_attention(axis=-2), "softmax runs over the wrong axis"),
        (_attention(first=9), "There is no causal mask"),
        (_attention(first=2), "shifted: it lets each word see the NEXT"),
        (_attention(first=0, masked="-1e9"), "shifted: a word may also see itself"),
        (_attention(masked="0.0"), "set to 0, which is a score like any other"),
    ],
    "01.loss": [
        (_loss(result="F.cross_entropy(logits, own)"), "One direction only"),
        (_loss(result="-logits.log_softmax(dim=0)[own, own].mean()"), "softmax over the wrong axis"),
        (_loss(logits="image @ text.T"), "not multiplied by `scale`"),
        (_loss(own="torch.arange(len(image), device=image.device).roll(1)"), "targets are wrong"),
        (_loss(own="torch.zeros(len(image), dtype=torch.long, device=image.device)"), "every picture to text 0"),
        (
            _loss(result="F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)"),
            "added: the loss is their mean",
        ),
    ],
    "01.zero_shot": [
        (_classify("captions.mean(0)"), "shorter than 1"),
        (_classify("captions.sum(0)"), "a class with more captions wins"),
        (_classify(MEAN, "(images @ classes.T).argmin(1)"), "FARTHEST"),
        (_classify(MEAN, "(images @ classes.T).argmax(0)"), "over the wrong axis"),
        (_classify("captions[0]"), "only the first caption"),
        (_classify(MEAN, "images @ classes.T"), r"must have shape \(200,\), got \(200, 4\)"),
    ],
}
