"""What stands between the tokens of a picture: newlines, tags, an end; and where each of them comes from."""

from __future__ import annotations

import pytest
import torch
from references import features
from torch import nn

from minivlm.connectors.projection import LinearProjection
from minivlm.connectors.separators import LEARNED, Separators
from minivlm.layout import Kind, Views
from minivlm.storage import _from_dict, _to_dict

VIEWS: Views = ((2, 3), (1, 2), (3, 1))


def slow(config: Separators, views: Views, tokens: list, words: list, learned: list) -> list:
    """The row of a picture as one would write it by hand: `tokens` of each view, the vector of each word."""
    vector = lambda word: learned.pop(0) if word == LEARNED else words[word]  # noqa: E731
    newline = None if config.newline is None else vector(config.newline)
    tags = [[vector(word) for word in tag] for tag in config.tags] or [[]] * len(views)
    row = []
    for number, (rows, cols) in enumerate(views):
        row += tags[number]
        for line in range(rows):
            row += list(tokens[number][line * cols : (line + 1) * cols])
            row += [newline] if newline is not None and number >= config.lined_from else []
    return row + ([] if config.end is None else [vector(config.end)])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "config",
    [
        Separators(),
        Separators(newline=5),
        Separators(newline=LEARNED, lined_from=1, end=4),
        Separators(tags=((7,), (8,), (9,))),
        Separators(tags=((7, 1), (), (9, 2, 3)), end=LEARNED),
        Separators(newline=2, tags=((LEARNED,), (LEARNED, 3), (LEARNED,)), end=LEARNED),
    ],
)
def test_every_separator_stands_where_one_would_write_it(config, count):
    """For pictures with all the views that there are tags for, and for those with fewer."""
    torch.manual_seed(0)
    views, embedding = VIEWS[:count], nn.Embedding(10, 4)
    connector, separated = LinearProjection().build(4, 4, (2, 3)), config.build(4)
    tokens = [features(1, rows * cols, 4, scale=1.0)[0] for rows, cols in views]
    layout, source = separated.arrange(views, connector)
    [got] = separated([torch.cat(tokens)], [source], embedding)
    learned = [] if separated.learned is None else list(separated.learned)
    wanted = slow(config, views, tokens, list(embedding.weight), learned)
    assert torch.equal(got, torch.stack(wanted)) and len(layout) == len(wanted)
    kinds = layout.kind.tolist()
    assert kinds.count(Kind.PATCH) == sum(map(len, tokens))
    assert kinds.count(Kind.TAG) == sum(map(len, config.tags[:count])) + (config.end is not None)
    for number, tag in enumerate(config.tags[:count]):
        own = layout.kind[layout.view == number]
        assert (own[: len(tag)] == Kind.TAG).all() and (own[len(tag) :][0] == Kind.PATCH)


def test_its_configuration_is_known_to_storage():
    config = Separators(newline=LEARNED, tags=((1, 2), (3,)), end=4)
    assert _from_dict(_to_dict(config)) == config


def test_wrong_separators_are_refused():
    with pytest.raises(ValueError, match="a separator is the id of a word, or -1 for one that is learned"):
        Separators(tags=((3, -2),))
