"""LLaMA-VID's tokens against its own lines of plain torch around transformers' InstructBLIP Q-Former."""

from __future__ import annotations

import pytest
import references
import torch
import torch.nn.functional as F
from references import assert_same, randomise, words
from torch import Tensor, nn

from minivlm import build
from minivlm.attention import capturing
from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.context_content import ContextContent, ContextContentConfig
from minivlm.designs import at_budget, configure
from minivlm.layout import Kind
from minivlm.pretrained.keys import load_exactly
from minivlm.pretrained.qformers import bert_config

WIDTH, OUT = 13, 22
QUERIES = 4
VOCABULARY = VocabularyConfig(60, context=9)
BERT = BertConfig(width=18, depth=3, heads=3, mlp_width=29)


pytestmark = pytest.mark.usefixtures("no_graph")


class Upstream(nn.Module):
    """What llamavid_arch.py computes, under its names."""

    def __init__(self, qformer: nn.Module):
        super().__init__()
        self.vlm_att_encoder, width = qformer, qformer.config.hidden_size
        self.vlm_att_query = nn.Parameter(torch.zeros(1, QUERIES, width))
        self.vlm_att_ln = nn.LayerNorm(WIDTH)
        self.vlm_att_projector = nn.Linear(width, WIDTH)
        self.vlm_att_key_projector = nn.Linear(WIDTH, WIDTH)
        self.vlm_att_val_projector = nn.Linear(WIDTH, OUT)
        self.mm_projector = nn.Sequential(nn.Linear(WIDTH, OUT), nn.GELU(), nn.Linear(OUT, OUT))

    def scores(self, features: Tensor, patches: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        seen = torch.cat([torch.ones(len(ids), QUERIES, dtype=torch.bool), mask], dim=1).long()
        queries = self.vlm_att_query.expand(len(ids), -1, -1)
        asked = dict(input_ids=ids, attention_mask=seen, query_embeds=queries)
        read = self.vlm_att_encoder(**asked, encoder_hidden_states=self.vlm_att_ln(features)).last_hidden_state
        text = self.vlm_att_projector(read[:, :QUERIES])
        return (text @ self.vlm_att_key_projector(patches).mT / WIDTH**0.5).softmax(dim=-1)

    def forward(self, features: Tensor, patches: Tensor, ids: Tensor, mask: Tensor, cells: int | str | None) -> Tensor:
        """`patches`: the features without their class token. `cells`: "mean", the side of a grid, or None for all."""
        context = self.vlm_att_val_projector((self.scores(features, patches, ids, mask) @ patches).mean(1)[:, None])
        if cells == "mean":
            patches = patches.mean(dim=1, keepdim=True)
        elif cells is not None:
            side = int(patches.shape[1] ** 0.5)
            picture = patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)
            patches = F.avg_pool2d(picture, kernel_size=side // cells, stride=side // cells)
            patches = patches.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([context, self.mm_projector(patches)], dim=1)


def upstream(seed: int, scale: float = 1.0) -> Upstream:
    model = randomise(Upstream(references.instructblip_qformer(seed, scale, WIDTH)), seed)
    model.vlm_att_query.mul_(scale)
    return model


def ours_of(theirs: Upstream, tokens: int, grid: tuple[int, int]) -> ContextContent:
    config = theirs.vlm_att_encoder.config
    vocabulary = VocabularyConfig(config.vocab_size, config.max_position_embeddings)
    ours = ContextContentConfig(tokens, vocabulary, QUERIES, bert_config(config)).build(WIDTH, OUT, grid)
    places = dict(norm="vlm_att_ln", query="vlm_att_projector", key="vlm_att_key_projector") | {
        "context": "vlm_att_val_projector",
        "content.up": "mm_projector.0",
        "content.down": "mm_projector.2",
    }
    weights = theirs.state_dict()
    state = {
        f"{our}.{kind}": weights[f"{their}.{kind}"] for our, their in places.items() for kind in ("weight", "bias")
    }
    encoder = references.encoder_state(theirs.vlm_att_encoder, theirs.vlm_att_query[0])
    load_exactly(ours, state | {f"encoder.{key}": value for key, value in encoder.items()})
    return ours


def inputs(patches: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Features with a class token in front, and three texts: a long one, a short one, and none."""
    ids, mask = words(3, 7), torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = mask[2] = False
    return torch.randn(3, 1 + patches, WIDTH, generator=torch.Generator().manual_seed(9)) * scale, ids, mask


FORMS = [(4, 2, "mean"), (5, 5, 2), (7, 10, 3), (6, 37, None), (16, 26, 5), (16, 257, None)]
FORMS = [pytest.param(*form, id="{}x{} tokens {}".format(form[0], *form[:2])) for form in FORMS]


@pytest.mark.parametrize("scale", [1.0, 0.02], ids="scale {}".format)
@pytest.mark.parametrize("seed", range(3), ids="seed {}".format)
@pytest.mark.parametrize(("side", "tokens", "cells"), FORMS)
def test_llama_vid(seed, scale, side, tokens, cells):
    theirs = upstream(seed, scale)
    features, ids, mask = inputs(side * side, scale)
    wanted = theirs(features, features[:, 1:], ids, mask, cells)
    assert_same(ours_of(theirs, tokens, (side, side))(features, ids, mask), wanted)


def test_features_may_come_without_a_class_token():
    theirs, (features, ids, mask) = upstream(0), inputs(16)
    patches = features[:, 1:]
    assert_same(ours_of(theirs, 5, (4, 4))(patches, ids, mask), theirs(patches, patches, ids, mask, 2))


def test_a_picture_need_not_be_square():
    """Cells are cut along each side; upstream knows only squares."""
    theirs, (features, ids, mask) = upstream(0), inputs(8 * 5)
    tokens = ours_of(theirs, 5, (8, 5))(features, ids, mask)
    picture = features[:, 1:].unflatten(1, (8, 5))
    cells = [picture[:, 4 * r : 4 * r + 4, 2 * c : 2 * c + 2].mean(dim=(1, 2)) for r in (0, 1) for c in (0, 1)]
    assert_same(tokens[:, 1:], theirs.mm_projector(torch.stack(cells, dim=1)))


def test_what_the_context_token_attends_to_is_seen():
    theirs, (features, ids, mask) = upstream(0), inputs(16)
    ours = ours_of(theirs, 2, (4, 4))
    plain = ours(features, ids, mask)
    with capturing(ours) as maps:
        assert_same(ours(features, ids, mask), plain)
    assert_same(maps[".context"][:, 0], theirs.scores(features, features[:, 1:], ids, mask))


# --- what the question changes --------------------------------------------------------------------------------------


def small(tokens: int = 5) -> ContextContent:
    return randomise(ContextContentConfig(tokens, VOCABULARY, QUERIES, BERT).build(WIDTH, OUT, (4, 4)))


def test_the_question_changes_the_context_token_alone():
    ours, features = small(), torch.randn(1, 16, WIDTH).expand(2, -1, -1)
    tokens = ours(features, words(2, 7), torch.ones(2, 7, dtype=torch.bool))
    assert (tokens[0, 0] - tokens[1, 0]).abs().max() > 1e-3
    assert torch.equal(tokens[0, 1:], tokens[1, 1:])


def test_padding_of_the_question_changes_nothing():
    ours, (features, ids, mask) = small(), inputs(16)
    tokens = ours(features, ids, mask)
    assert_same(ours(features, torch.where(mask, ids, 59), mask), tokens)
    assert_same(ours(features[1:2], ids[1:2, :4], mask[1:2, :4]), tokens[1:2])
    assert_same(ours(features[2:], ids[2:, :0], mask[2:, :0]), tokens[2:])


def test_keys_without_a_say_make_the_context_token_the_mean():
    ours, (features, ids, mask) = small(), inputs(16)
    ours.key.weight.zero_()
    ours.key.bias.zero_()
    assert_same(ours(features, ids, mask)[:, 0], ours.context(features[:, 1:].mean(dim=1)))


# --- counts ---------------------------------------------------------------------------------------------------------


def test_the_context_token_comes_first_and_has_no_place():
    layout = small().layout((4, 4))
    assert layout.kind.tolist() == [Kind.LATENT] + [Kind.CELL] * 4
    assert layout.row.tolist() == [-1, 0, 0, 1, 1] and layout.col.tolist() == [-1, 0, 1, 0, 1]


@pytest.mark.parametrize("tokens", [1, 3, 16, 10, 37])
def test_other_counts_are_refused_with_those_there_are(tokens):
    """Of 8 patches a side, 3 cells of 2 would leave one over: upstream makes 4 of them, so there is no 3 x 3."""
    with pytest.raises(ValueError, match=f"make no {tokens} of 8x8 patches; they can give 2, 5, 17, 65"):
        at_budget(configure("llama_vid"), tokens)


@pytest.mark.parametrize("tokens", [2, 5, 17, 65])
def test_it_can_be_given_a_budget(tokens):
    model = at_budget(configure("llama_vid"), tokens).build()
    assert model.connector.num_tokens(model.config.vision.grid) == tokens


def test_published_sizes():
    model = build("llama_vid", "published", device="meta")
    connector, grid = model.connector, model.config.vision.grid
    projections = (connector.query, connector.key, connector.context, connector.content)
    assert sum(p.numel() for part in projections for p in part.parameters()) / 1e6 == pytest.approx(31.4, rel=0.001)
    assert sum(p.numel() for p in connector.encoder.parameters()) / 1e6 == pytest.approx(185.7, rel=0.001)
    assert connector.num_tokens(grid) == 2
    assert at_budget(model.config, 257).connector.tokens == 257
