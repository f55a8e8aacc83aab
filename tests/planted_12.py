"""Classic mistakes in the exercises of lesson 12, each with the message that it must get."""

from __future__ import annotations

_ROUTED = """
def routed(block, x, r, n):
    places = {places}
    few = {few}
    added = {added}
    return {result}
"""

_PLACES, _FEW = "r.topk(n).indices.sort().values", "x[places]"
_ADDED = "block(few, places) - few"
_RESULT = "x.index_copy(0, places, few + r[places, None] * added)"


def _routed(places: str = _PLACES, few: str = _FEW, added: str = _ADDED, result: str = _RESULT) -> str:
    return _ROUTED.format(places=places, few=few, added=added, result=result)


_ONE_BY_ONE = """
def routed(block, x, r, n):
    out = x.clone()
    for place in r.topk(n).indices:
        few = x[place][None]
        out[place] = x[place] + r[place] * (block(few, place[None]) - few)[0]
    return out
"""

_SURPRISE = """
def surprise(guess, r, n):
    picked = {picked}
    return {loss}
"""

_PICKED = "torch.zeros_like(r).index_fill(0, r.topk(n).indices, 1.0)"
_LOSS = "torch.nn.functional.binary_cross_entropy_with_logits(guess, picked)"
_EACH = "torch.nn.functional.binary_cross_entropy_with_logits(guess, picked, reduction='none')"


def _surprise(picked: str = _PICKED, loss: str = _LOSS) -> str:
    return _SURPRISE.format(picked=picked, loss=loss)


_SAVED = """
def saved(length, n, width, mlp_width):
    def cost(places):
        return {cost}

    return {share}
"""


def _saved(
    cost: str = "2 * places * (4 * width**2 + 3 * width * mlp_width) + 4 * places**2 * width",
    share: str = "1 - cost(n) / cost(length)",
) -> str:
    return _SAVED.format(cost=cost, share=share)


MISTAKES = {
    "12.routed": [
        (_routed("r.topk(n).indices"), "in the order of their scores"),
        (_routed(added="block(few, torch.arange(n, device=x.device)) - few"), "counted anew"),
        (_routed(result="x.index_copy(0, places, few + added)"), "not multiplied by r"),
        (_routed(added="block(few, places)", result="x.index_copy(0, places, r[places, None] * added)"), "state as"),
        (_routed(added="block(few, places)"), "all that the block gives"),
        (_routed(result="x.index_copy(0, places, few + r.softmax(0)[places, None] * added)"), "passed a softmax: "),
        (_routed(result="x.index_copy(0, places, few + r[places].softmax(0)[:, None] * added)"), "over the few"),
        (_routed(result="x.index_copy(0, places, few + r[places].sigmoid()[:, None] * added)"), "passed a sigmoid"),
        (_routed("(-r).topk(n).indices.sort().values"), "lowest scores"),
        (_routed(added="(block(x, torch.arange(len(x), device=x.device)) - x)[places]"), "read every place"),
        (
            _routed(added="block(x, torch.arange(len(x), device=x.device)) - x", result="x + r[:, None] * added"),
            "All places are changed",
        ),
        (
            _routed(result="torch.zeros_like(x).index_copy(0, places, few + r[places, None] * added)"),
            "have become 0",
        ),
        (_ONE_BY_ONE, "one by one"),
    ],
    "12.surprise": [
        (_surprise("(r > 0).float()"), "a score above 0"),
        (_surprise("r"), "target is the score itself"),
        (_surprise(f"1 - {_PICKED}"), "passed by"),
        (_surprise(loss=_LOSS.replace("guess", "r")), "The score is judged"),
        (_surprise(loss=_LOSS.replace("guess", "guess.sigmoid()")), "sigmoid is taken twice"),
        (_surprise(loss=f"{_EACH}.sum()"), "Summed over the places"),
        (_surprise(_PICKED.replace("r.topk", "guess.topk")), "highest of the guesses"),
        (_surprise(loss="torch.nn.functional.cross_entropy(guess, picked / n)"), "softmax over the places"),
        (_surprise(loss=f"{_EACH}[picked.bool()].mean()"), "wrongly let through"),
    ],
    "12.saved": [
        (_saved(share="cost(n) / cost(length)"), "what is left"),
        (_saved("2 * places * (4 * width**2 + 3 * width * mlp_width)"), "falls with the square"),
        (
            _saved("2 * places * (4 * width**2 + 3 * width * mlp_width) + 4 * places * length * width"),
            "falls with the square",
        ),
        (_saved("4 * places**2 * width"), "Attention alone"),
        (_saved("places * (4 * width**2 + 3 * width * mlp_width) + 4 * places**2 * width"), "multiply-add"),
        (_saved("2 * places * (4 * width**2 + 2 * width * mlp_width) + 4 * places**2 * width"), "three maps"),
        (_saved("8 * places * width**2 + 4 * places**2 * width"), "The MLP is forgotten"),
        (_saved("2 * places * (4 * width**2 + 3 * width * mlp_width) + 2 * places**2 * width"), "two products"),
    ],
}
