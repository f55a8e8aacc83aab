"""MMV: equal to the written equations in training and after, its running averages included; who can be compared with
whom; and what is not read, or not trained, is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from haikus import HaikuMMV, made
from references import assert_same, randomise
from test_properties import assert_gradients
from torch import Tensor

from minivlm import build, load, save
from minivlm.attention import Attention
from minivlm.contrastive.graphs import BatchNorm
from minivlm.contrastive.mmv import MMV, MMVOutput, nce_loss
from minivlm.mini_sounds import mmv as mini_mmv
from minivlm.pretrained.mmv import mmv as from_haiku


def inputs(model: MMV, count: int, scale: float, seed: int, candidates: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Features of pictures and sounds (double, for numpy), and word ids."""
    chance = torch.Generator().manual_seed(seed)
    widths = (model.config.vision.width, model.config.audio.width)
    v, a = (scale * torch.randn(count, width, generator=chance, dtype=torch.float64) for width in widths)
    return v, a, torch.randint(0, 23, (count * candidates, 6), generator=chance)


def assert_equals(ours: MMVOutput, theirs: tuple, tolerance: float = 1e-5) -> None:
    for got, wanted in zip((ours.image_audio, ours.image_text, ours.audio_text, ours.loss), theirs, strict=True):
        if wanted is None:
            assert got is None
        else:
            assert_same(got, torch.tensor(wanted, dtype=got.dtype), tolerance)


# --- the equations --------------------------------------------------------------------------------------------------


def test_mmv_as_released(seed, scale):
    """Running averages as a checkpoint has them, sounds in the coarse space too."""
    params, state = made(seed)
    ours, theirs = from_haiku(params, state), HaikuMMV(params, state)
    v, a, ids = inputs(ours, 5, scale, seed)
    assert_equals(ours(v.float(), a.float(), ids), theirs(v.numpy(), a.numpy(), ids.numpy()))


def test_mmv_in_training(seed, scale, no_graph):
    """Four batches, each normed by itself; then what was remembered of them. In 64 bits: three small samples' variance
    is near the epsilon, and what 32 bits round off grows with it."""
    params, state = made(seed)
    ours, theirs = from_haiku(params, state).double().train(), HaikuMMV(params, state).fresh()
    for norm in (module for module in ours.modules() if isinstance(module, BatchNorm)):
        norm.steps.zero_(), norm.mean.fill_(9), norm.variance.fill_(9)  # what was there before must not count
    theirs.training = True
    for step in range(4):
        v, a, ids = inputs(ours, 3 + 2 * step, scale, 10 * seed + step)
        assert_equals(ours(v, a, ids), theirs(v.numpy(), a.numpy(), ids.numpy()), 1e-9)
        assert_remembers(ours, theirs)
    theirs.training = False
    assert_equals(ours.eval()(v, a, ids), theirs(v.numpy(), a.numpy(), ids.numpy()), 1e-9)


def assert_remembers(ours: MMV, theirs: HaikuMMV) -> None:
    names = {"image_head.1": "vid2audio_embd/__batch_norm", "image_head.4": "vid2audio_embd/__batch_norm_1"}
    for name, haiku in (names | {"coarse_head.2": "vis_embd/__batch_norm"}).items():
        norm = ours.graph.get_submodule(name)
        for value, kind in ((norm.mean, "mean_ema"), (norm.variance, "var_ema")):
            assert_same(value, torch.tensor(theirs.state[f"{haiku}/~/{kind}"]["average"]), 1e-12)
        assert norm.steps == theirs.state[f"{haiku}/~/mean_ema"]["counter"]


def test_the_published_sizes(no_graph):
    model = build("mmv_fac", "published", device="cpu")
    randomise(model)
    image, audio = model.encode_image(torch.randn(2, 2048)), model.encode_audio(torch.randn(3, 2048))
    assert [x.shape for x in (*image, *audio)] == [(2, 512), (2, 256), (3, 512), (3, 256)]
    assert model.encode_text(torch.tensor([[65535] * 16])).shape == (1, 256)
    text = model.text(torch.tensor([[7, 0, 3]]))
    assert text.shape == (1, 2048) and not torch.equal(text, model.text(torch.tensor([[7, 3]])))  # padding is a word


