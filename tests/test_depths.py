"""Depths: equal to the paper's equations, place by place, and to a published block; who is picked, who sees whom, what
learns, and what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import references
import torch
from references import assert_same, pictures, randomise, words
from test_decoders import CONFIGS as OTHERS
from test_persimmon import CONFIG as PERSIMMON
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from minivlm import VLM, Batch, budget, build, from_transformers, mini
from minivlm.attention import capturing
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.depths import ROUTERS, Depths, DepthsConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.tokenizer import Tokenizer
from minivlm.model import answer_loss
from minivlm.pretrained.keys import load_exactly
from minivlm.storage import bundled, warm_start

LLAMA = LlamaConfig(64, width=36, depth=5, heads=6, kv_heads=2, mlp_width=50)
DECODERS = {"llama": LLAMA, "persimmon": PERSIMMON, **OTHERS}
CAUSAL_RULES = ("predictor", "auxiliary")
IMAGE = Tokenizer.image_id


def depths(rule: str = "predictor", training: bool = False, decoder: DecoderConfig = LLAMA, **sizes) -> Depths:
    model = randomise(DepthsConfig(decoder, **{"capacity": 0.4, **sizes}, rule=rule).build())
    return model.train(training)


def causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def asked_apart() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States of two samples of 11 places, where they stand, what they may see, and whose they are: four places that all
    share, two questions that do not see each other, and padding, of which the second sample has more."""
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2, -1], [0, 0, 0, 0, 1, 1, 2, 2, -1, -1, -1]])
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 0], [0, 1, 2, 3, 4, 5, 4, 5, 0, 0, 0]])
    there = segments >= 0
    shared_or_same = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    mask = causal(11) & shared_or_same & there[:, None, :] & there[:, :, None]
    x = torch.randn(2, 11, 36, generator=torch.Generator().manual_seed(3))
    return x, positions, mask[:, None], segments


def routes(model: nn.Module, *inputs, **options) -> tuple[Tensor, list[Tensor]]:
    """What a pass gives, and the places that each routed block has worked on in it."""
    with capturing(model) as maps:
        output = model(*inputs, **options)
    return output, [maps[name] for name in sorted(maps) if name.endswith(".route")]


def ready(model: Depths) -> Depths:
    """With scores of 1 everywhere."""
    for router in model.routers:
        router.forward = lambda x: torch.ones_like(x[..., 0])
    return model


# --- the same numbers -----------------------------------------------------------------------------------------------


def turned(head: Tensor, position: int, theta: float) -> Tensor:
    """The vector of one head at one place, its halves turned pair by pair."""
    half, out = len(head) // 2, head.clone()
    for i in range(half):
        angle = position / theta ** (2 * i / len(head))
        out[i] = head[i] * math.cos(angle) - head[half + i] * math.sin(angle)
        out[half + i] = head[half + i] * math.cos(angle) + head[i] * math.sin(angle)
    return out


def normed(vector: Tensor, norm: nn.RMSNorm) -> Tensor:
    return vector / (vector.pow(2).mean() + norm.eps).sqrt() * norm.weight


