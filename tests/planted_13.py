"""Classic mistakes in the exercises of lesson 13, each with the message that it must get."""

from __future__ import annotations

_FRONT = """
def on_front(cost, right):
    cheap, good = {cheap}, {good}
    better = {better}
    return {result}
"""

_BEATS = "(cheap | good) & (cost[:, None] <= cost) & (right[:, None] >= right)"


def _front(
    cheap: str = "cost[:, None] < cost", good: str = "right[:, None] > right", better: str = _BEATS,
    result: str = "~better.any(dim=0)",
) -> str:  # fmt: skip
    return _FRONT.format(cheap=cheap, good=good, better=better, result=result)


_ONE_PASS = """
def on_front(cost, right):
    best, kept = -1.0, torch.zeros(len(cost), dtype=torch.bool)
    for n in sorted(range(len(cost)), key=lambda n: (float(cost[n]), -float(right[n]))):
        if right[n] > best:
            best, kept[n] = float(right[n]), True
    return kept
"""

_EXPECTED = """
def expected(ratings):
    gaps = ratings[:, None] - ratings
    powers = 10 ** (ratings / 400)
    return {}
"""

_CHOOSE = """
def choose(right, cost, limit):
    paid = {paid}
    mean = right.mean(dim=1)
    best = {best}
    lead = right[best] - right
    half = {half}
    tied = {tied}
    return {result}
"""


def _choose(
    paid: str = "cost <= limit", best: str = "int(mean.where(paid, -1.0).argmax())",
    half: str = "4.303 * lead.std(dim=1) / 3**0.5", tied: str = "(lead.mean(dim=1) <= half) & paid",
    result: str = "int(cost.where(tied, torch.inf).argmin())",
) -> str:  # fmt: skip
    return _CHOOSE.format(paid=paid, best=best, half=half, tied=tied, result=result)


_OWN = "4.303 * right.std(dim=1) / 3**0.5"

_ROWS = """
def row_means(features, grid):
    return {}
"""

MISTAKES = {
    "13.front": [
        (_front(better="(cost[:, None] < cost) & (right[:, None] > right)"), "worse in BOTH"),
        (_front(better="(cost[:, None] <= cost) & (right[:, None] >= right)"), "Equals beat each other"),
        (_ONE_PASS, "Of two equals one is gone"),
        (_front(result="right == right.max()"), "Only the most right is kept"),
        (_front(result="cost == cost.min()"), "Only the cheapest is kept"),
        (
            _front("cost[:, None] > cost", better=_BEATS.replace("cost[:, None] <= cost", "cost[:, None] >= cost")),
            "price has the wrong sign",
        ),
        (
            _front(good="right[:, None] < right", better=_BEATS.replace(">= right", "<= right")),
            "accuracy has the wrong sign",
        ),
        (_front(result="better.any(dim=0)"), "It says which are beaten"),
    ],
    "13.expected": [
        (_EXPECTED.format("1 / (1 + 10 ** (gaps / 400))"), "Row and column are exchanged"),
        (_EXPECTED.format("torch.sigmoid(gaps / 400)"), "TEN to one"),
        (_EXPECTED.format("10 ** (gaps / 400)"), "These are the odds"),
        (_EXPECTED.format("1 / (1 + 10 ** -gaps)"), "Points are taken as they are"),
        (_EXPECTED.format("ratings[:, None] / (ratings[:, None] + ratings)"), "divided by one another"),
        (_EXPECTED.format("(powers / powers.sum()).repeat(len(ratings), 1)"), "A softmax over all"),
    ],
    "13.choose": [
        (_choose(paid="cost < torch.inf"), "The limit is not kept"),
        (_choose(result="best"), "a cheaper one may tie with it"),
        (_choose(tied="paid"), "however far it is behind"),
        (_choose(result="int(cost.where(tied, -1.0).argmax())"), "dearest of the tied"),
        (_choose(best="int(mean.argmax())"), "beyond the limit, too"),
        (_choose(half=_OWN, tied="(mean + half >= mean[best] - half[best]) & paid"), "single designs were compared"),
        (_choose(half="1.96 * lead.std(dim=1) / 3**0.5"), "1.96 is for many seeds"),
        (_choose(half="4.303 * lead.std(dim=1)"), "spread of single seeds"),
        (_choose(half="4.303 * lead.std(dim=1, correction=0) / 3**0.5"), "divided by n"),
    ],
    "13.rows": [
        (_ROWS.format("features.unflatten(1, grid).mean(dim=1)"), "means of columns"),
        (_ROWS.format("features.unflatten(1, grid[::-1]).mean(dim=2)"), "exchanged"),
        (_ROWS.format("features.unflatten(1, grid[::-1]).mean(dim=1)"), "Every so many-th patch"),
        (_ROWS.format("features.unflatten(1, grid).sum(dim=2)"), "Summed"),
        (_ROWS.format("features.unflatten(1, grid).amax(dim=2)"), "The largest of a row"),
        (_ROWS.format("features.mean(dim=1, keepdim=True)"), "One mean of the whole picture"),
        (_ROWS.format("features.unflatten(1, grid).mean(dim=3)"), "The numbers of a patch"),
    ],
}