@pytest.mark.parametrize("candidates", [1, 3])
def test_the_loss_pair_by_pair(candidates):
    """Of five pictures; its gradient is that of the slow one."""
    chance = torch.Generator().manual_seed(candidates)
    image, other = (torch.randn(n, 4, generator=chance, dtype=torch.float64) for n in (5, 5 * candidates))
    both = []
    for loss in (nce_loss, slow_loss):
        leaves = [x.clone().requires_grad_() for x in (image, other)]
        value = loss(*(torch.nn.functional.normalize(leaf, dim=1) for leaf in leaves))
        value.backward()
        both.append((value.detach(), *(leaf.grad for leaf in leaves)))
    for fast, slow in zip(*both, strict=True):
        assert_same(fast, slow, 1e-9)


def slow_loss(image: Tensor, other: Tensor) -> Tensor:
    each, total = len(other) // len(image), torch.zeros((), dtype=image.dtype)
    for i in range(len(image)):
        right, wrong = 0, 0
        for j in range(len(other)):
            if j // each == i:
                right = right + torch.exp(image[i] @ other[j] / 0.07)
                for k in set(range(len(image))) - {i}:
                    wrong = wrong + torch.exp(image[k] @ other[j] / 0.07)
            else:
                wrong = wrong + torch.exp(image[i] @ other[j] / 0.07)
        total = total - torch.log(right / (right + wrong))
    return total / len(image)


# --- arrays of the released model -----------------------------------------------------------------------------------


def test_names_of_a_model_trained_on_many_chips():
    (params, state), (others, other_state) = made(1), made(1, norm="__cross_replica_batch_norm")
    for key, value in from_haiku(params, state).state_dict().items():
        assert torch.equal(from_haiku(others, other_state).state_dict()[key], value)


def test_arrays_without_a_place_or_missing_are_refused():
    params, state = made(0)
    with pytest.raises(ValueError, match="no place for 1 keys: gate/w"):
        from_haiku(params | {"text_audio_video/gate": {"w": np.zeros(1)}}, state)
    for name in ("audio_embd/final_projection", "text_module/embed", "vis_embd/__batch_norm"):
        with pytest.raises(ValueError, match="missing"):
            from_haiku({key: value for key, value in params.items() if not key.endswith(name)}, state)
    with pytest.raises(ValueError, match="missing graph.coarse_head.2.mean"):
        from_haiku(params, {key: value for key, value in state.items() if "vis_embd" not in key})


# --- who can be compared with whom ----------------------------------------------------------------------------------


@pytest.fixture(params=["fac", "disjoint", "shared"])
def model(request) -> MMV:
    torch.manual_seed(0)
    return randomise(mini_mmv(request.param).build())