def slow_block(block: nn.Module, config: LlamaConfig, x: Tensor, chosen: list[int], positions: Tensor, mask: Tensor):
    """What a Llama's block adds to each `chosen` place of one sample (L, D), which see the chosen among themselves."""
    added, attention = {}, block.attention
    states = {i: normed(x[i], block.attention_norm) for i in chosen}
    groups, dim = config.heads // config.kv_heads, config.dim_per_head
    for i in chosen:
        seen, mixed = [j for j in chosen if mask[i, j]], []
        for head in range(config.heads):
            own, shared = (slice(h * dim, (h + 1) * dim) for h in (head, head // groups))
            query = turned((attention.q.weight @ states[i])[own], int(positions[i]), config.rope_theta)
            keys = [
                turned((attention.k.weight @ states[j])[shared], int(positions[j]), config.rope_theta) for j in seen
            ]
            scores = torch.stack([query @ key / math.sqrt(dim) for key in keys]).exp()
            mixed.append(
                sum(s * (attention.v.weight @ states[j])[shared] for s, j in zip(scores, seen, strict=True))
                / scores.sum()
            )
        attended = attention.out.weight @ torch.cat(mixed)
        inner, mlp = normed(x[i] + attended, block.mlp_norm), block.mlp
        gate = mlp.gate.weight @ inner
        added[i] = attended + mlp.down.weight @ (gate / (1 + (-gate).exp()) * (mlp.up.weight @ inner))
    return added


def slow_depths(model: Depths, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """The paper's equation 1, of one sample: x_i + r_i f_i for those picked, x_i for all others."""
    routers = dict(zip(model.config.routed, model.routers, strict=True))
    there = [i for i in range(len(x)) if mask[i].any()]
    for number, block in enumerate(model.blocks):
        if number not in routers:
            scores, chosen = dict.fromkeys(there, 1.0), there
        else:
            router = routers[number]
            scores = {i: float(router.score.weight[0] @ x[i]) for i in there}
            if model.training:
                count = math.ceil(model.config.capacity * len(there))
                chosen = sorted(sorted(there, key=scores.get, reverse=True)[:count])
            else:
                guesses = {i: router.predictor(x[i]) if hasattr(router, "predictor") else scores[i] for i in there}
                chosen = [i for i in there if 1 / (1 + math.exp(-float(guesses[i]))) > 0.5]
        added = slow_block(block, model.config.decoder, x, chosen, positions, mask)
        x = torch.stack([x[i] + scores[i] * added[i] if i in added else x[i] for i in range(len(x))])
    return torch.stack([normed(state, model.final_norm) for state in x])


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False], ids=["highest", "guessed"])
@pytest.mark.parametrize("rule", CAUSAL_RULES)
@pytest.mark.parametrize("every", [1, 2, 3])
def test_place_by_place(every, rule, training, scale):
    model = depths(rule, training, every=every).double()  # summing in another order shows at small scales
    x, positions, mask, segments = asked_apart()
    x = scale * x.double()
    got, picked = routes(model, x, positions, mask)
    for sample in range(2):
        wanted = slow_depths(model, x[sample], positions[sample], mask[sample, 0])
        here = segments[sample] >= 0
        assert_same(got[sample, here], wanted[here])
    assert len(picked) == {1: 4, 2: 2, 3: 1}[every]
    if scale == 1:  # small states are nearly one state, of which a predictor thinks one thing
        assert all(0 < int(route.sum()) < int((segments >= 0).sum()) for route in picked)
    plain = model(x)  # plainly causal, at places 0, 1, 2, ...
    for sample in range(2):
        assert_same(plain[sample], slow_depths(model, x[sample], torch.arange(11), causal(11)))


@torch.no_grad()
@pytest.mark.parametrize("capacity", [0.125, 0.3, 1.0])
def test_the_published_block_around_which_the_rest_is_written_out(capacity, scale, seed):
    """`LlamaDecoderLayer` on the places of the highest scores, told where they stood; its own residual taken off."""
    theirs = references.llama(seed, scale, num_hidden_layers=5)
    ours = depths("auxiliary", True, from_transformers(theirs).config, capacity=capacity)
    load_exactly(ours.decoder, from_transformers(theirs).state_dict())
    ids, rope = words(2, 13, seed=seed), LlamaRotaryEmbedding(theirs.config)
    x = theirs.model.embed_tokens(ids)
    for number, layer in enumerate(theirs.model.layers):
        place, r = torch.arange(13).expand(2, -1), torch.ones(2, 13)
        if number in (1, 3):
            r = (x * ours.routers[number // 2].score.weight).sum(dim=-1)
            place = r.topk(math.ceil(capacity * 13), dim=1).indices.sort(dim=1).values
        few = x[torch.arange(2)[:, None], place]
        blocked = torch.full((place.shape[1],) * 2, -1e9).triu(1)[None, None]
        y = layer(few, attention_mask=blocked, position_ids=place, position_embeddings=rope(few, place))
        x = x.clone()
        for sample in range(2):
            x[sample, place[sample]] += r[sample, place[sample]][:, None] * (y - few)[sample]
    wanted = theirs.lm_head(theirs.model.norm(x))
    assert_same(ours.logits(ours(ours.embedding(ids))), wanted)


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", DECODERS)
def test_all_places_at_a_score_of_one_are_the_decoder_as_it_is(name, training):
    model = ready(depths("auxiliary", training, DECODERS[name], capacity=1.0))
    x, positions, mask, segments = asked_apart()
    assert_same(model(x), model.decoder(x))
    wanted = model.decoder(x, positions, mask)
    assert_same(model(x, positions, mask)[segments >= 0], wanted[segments >= 0])


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS)
def test_any_decoder_is_routed_from_a_cache_as_without(name):
    """Those whose places enter with the words as well as those that turn."""
    model = depths(decoder=DECODERS[name], every=1)
    assert_cached(model, *asked_apart()[:3])


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_who_is_not_picked_passes_unchanged_to_the_bit(training):
    model = depths(training=training, decoder=replace(LLAMA, depth=2), every=1)
    for quiet in (model.blocks[1].attention.out, model.blocks[1].mlp.down):  # the block that has no router adds 0
        quiet.weight.zero_()
    x, positions, mask, _ = asked_apart()
    got, [picked] = routes(model, x, positions, mask, final_norm=lambda x: x)
    assert torch.equal(got[~picked], x[~picked])
    assert ((got[picked] - x[picked]).abs().amax(dim=-1) > 1e-3).all()


# --- who is picked --------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("rule", ROUTERS)
@pytest.mark.parametrize("training", [True, False])
def test_padding_is_never_picked(rule, training):
    model = depths(rule, training, capacity=0.3)
    x, positions, mask, segments = asked_apart()
    for shift in (0, 2):  # padding on the right, and on both sides
        moved = [value.roll(shift, dims=1) for value in (x, positions, segments)]
        _, picked = routes(model, moved[0], moved[1], mask.roll((shift, shift), dims=(2, 3)))
        for route in picked:
            assert not route[moved[2] < 0].any()
            if training:
                assert route.sum(dim=1).tolist() == [3, 3]  # of 10, and of 8: 2.4, rounded up


def test_the_share_is_rounded_up():
    config = DepthsConfig(LLAMA)
    assert [config.places(length) for length in (0, 1, 8, 9, 16, 17)] == [0, 1, 1, 2, 2, 3]
    assert DepthsConfig(LLAMA, capacity=1.0).places(13) == 13
    assert [list(DepthsConfig(LLAMA, every=every).routed) for every in (1, 2, 3, 4)] == [[0, 1, 2, 3], [1, 3], [2], [3]]


@torch.no_grad()
def test_a_lot_is_drawn_anew_and_falls_on_the_share():
    x = torch.randn(2, 400, 36)
    for training in (True, False):
        _, once = routes(depths("random", training, capacity=0.25), x)
        _, again = routes(depths("random", training, capacity=0.25), x)
        for first, second in zip(once, again, strict=True):
            assert first.float().mean() == pytest.approx(0.25, abs=0.0 if training else 0.06)
            assert (first & second).float().mean() == pytest.approx(0.0625, abs=0.04)


# --- who sees whom --------------------------------------------------------------------------------------------------


def seen_ahead(model: Depths) -> int:
    """At how many of 30 places does a place's state change when only what comes after it does?"""
    x = torch.randn(1, 31, 36, generator=torch.Generator().manual_seed(5))
    count = 0
    for place in range(30):
        later = x.clone()
        later[:, place + 1 :] += torch.randn(1, 30 - place, 36, generator=torch.Generator().manual_seed(place))
        count += int((model(later) - model(x))[0, : place + 1].abs().max() > 1e-5)
    return count


@torch.no_grad()
@pytest.mark.parametrize("rule", CAUSAL_RULES)
def test_nothing_is_seen_before_it_comes_unless_the_highest_are_picked(rule):
    assert seen_ahead(depths(rule)) == 0
    assert seen_ahead(depths(rule, training=True)) > 15


@torch.no_grad()
@pytest.mark.parametrize("rule", CAUSAL_RULES)
def test_with_a_cache_nobody_waits_for_what_is_to_come(rule):
    """A model still in training says from a cache what it says outside training."""
    model = depths(rule, training=True)
    x, mask = torch.randn(1, 9, 36), causal(9)[None, None]
    positions = torch.arange(9)[None]
    assert_same(model(x, positions, mask, model.make_cache(9)), model.eval()(x))


@pytest.mark.parametrize("training", [True, False])
def test_questions_side_by_side_do_not_see_each_other(training):
    """Not through the places picked, in either direction."""
    model = depths(training=training, capacity=0.8)
    x, positions, mask, segments = asked_apart()
    states = model(x.requires_grad_(), positions, mask)
    for own, other in ((1, 2), (2, 1)):
        reached = torch.autograd.grad(states[segments == own].sum(), x, retain_graph=True)[0].abs().sum(dim=-1)
        assert (reached[segments == other] == 0).all() and (reached[segments == 0] > 0).any()


# --- the cache ------------------------------------------------------------------------------------------------------


def assert_cached(model: Depths, x: Tensor, positions: Tensor, mask: Tensor) -> list:
    """In pieces from a cache as in one; returns the cache, and the routes of the one."""
    wanted, picked = routes(model, x, positions, mask)
    cache, there = model.make_cache(x.shape[1]), mask[:, 0].any(dim=-1)
    ends = (0, 5, 7, 8, 9, x.shape[1])
    for start, end in pairwise(ends):
        now = slice(start, end)
        got = model(x[:, now], positions[:, now], mask[:, :, now, :end], cache)
        assert_same(got[there[:, now]], wanted[:, now][there[:, now]])
    return [cache[number] for number in model.config.routed], picked


@torch.no_grad()
@pytest.mark.parametrize("rule", CAUSAL_RULES)
@pytest.mark.parametrize("every", [1, 2])
def test_who_is_not_picked_leaves_neither_key_nor_value(every, rule, seed):
    model = randomise(depths(rule, every=every), seed)
    x, positions, mask, _ = asked_apart()
    x[1] = -x[1].abs()  # or both samples might have as many places picked
    caches, picked = assert_cached(model, x, positions, mask)
    assert any(len(set(route.sum(dim=1).tolist())) == 2 for route in picked)
    for cache, route in zip(caches, picked, strict=True):
        counts = route.sum(dim=1).tolist()
        assert cache.length == max(counts) < 11
        if cache.place is None:  # nobody was picked
            continue
        for sample in range(2):
            kept = cache.place[sample][cache.place[sample] >= 0]
            assert kept.tolist() == route[sample].nonzero().flatten().tolist()
            used = cache.k[sample].abs().sum(dim=(0, 2)) > 0
            assert used.tolist() == [slot < counts[sample] for slot in range(11)]


@torch.no_grad()
def test_a_place_that_nobody_works_on_leaves_the_cache_as_it_is():
    model = depths("auxiliary")
    for router in model.routers:
        router.forward = lambda x: -torch.ones_like(x[..., 0])
    x, cache = torch.randn(1, 3, 36), model.make_cache(3)
    got = model(x, torch.arange(3)[None], causal(3)[None, None], cache)
    assert cache[1].length == cache[3].length == 0 and cache[0].length == 3
    without = Decoder.forward(model.decoder, x, blocks=[model.blocks[0], model.blocks[2], model.blocks[4]])
    assert_same(got, without)


def test_a_cache_that_is_too_short_is_refused():
    model = ready(depths("auxiliary", every=1))
    cache, mask = model.make_cache(4), causal(6)[None, None]
    with pytest.raises(ValueError, match="holds 4 positions, 6 are needed: make a longer cache"):
        model(torch.randn(1, 6, 36), torch.arange(6)[None], mask, cache)


# --- what learns ----------------------------------------------------------------------------------------------------


def with_gradient(model: nn.Module) -> set[str]:
    """The parts of a decoder with depths that a gradient has reached."""
    found = (name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any())
    return {name.split(".")[2] if "routers" in name else name.split(".")[1] for name in found}


def test_the_score_learns_from_what_the_blocks_add():
    model = depths("random", training=True)  # by its place in the equation alone: who is picked does not hang on it
    model(torch.randn(2, 9, 36)).sum().backward()
    assert with_gradient(model) == {"blocks", "final_norm", "score"}


def test_what_a_predictor_learns_from_moves_nothing_else():
    model = depths("predictor", training=True)
    model(model.embedding(words(2, 9)))
    model.aside().backward()
    assert with_gradient(model) == {"predictor"}
    assert all(weight.grad.any() for router in model.routers for weight in router.predictor.parameters())


def test_what_scores_learn_from_moves_what_they_read():
    model = depths("auxiliary", training=True)
    model(model.embedding(words(2, 9)))
    model.aside().backward()
    assert with_gradient(model) == {"embedding", "blocks", "score"}


def overheard(function: Callable[..., Tensor], heard: list[Tensor]) -> Callable[..., Tensor]:
    """The same, all that it says kept in a list."""
    return lambda *given: heard.append(function(*given)) or heard[-1]


@pytest.mark.parametrize("rule", CAUSAL_RULES)
def test_the_guess_is_judged_place_by_place_and_said_once(rule):
    model, guesses, wanted = depths(rule, training=True), [], []
    x, positions, mask, segments = asked_apart()
    for router in model.routers:
        router.guess = overheard(router.guess, guesses)
    _, picked = routes(model, x, positions, mask)
    for guess, route in zip(guesses, picked, strict=True):
        pairs = zip(guess[segments >= 0].tolist(), route[segments >= 0].tolist(), strict=True)
        likely = [1 / (1 + math.exp(-g if chosen else g)) for g, chosen in pairs]
        wanted.append(-sum(map(math.log, likely)) / len(likely))
    assert float(model.aside().detach()) == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)
    assert model.aside() == 0.0


def test_without_training_or_with_a_lot_there_is_nothing_to_say():
    for model in (depths("predictor"), depths("random", training=True)):
        model(torch.randn(1, 9, 36))
        assert float(model.aside()) == 0.0


def test_a_guess_can_be_learned():
    """From random states: after some steps nearly the places of the highest scores are guessed, and as many."""
    torch.manual_seed(0)
    model = DepthsConfig(replace(LLAMA, depth=2), capacity=0.2, every=1).build()
    optimizer = torch.optim.AdamW(model.routers.parameters(), lr=1e-2)
    for _ in range(150):
        model(torch.randn(8, 40, 36))
        model.aside().backward()
        optimizer.step()
        optimizer.zero_grad()
    x = torch.randn(8, 200, 36)
    _, [highest] = routes(model, x)
    _, [guessed] = routes(model.eval(), x)
    assert (highest == guessed).float().mean() > 0.9
    assert guessed.float().mean() == pytest.approx(0.2, abs=0.05)


# --- in a model that sees -------------------------------------------------------------------------------------------


def seeing(name: str = "mod") -> VLM:
    return randomise(build(name, device="cpu"))


def batch(model: VLM) -> Batch:
    """Two samples of 12 words around a picture, the second padded."""
    ids, mask = words(2, 12), torch.ones(2, 12, dtype=torch.bool)
    ids[:, 2], mask[1, 8:] = IMAGE, False
    labels = ids.masked_fill(~mask | (ids == IMAGE), -100)
    return Batch(pictures(2, 1, 3, *model.config.vision.image_size), ids, labels, mask)


@pytest.mark.parametrize("name", ["mod", "fuyu_mod"])
def test_the_loss_in_training_holds_both(name):
    model = seeing(name).train()
    surprises = []
    model.language.aside = overheard(model.language.aside, surprises)
    output = model(batch(model))
    [surprise] = surprises
    assert surprise > 0.1
    assert_same(output.loss, answer_loss(output.logits, output.layout, batch(model).labels) + surprise)
    output = model.eval()(batch(model))
    assert_same(output.loss, answer_loss(output.logits, output.layout, batch(model).labels))


def test_a_pass_without_labels_leaves_nothing_behind():
    model = seeing().train()
    assert model(replace(batch(model), labels=None)).loss is None
    assert model.language.surprises == []


@torch.no_grad()
@pytest.mark.parametrize("name", ["mod", "fuyu_mod"])
def test_pictures_and_words_compete_for_the_same_places(name):
    """Where every eighth place has the highest score, those are picked, whatever stands there; padding is not."""
    model = seeing(name).train()
    model.language.routers[0].forward = lambda x: (torch.arange(x.shape[1]) % 8 == 0).float().expand(len(x), -1)
    output = model(batch(model), capture=True)
    route, layout = output.maps["language.routers.0.route"], output.layout
    assert torch.equal(route, (torch.arange(route.shape[1]) % 8 == 0) & layout.valid)
    assert route[layout.is_visual].any() and route[layout.is_text].any() and not layout.valid.all()


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_watching_changes_no_route_and_no_number(training):
    model = seeing().train(training)
    plain, watched = model(batch(model)), model(batch(model), capture=True)
    assert_same(watched.logits[plain.layout.valid], plain.logits[plain.layout.valid])
    weights = watched.maps["language.decoder.blocks.1.attention.weights"]
    assert weights.shape[-1] == int(watched.maps["language.routers.0.route"].sum(dim=1).max())


def test_a_warm_start_is_that_of_the_decoder_inside():
    model = warm_start(mini.mod().build())
    theirs = bundled("decoder", "cpu").state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.language.decoder.state_dict().items())


