"""A video as frames of a sample, and as one film: every way of making few tokens of it, against the slow rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from references import assert_same, instructblip_qformer, pictures, randomise, words
from test_context_content import QUERIES, Upstream, ours_of

from minivlm import Batch, budget, load, save
from minivlm.connectors.context_content import ContextContent
from minivlm.data.videos import render_videos, sample_videos
from minivlm.designs import at_budget, configure
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.layout import Kind
from minivlm.mini import vision
from minivlm.model import VLM
from minivlm.vision.film import FilmConfig, as_film

pytestmark = pytest.mark.usefixtures("no_graph")
FRAMES = 8
FILM = FilmConfig(vision(), FRAMES)
# name, tokens of a frame: every way of `watch`, at several budgets
BY_FRAME = [("llava15", 64), ("deco", 16), ("deco", 1), ("llama_vid", 5), ("llama_vid", 17), ("llama_vid_video", 2)]


def asking(pictures_: int, pairs: int = 2, **visual) -> Batch:
    """Samples of so many pictures and two words each, and an instruction for who reads it."""
    ids = torch.full((pairs, pictures_ + 2), Tokenizer.image_id)
    ids[:, -2:] = words(pairs, 2)
    told = words(pairs, 5, seed=1)
    return Batch(visual.get("images"), ids, features=visual.get("features"), instruction=told)


# --- frames of a sample ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tokens"), BY_FRAME)
def test_a_video_is_its_frames_and_the_layout_names_them(name, tokens):
    model = randomise(at_budget(configure(name), tokens).build())
    film = render_videos(sample_videos(2, torch.Generator().manual_seed(0)))
    batch = asking(FRAMES, images=film)
    out = model(batch)
    for frame in range(FRAMES):
        assert (out.layout.image[0] == frame).sum() == tokens
    assert out.logits.shape[1] == FRAMES * tokens + 2
    visual = model.connect(model.features(film), batch)
    assert visual.shape[:3] == (2, FRAMES, tokens)
    for frame in range(FRAMES):  # each frame is read by itself
        alone = model.connect(model.features(film[:, frame : frame + 1]), batch)
        assert_same(visual[:, frame], alone[:, 0])


def llama_vid_of(scale: float) -> tuple[Upstream, ContextContent]:
    """LLaMA-VID's own lines around transformers' Q-Former, and our connector with those weights, for 4 x 4 patches."""
    theirs = randomise(Upstream(instructblip_qformer(0, scale, 13)), 0)
    theirs.vlm_att_query.mul_(scale)
    return theirs, ours_of(theirs, 2, (4, 4))


@pytest.mark.parametrize("scale", [1.0, 0.02], ids="scale {}".format)
def test_llama_vid_makes_two_tokens_a_frame_as_upstream_does(scale):
    """All frames of a video are asked the same, and give a context token and the mean of their patches each."""
    theirs, ours = llama_vid_of(scale)
    film = torch.randn(2, 3, 17, 13, generator=torch.Generator().manual_seed(3)) * scale
    ids, mask = words(2, 7), torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    model = replace(configure("llama_vid_video"), vision=replace(vision(), image_size=(32, 32))).build()
    model.connector = ours
    got = model.connect(film, Batch(None, words(2, 4), instruction=ids, instruction_mask=mask))
    assert got.shape[:3] == (2, 3, 2)
    for frame in range(3):
        wanted = theirs(film[:, frame], film[:, frame, 1:], ids, mask, "mean")
        assert_same(got[:, frame], wanted)
    assert theirs.vlm_att_query.shape[1] == QUERIES


def test_published_llama_vid_spends_two_tokens_a_frame():
    """An hour, a frame a second, is 7,200 tokens; LLaVA-1.5 would need two million."""
    assert budget("llama_vid", images=64).visual_tokens == 128
    assert budget("llama_vid", images=3600, words=0).visual_tokens == 7200
    assert budget("llama_vid_video", "mini", images=8).visual_tokens == 16


# --- one film --------------------------------------------------------------------------------------------------------


def film_batch(model: VLM, frames: int = FRAMES) -> Batch:
    return asking(1, images=as_film(pictures(2, frames, 3, 64, 64)))


def test_frames_are_encoded_one_by_one():
    film = randomise(FILM.build())
    frames = pictures(2, FRAMES, 3, 64, 64)
    for layer in (-2, None):
        got = film.features(as_film(frames)[:, 0], layer=layer).unflatten(1, (FRAMES, -1))
        for frame in range(FRAMES):
            assert_same(got[:, frame], film.tower.features(frames[:, frame], layer=layer)[:, 1:])


def test_the_resampler_reads_all_frames_at_once_as_flamingo_does():
    """Slowly: each patch of each frame gets the vector of its frame; then in each layer every latent attends to all of
    them and to all latents, head by head."""
    model = randomise(configure("film_resampler").build())
    batch, connector = film_batch(model), model.connector
    features = model.features(batch.images)[:, 0]  # (B, T*N, D)
    told = connector.enter.embedding
    seen = torch.stack([features[:, i] + told[i // 64] for i in range(FRAMES * 64)], dim=1)
    latents = connector.latents.expand(2, -1, -1)
    for layer in connector.layers:
        normed = layer.latents_norm(latents)
        keys = torch.cat([layer.context_norm(seen), normed], dim=1)
        q, k, v = (getattr(layer.attention, name)(x) for name, x in zip("qkv", (normed, keys, keys), strict=True))
        heads = []
        for head in range(4):
            part = slice(32 * head, 32 * head + 32)
            weights = (q[..., part] @ k[..., part].mT / 32**0.5).softmax(dim=-1)
            heads.append(weights @ v[..., part])
        latents = latents + layer.attention.out(torch.cat(heads, dim=-1))
        latents = latents + layer.mlp(layer.mlp_norm(latents))
    wanted = connector.out(connector.norm(latents))
    got = model.connect(model.features(batch.images), batch)
    assert got.shape[1:3] == (1, model.config.num_tokens) == (1, 2 * FRAMES)
    assert_same(got[:, 0], wanted)


def test_the_order_of_frames_reaches_the_latents():
    """Without the vectors of frames, a film and the same film backwards would be one."""
    model = randomise(configure("film_resampler").build())
    frames = pictures(1, FRAMES, 3, 64, 64)

    def latents(film) -> torch.Tensor:
        batch = asking(1, 1, images=as_film(film))
        return model.connect(model.features(batch.images), batch)

    assert (latents(frames) - latents(frames.flip(1))).abs().max() > 1e-3
    model.connector.enter.embedding.zero_()
    assert_same(latents(frames), latents(frames.flip(1)))


def test_cached_and_uncached_decoding_agree():
    model = randomise(configure("film_resampler").build())
    batch = replace(film_batch(model), instruction=None)
    new = model.generate(batch, 4)
    for said in range(1, 4):
        longer = torch.cat([batch.input_ids, new[:, :said]], dim=1)
        logits = model(replace(batch, input_ids=longer)).logits[:, -1]
        going = new[:, said - 1] != Tokenizer.eos_id
        assert torch.equal(logits.argmax(dim=-1)[going], new[going, said])


def test_features_made_earlier_give_the_same():
    model = randomise(configure("film_resampler").build())
    batch = film_batch(model)
    earlier = replace(batch, images=None, features=model.features(batch.images))
    assert_same(model(earlier).logits, model(batch).logits)
    assert set(model(batch).layout.kind.unique().tolist()) == {Kind.TEXT, Kind.LATENT}


@pytest.mark.parametrize("tokens", [4, 16, 40])
def test_a_film_has_one_budget_for_all_its_frames(tokens):
    config = at_budget(configure("film_resampler"), tokens)
    batch = film_batch(config.build())
    assert config.build().connect(config.build().features(batch.images), batch).shape[2] == tokens


def test_a_shorter_film_gets_the_first_vectors():
    model = randomise(configure("film_resampler").build())
    short = film_batch(model, frames=3)
    features = model.features(short.images)
    assert features.shape[2] == 3 * 64
    told = model.connector.enter(features[:, 0]) - features[:, 0]
    assert_same(told.unflatten(1, (3, 64))[:, :, 0], model.connector.enter.embedding[:3].expand(2, -1, -1))
    assert model.connect(features, short).shape == (2, 1, 16, 128)


def test_what_is_no_film_is_refused():
    model = configure("film_resampler").build()
    for shape in ((100, 64), (64, 32), (32, 64)):
        with pytest.raises(ValueError, match=f"{shape[0]}x{shape[1]} pixels is not made of whole frames of 64x64"):
            model.features(torch.zeros(1, 1, 3, *shape))
    with pytest.raises(ValueError, match="frames must be at least 1, got 0"):
        FilmConfig(vision(), 0)
    with pytest.raises(ValueError, match="640 vectors are no 1 to 8 frames of 64 patches"):
        model(asking(1, images=as_film(pictures(2, 10, 3, 64, 64))))


def test_it_is_saved_and_loaded(tmp_path):
    model = randomise(configure("film_resampler").build())
    save(model, tmp_path / "film.safetensors")
    again = load(tmp_path / "film.safetensors", "cpu")
    assert again.config == model.config
    batch = film_batch(model)
    assert_same(again(batch).logits, model(batch).logits)


def test_only_what_is_read_learns(capsys):
    model = configure("film_resampler").build()
    model.train_only("connector", "language")
    with torch.enable_grad():
        for p in model.parameters():
            p.grad = None
        batch = film_batch(model)
        ids = batch.input_ids
        model(replace(batch, labels=torch.where(ids == Tokenizer.image_id, -100, ids))).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters() if p.requires_grad)
    assert not any(p.requires_grad for p in model.vision.parameters())
    assert mini_tokenizer().image_id == model.image_token_id