def heard(count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, spectrograms and two texts each for the mini models."""
    chance = torch.Generator().manual_seed(seed)
    audio = 4 * torch.randn(count, 64, 64, generator=chance) - 4
    ids = torch.randint(4, 300, (2 * count, 9), generator=chance)
    return torch.rand(count, 3, 64, 64, generator=chance), audio, ids


def averages(model: MMV) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_buffers() if name.startswith("graph")}


def test_sounds_meet_texts_only_where_a_way_leads(model, no_graph):
    batch = heard()
    assert (model(*batch).audio_text is None) == (model.config.graph == "disjoint")
    assert (model.train()(*batch).audio_text is None) == (model.config.graph != "shared")


def test_sounds_leave_no_trace_in_the_running_averages(no_graph):
    first, second = (randomise(build("mmv_fac", device="cpu")).train() for _ in range(2))
    (images, audio, ids), (_, other, _) = heard(), heard(seed=1)
    first(images, audio, ids), second(images, other, ids)
    for name, value in averages(first).items():
        assert torch.equal(value, averages(second)[name]), name
    assert first.graph.coarse_head[2].steps == 1


def test_nothing_is_remembered_after_training(model, no_graph):
    before = averages(model)
    model(*heard())
    assert all(torch.equal(value, before[name]) for name, value in averages(model).items())


def test_every_vector_has_length_one(model, no_graph):
    images, audio, ids = heard()
    fine, coarse = model.config.fine, model.config.coarse
    vectors = [*model.encode_image(images), *model.encode_audio(audio), model.encode_text(ids)]
    for vector, width in zip(vectors, (fine, coarse, fine, coarse, coarse), strict=True):
        if vector is not None:
            assert vector.shape[1] == width
            assert_same(vector.norm(dim=1), torch.ones(len(vector)))
    assert (vectors[0] is vectors[1] or torch.equal(vectors[0], vectors[1])) == (model.config.graph == "shared")


def test_a_shared_space_has_one_width():
    with pytest.raises(ValueError, match="got fine 128 and coarse 64: make them equal"):
        replace(mini_mmv("fac"), graph="shared").build()
    with pytest.raises(ValueError, match="unknown graph 'fak'; choose one of shared, disjoint, fac"):
        replace(mini_mmv("fac"), graph="fak")


# --- texts ----------------------------------------------------------------------------------------------------------


def test_padding_never_wins(model, no_graph):
    model.text.projection.bias.fill_(5.0)  # a word that says nothing would win everywhere
    short = torch.tensor([[9, 60, 33]])
    padded = torch.cat([short, torch.zeros(1, 4, dtype=torch.long)], dim=1)
    assert_same(model.encode_text(short), model.encode_text(padded))
    loud = replace(model.config, text=replace(model.config.text, pad_id=None)).build().eval()
    loud.load_state_dict(model.state_dict())
    assert not torch.allclose(loud.text(short), loud.text(padded))


def test_neither_order_nor_repetition_counts(model, no_graph):
    texts = torch.tensor([[9, 60, 33, 33], [33, 9, 60, 9], [9, 60, 34, 34]])
    first, same, other = model.encode_text(texts)
    assert_same(first, same)
    assert not torch.allclose(first, other, atol=1e-3)


def test_a_text_is_its_strongest_words_number_by_number(no_graph):
    model = randomise(build("mmv_fac", device="cpu"))
    ids, table, layer = torch.tensor([[9, 60, 33]]), model.text.embedding.weight, model.text.projection
    for place, value in enumerate(model.text(ids)[0]):
        wanted = max([0.0, *(float(layer.weight[place] @ table[i] + layer.bias[place]) for i in (9, 60, 33))])
        assert float(value) == pytest.approx(wanted, abs=1e-5)


# --- as all models --------------------------------------------------------------------------------------------------


def test_all_but_the_word_vectors_learns(model):
    assert not model.text.embedding.weight.requires_grad
    assert_gradients(model.train(), model(*heard(5)).loss)


def test_a_loss_needs_one_sound_and_as_many_texts_a_picture(model, no_graph):
    images, audio, ids = heard()
    assert model(images, audio[:2], ids).loss is None and model(images, audio, ids[:4]).loss is None
    output = model(images[:1], audio, ids[:5])
    assert output.image_audio.shape == (1, 3) and output.image_text.shape == (1, 5) and output.loss is None
    assert output.audio_text is None or output.audio_text.shape == (3, 5)


def test_captured_equals_uncaptured(model, no_graph):
    batch = heard()
    plain, captured = model(*batch), model(*batch, capture=True)
    assert plain.maps == {}
    assert_same(plain.image_audio, captured.image_audio)
    sites = {f"{name}.weights" for name, module in model.named_modules() if isinstance(module, Attention)}
    assert captured.maps.keys() == sites and {site.split(".")[0] for site in sites} == {"vision", "audio"}


def test_running_averages_are_saved_and_loaded(model, tmp_path, no_graph):
    model.train()(*heard(seed=3))
    model.graph.image_head[1].steps.fill_(4097)  # which 16 bits cannot hold
    save(model.eval(), tmp_path / "whole.safetensors")
    save(model, tmp_path / "half.safetensors", torch.float16)
    whole, half = (load(tmp_path / f"{name}.safetensors", "cpu") for name in ("whole", "half"))
    for got, wanted in zip(vars(whole(*heard())).values(), vars(model(*heard())).values(), strict=True):
        assert got is wanted or not isinstance(got, Tensor) or torch.equal(got, wanted)
    norm = half.graph.image_head[1]
    assert norm.steps == 4097 and norm.steps.dtype == torch.long
    assert torch.equal(norm.variance, model.graph.image_head[1].variance.half().float())


def test_a_resumed_run_remembers_what_it_would_have(tmp_path):
    from minivlm.hearing import SIZES, stages
    from minivlm.train import train

    whole, killed, again = (tiny.mmv() for _ in range(3))
    stage = stages(whole, SIZES["smoke"])[0]
    train(whole, [stage], quiet=True)
    stop = replace(stage, source=tiny.Trap(stage.source, 3, lambda: (_ for _ in ()).throw(KeyboardInterrupt)))
    train(killed, [stop], tmp_path, save_every=2, quiet=True)
    train(again, [stage], tmp_path, save_every=2, quiet=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert again.graph.image_head[1].steps == stage.steps
