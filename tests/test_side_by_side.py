"""Two models side by side: twins have the same weights, the right model parts nowhere, and each wrong rule where it
is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import references
import torch
from torch import Tensor, nn

from minivlm import Batch, from_transformers
from minivlm.pretrained.small import small_llama, small_llava, small_persimmon
from minivlm.side_by_side import apart, differences, differences_table, outputs, parting, twins
from minivlm.wrong_rules import WRONG, converted_wrongly

PARTINGS = {
    "exact_gelu": "vision.blocks.0.mlp.down",
    "last_block": "connector.0",
    "tenfold_epsilon": "language.blocks.0.attention_norm",
    "paired_channels": "language.blocks.0.attention.q",
    "slower_turns": "language.blocks.0.attention.out",
}
See = Callable[[nn.Module], dict[str, float]]


@pytest.fixture(scope="module", params=range(3), ids="seed {}".format)
def sides(request) -> tuple[nn.Module, nn.Module, dict[str, str], See]:
    """A small LLaVA of transformers, ours of it, their twins, and how far a model of ours is from theirs."""
    theirs = small_llava(request.param)
    ours, named = from_transformers(theirs), twins(theirs)
    chance = torch.Generator().manual_seed(request.param)
    images, words = torch.rand(2, 3, 28, 28, generator=chance), torch.randint(3, 90, (2, 9), generator=chance)

    def ids(places: int) -> Tensor:
        return torch.cat([words[:, :3], torch.full((2, places), 95), words[:, 3:]], dim=1)

    batch = Batch(input_ids=ids(1), images=images[:, None])
    reference = outputs(theirs, named.values(), lambda: theirs(input_ids=ids(16), pixel_values=images))
    return theirs, ours, named, lambda model: differences(outputs(model, named, lambda: model(batch)), reference, named)


def test_twins_have_the_same_weights_and_none_is_missing(sides):
    theirs, ours, named, _ = sides
    weighted = {name for name, module in ours.named_modules() if isinstance(getattr(module, "weight", None), Tensor)}
    assert set(named) == weighted and len(set(named.values())) == len(named)
    for mine, other in named.items():
        assert torch.equal(ours.get_submodule(mine).weight, theirs.get_submodule(other).weight)


def test_tied_layers_are_both_named_and_a_fused_map_has_no_twin():
    tied = twins(references.llama(1))
    assert tied["embedding"] == "model.embed_tokens" and tied["head"] == "lm_head"
    named = twins(small_persimmon())
    assert not [name for name in named if name.endswith((".q", ".k", ".v"))]
    assert named["blocks.0.attention.q_norm"] == "model.layers.0.self_attn.q_layernorm"


def test_the_right_model_parts_nowhere(sides):
    *_, see = sides
    found = see(sides[1])
    assert len(found) == 49 and max(found.values()) < 1e-5 and parting(found) is None
    assert "language.embedding" not in found and "vision.final_norm" not in found  # of other shapes; not read
    order = list(found)
    assert order[0] == "vision.patch_embedding" and order[-1] == "language.head"
    assert (
        order.index("connector.0")
        < order.index("language.blocks.0.attention.q")
        < order.index("language.blocks.2.mlp.up")
    )


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_parts_where_it_is_and_is_felt_at_the_end(name, sides):
    _, ours, _, see = sides
    found = see(converted_wrongly(ours, WRONG[name]))
    order = list(found)
    assert parting(found) == PARTINGS[name]
    assert all(found[layer] < 1e-5 for layer in order[: order.index(PARTINGS[name])])
    assert found["language.head"] > 1e-3
    assert parting(see(ours)) is None  # the right one stays


def test_the_exact_gelu_is_the_one_that_theirs_would_compute():
    theirs = small_llava(0)
    wrong = converted_wrongly(from_transformers(theirs), WRONG["exact_gelu"])
    for layer in theirs.model.vision_tower.encoder.layers:
        layer.mlp.activation_fn = nn.GELU()
    images, ids = torch.rand(1, 3, 28, 28), torch.tensor([[5, 95, 6]])
    wanted = theirs(input_ids=torch.tensor([[5, *[95] * 16, 6]]), pixel_values=images).logits
    references.assert_same(wrong(Batch(input_ids=ids, images=images[:, None])).logits, wanted)


def test_the_epsilon_hides_where_words_are_large():
    """What the lesson says of small inputs: at the size of one, the same rule passes."""
    theirs = small_llava(0)
    theirs.model.language_model.embed_tokens.weight.data.div_(0.02)
    ours = from_transformers(theirs)
    batch = Batch(images=None, input_ids=torch.arange(3, 12)[None])
    wrong = converted_wrongly(ours, WRONG["tenfold_epsilon"])
    assert apart(wrong(batch).logits, ours(batch).logits) < 1e-4


def test_outputs_are_kept_once_in_the_order_of_calls_and_nobody_watches_afterwards():
    first, second, tuples = nn.Linear(2, 2), nn.Linear(2, 2), nn.GRU(2, 2)
    model = nn.ModuleDict({"never": nn.Linear(2, 2), "first": first, "second": second, "tuples": tuples})
    x = torch.randn(3, 2)
    given = outputs(model, model, lambda: (second(x), first(x), second(first(x)), tuples(x)))
    assert list(given) == ["second", "first", "tuples"]
    assert torch.equal(given["second"], second(x)) and torch.equal(given["tuples"], tuples(x)[0])
    assert not any(module._forward_hooks for module in model.values())

    def fails() -> None:
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        outputs(model, ["first"], fails)
    assert not first._forward_hooks


def test_a_difference_is_a_share_of_the_reference():
    theirs = torch.tensor([3.0, -4.0])
    assert apart(theirs + torch.tensor([0.3, 0.4]), theirs) == pytest.approx(0.1)
    assert apart(100 * theirs, 50 * theirs) == pytest.approx(1)


def test_the_table_is_that_of_the_layers_around_the_parting():
    found = {"a": 1e-7, "b": 2e-7, "c": 0.25, "d": 1e-9, "e": 0.5}
    lines = differences_table(found, {name: name.upper() for name in found}, around=1).splitlines()
    assert lines[2:] == ["| `b` | `B` | 2.0e-07 |", "| `c` | `C` | 2.5e-01 **parts** |"]
    assert "parts" not in differences_table({"a": 1e-7}, {"a": "A"}) and parting(found, 0.3) == "e"


def test_every_weight_of_a_small_system_is_drawn():
    for make in (small_llava, small_persimmon, partial(small_llama, 30)):
        one, same, other = make(seed=0), make(seed=0), make(seed=1)
        for (key, value), again, another in zip(one.named_parameters(), same.parameters(), other.parameters(),
                                                strict=True):  # fmt: skip
            assert torch.equal(value, again) and not torch.isclose(value, another).any(), key
            assert value.numel() == 1 or value.std() > 0.005, key


def test_the_small_persimmon_is_ours_too():
    theirs, ids = small_persimmon(2), torch.arange(10).view(2, 5)
    ours = from_transformers(theirs)
    references.assert_same(ours.logits(ours(ours.embedding(ids))), theirs(input_ids=ids).logits)