def test_adapters_reach_the_decoder_inside():
    model = mini.mod().build()
    before = sum(p.numel() for p in model.language.parameters())
    model.adapt_language(2)
    assert sum(p.numel() for p in model.language.parameters()) - before == sum(
        p.numel() for p in model.adapter.parameters()
    )


def test_a_fusion_that_runs_other_blocks_is_refused():
    with pytest.raises(ValueError, match="VisualExpert runs others in their place: take an interleaved design"):
        replace(mini.cogvlm(), language=mini.mod().language).build()
    model = mini.mod().build()
    blocks = [lambda x, **_: x] * len(model.language.blocks)
    with pytest.raises(ValueError, match="this fusion runs others in their place"):
        model.language(torch.zeros(1, 3, 128), blocks=blocks)


# --- what it costs --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_operations_saved_are_those_of_the_places_spared():
    """Counted by hand, and by torch on a pass in training."""
    plain, counted = (budget(name, "mini", words=9) for name in ("llava15", "mod"))
    config, length = mini.language(), 73
    few = math.ceil(length / 8)

    def block(places: int) -> int:
        return 2 * places * (4 * config.width**2 + 3 * config.width * config.mlp_width) + 4 * places**2 * config.width

    routing = 2 * length * (config.width + config.width * 32 + 32)  # the score, and the two maps of the predictor
    assert plain.flops["language"] - counted.flops["language"] == block(length) - block(few) - routing
    model = build("mod", device="cpu").requires_grad_(False)
    with FlopCounterMode(display=False) as counter, capturing(model):  # or torch does not count a CPU's attention
        model.language.logits(model.language(torch.randn(1, length, config.width)))
    assert counter.get_total_flops() == counted.flops["language"]


def test_a_cache_of_the_share_is_counted():
    plain, counted = (budget(name, "mini", words=9) for name in ("llava15", "mod"))
    assert plain.cache_bytes == 4 * 73 * 2 * 128 * 2
    assert counted.cache_bytes == (3 * 73 + 10) * 2 * 128 * 2
    assert counted.image_cache_bytes == (3 * 64 + 8) * 2 * 128 * 2


def test_published_is_said_to_be_what_it_is():
    fuyu, ours = (build(name, "published", "meta").language for name in ("fuyu", "fuyu_mod"))
    assert ours.config.decoder == fuyu.config and len(ours.routers) == 17
    assert build("mod", "published", "meta").config == mini.mod()


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(capacity=0.0), "above 0 and at most 1; got 0.0"),
        (dict(capacity=1.5), "above 0 and at most 1; got 1.5"),
        (dict(every=0), "every must be at least 1, got 0"),
        (dict(every=5), "block 5 of 5 would be the first that is routed, but the last never is: lower every"),
        (dict(rule="topk"), "unknown rule 'topk'; choose one of predictor, auxiliary, random"),
    ],
)
def test_sizes_that_make_no_depths_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        DepthsConfig(LLAMA, **sizes)
