"""SmolLM2 in the place of a mini decoder: its words, what it says before it learns anything, and choices scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from references import pictures, randomise
from torch import Tensor

from minivlm import DESIGNS, Batch, build
from minivlm.choices import choice_scores
from minivlm.data.emoji import emoji
from minivlm.data.naming import KIND, KINDS, NAME, kind_sentence, tell_emoji
from minivlm.data.scenes import sample_scenes
from minivlm.designs import configure
from minivlm.language.chat import ChatTokenizer
from minivlm.language.llama import Llama, LlamaConfig
from minivlm.model import VLM
from minivlm.smol import named
from minivlm.speaking import Sentences, TalkBank, say, spoken, with_smollm2
from minivlm.storage import bundled
from minivlm.streams import generator
from minivlm.train import Stage, train

ANSWERING = [name for name in DESIGNS if DESIGNS[name].answers]
READING = ("instructblip", "llama_vid")  # the question, in words of the mini models
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


@pytest.fixture(scope="module")
def tokenizer(opened) -> ChatTokenizer:
    return ChatTokenizer(opened[1])


@pytest.fixture(scope="module")
def small(tokenizer) -> tuple[Llama, ChatTokenizer]:
    """A decoder of SmolLM2's words and another depth than the mini decoder's, small and random."""
    sizes = dict(width=36, depth=9, heads=3, kv_heads=1, mlp_width=40, tied=True)
    return randomise(LlamaConfig(len(tokenizer), **sizes).build()), tokenizer


def spoken_small(name: str, small: tuple[Llama, ChatTokenizer], seed: int = 0) -> VLM:
    """Such a model, in which nothing is 0."""
    return randomise(with_smollm2(name, None, small)[0], seed)


def bank(model: VLM, count: int = 4) -> TalkBank:
    return TalkBank.of_emoji(model, named("train")[:: len(named("train")) // count][:count])


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [NAME, "Où est l’été? 3 + 4 = 7\n\nNow?", " two  spaces "])
def test_a_turn_is_that_of_the_real_chat_template(question, tokenizer, opened):
    turn = [{"role": "user", "content": question}]
    begun = opened[1].apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
    assert tokenizer.encode(SYSTEM + tokenizer.ask(question)) == begun
    turn.append({"role": "assistant", "content": "This is it, ça va."})
    whole = opened[1].apply_chat_template(turn)["input_ids"]
    batch = Batch.pack(tokenizer, [[(tokenizer.ask(question), "This is it, ça va.")]])
    packed = batch.input_ids[0].tolist()
    assert packed[0] == opened[1].convert_tokens_to_ids("<|endoftext|>")
    assert tokenizer.encode(SYSTEM) + packed[1:] + tokenizer.encode("\n") == whole


def test_a_picture_is_one_id_that_no_sentence_holds(tokenizer, opened):
    assert tokenizer.encode("<image>") == [tokenizer.image_id]
    assert len({tokenizer.image_id, tokenizer.bos_id, tokenizer.eos_id}) == 3
    texts = [text for one in named("train") + named("test") for turn in tell_emoji(one) for text in turn]
    ids = {i for text in set(texts) for i in tokenizer.encode(text)}
    assert len(texts) > 7000 and not ids & set(opened[1].all_special_ids + [tokenizer.image_id])
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in texts[:400])
    assert tokenizer.decode([tokenizer.bos_id, *tokenizer.encode(" a dog"), tokenizer.eos_id]) == "a dog"
    assert len(tokenizer) == 49152


def test_only_answers_are_learned_with_their_ends(small):
    model, tokenizer = spoken_small("deco", small), small[1]
    kept = bank(model) + TalkBank.of_scenes(model, sample_scenes(2, generator(0, 0), max_objects=2))
    source = Sentences(tokenizer, kept, batch_size=6, seed=3)
    step = source(5, range(1, 5))
    [batch] = step.inputs
    chosen = torch.randint(6, (6,), generator=generator(3, 5))[1:5].tolist()
    assert len(batch) == 4 and step.weight == int((batch.labels >= 0).sum())
    for row, number in enumerate(chosen):
        assert torch.equal(batch.features[row], kept.features[number])
        assert int((batch.input_ids[row] == tokenizer.image_id).sum()) == 1
        said, learned = batch.segments[row].tolist(), batch.labels[row].tolist()
        for turn, (question, answer) in enumerate(kept.dialogs[number], start=1):
            places = [i for i, n in enumerate(said) if n == turn and batch.text_mask[row, i]]
            ids = [batch.input_ids[row, i].item() for i in places]
            want = tokenizer.encode(answer) + [tokenizer.eos_id]
            assert ids == tokenizer.encode(tokenizer.ask(question)) + want
            assert [learned[i] for i in places] == [-100] * (len(ids) - len(want)) + want
        assert sum(label >= 0 for label in learned) == sum(
            len(tokenizer.encode(answer)) + 1 for _, answer in kept.dialogs[number]
        )


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ANSWERING if name not in READING])
def test_any_design_speaks_with_the_weights_of_the_decoder_it_is_given(name, small):
    model, tokenizer = with_smollm2(name, None, small)
    language = getattr(model.language, "decoder", model.language)
    assert all(torch.equal(value, small[0].state_dict()[key]) for key, value in language.state_dict().items())
    assert model.config.vision == configure(name).vision and model.config.num_tokens == configure(name).num_tokens
    assert (model.config.image_id, model.config.eos_id) == (tokenizer.image_id, tokenizer.eos_id)
    newline = model.config.separators.newline
    assert newline in (None, -1) or tokenizer.encode("\n") == [newline]


def test_the_encoder_is_the_bundled_one_and_experts_begin_as_the_decoder(small):
    model, _ = with_smollm2("cogvlm", None, small)
    theirs = bundled("clip", "cpu").vision.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.vision.state_dict().items())
    for number, expert in enumerate(model.fusion.experts):
        assert torch.equal(expert["q"].weight, small[0].blocks[2 * number].attention.q.weight)


def test_tags_of_views_are_spelled_in_the_new_words(small):
    tags = with_smollm2("tiles_2d", None, small)[0].config.separators.tags
    assert [small[1].decode(tag) for tag in tags] == ["image", "1 1", "1 2", "2 1", "2 2"]
    assert with_smollm2("tiles_learned", None, small)[0].config.separators.tags == ((-1,),) * 5


@pytest.mark.parametrize("name", READING)
def test_a_connector_that_reads_the_question_is_refused(name, small):
    with pytest.raises(ValueError, match="reads the question, and knows none of SmolLM2's words"):
        with_smollm2(name, None, small)


def test_layers_stand_at_the_same_shares_of_the_depth(opened, tokenizer):
    """Of 30 blocks, as of the mini decoder's 4."""
    with torch.device("meta"):
        places = {name: spoken(configure(name), opened[0], tokenizer).build().fusion for name in ("flamingo", "cogvlm")}
        every = spoken(configure("open_flamingo"), opened[0], tokenizer).build().fusion
    assert list(places["flamingo"].places) == [13, 27] and list(every.places) == [6, 13, 20, 27]
    assert len(places["cogvlm"].experts) == 5 and len(build("cogvlm", device="meta").fusion.experts) == 4


@torch.no_grad()
def untouched(decoder: Llama, x: Tensor) -> Tensor:
    return decoder.logits(decoder(x))


@torch.no_grad()
def test_before_it_learns_it_says_what_smollm2_says(opened, tokenizer):
    """With adapters at 0, of a text and of the vectors that its connector makes of a picture; with gates that are shut,
    whatever it is shown. To the bit."""
    text = torch.tensor([[tokenizer.bos_id, tokenizer.image_id, *tokenizer.encode(tokenizer.ask(NAME))]])
    plain = untouched(opened[0], opened[0].embedding(text))
    image = pictures(1, 1, 3, 64, 64)

    looks, _ = with_smollm2("flamingo", None, (opened[0], tokenizer))
    assert torch.equal(looks(Batch(image, text)).logits, plain)
    looks.fusion.layers[0].attention_gate.fill_(1.0)
    assert not torch.equal(looks(Batch(image, text)).logits, plain)
    del looks

    reads, _ = with_smollm2("deco", None, (opened[0], tokenizer))
    reads.adapt_language(2)
    visual = reads.connector(reads.features(image)[0])  # (1, K, D)
    words = opened[0].embedding(text)
    x = torch.cat([words[:, :1], visual, words[:, 2:]], dim=1)
    assert torch.equal(reads(Batch(image, text)).logits, untouched(opened[0], x))
    blind = Batch(image, text).blind(tokenizer.image_id)
    there = torch.cat([words[:, :1], words[:, 2:]], dim=1)
    assert torch.allclose(reads(blind).logits[:, : there.shape[1]], untouched(opened[0], there), atol=1e-4)


def test_one_step_lowers_the_loss_of_its_own_batch(small):
    for name in ("deco", "flamingo_open"):
        model = spoken_small(name, small)
        source = Sentences(small[1], bank(model), batch_size=4)
        batch = source(0, range(4)).inputs[0]
        with torch.no_grad():
            before = float(model(batch).loss)
        train(model, [Stage("one", source, 1, lr=1e-3, trains=("connector",))], quiet=True)
        with torch.no_grad():
            assert float(model(batch).loss) < before - 1e-3, name


def test_it_says_a_sentence_about_each_picture(small):
    model, tokenizer = spoken_small("deco", small), small[1]
    kept = bank(model, 3)
    said = say(model, tokenizer, kept.features, NAME, most=5)
    for features, sentence in zip(kept.features, said, strict=True):
        ids = [tokenizer.bos_id, tokenizer.image_id, *tokenizer.encode(tokenizer.ask(NAME))]
        for _ in range(5):
            with torch.no_grad():
                ids.append(int(model(Batch(None, torch.tensor([ids]), features=features[None])).logits[0, -1].argmax()))
        assert sentence == tokenizer.decode(ids[-5:])


# --- choices --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def slowly(model: VLM, tokenizer: Any, question: str, choice: str, features: Tensor | None) -> float:
    """One answer to one picture, word by word."""
    said = tokenizer.encode(choice) + [tokenizer.eos_id]
    ids = [tokenizer.bos_id] + [tokenizer.image_id] * (features is not None) + tokenizer.encode(question)
    total = 0.0
    for word in said:
        batch = Batch(None, torch.tensor([ids]), features=None if features is None else features[None])
        total += float(model(batch).logits[0, -1].double().log_softmax(dim=-1)[word])
        ids.append(word)
    return total


@pytest.mark.parametrize("name", ["deco", "flamingo", "cogvlm"])
def test_choices_are_scored_as_one_by_one(name, small):
    model, tokenizer = spoken_small(name, small), small[1]
    seen, question = bank(model, 2).features, tokenizer.ask(KIND)
    features = torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))  # unlike one another
    choices = [kind_sentence(category) for category in list(KINDS)[:3]]
    found = choice_scores(model, tokenizer, question, choices, features, batch_size=1)
    want = [[slowly(model, tokenizer, question, choice, one) for choice in choices] for one in features]
    assert torch.allclose(found, torch.tensor(want), atol=2e-3, rtol=1e-5)
    assert found.std(dim=0).min() > 1e-2  # they do see
    blind = choice_scores(model, tokenizer, question, choices, None)
    want = [slowly(model, tokenizer, question, choice, None) for choice in choices]
    assert blind.shape == (1, 3) and torch.allclose(blind[0], torch.tensor(want), atol=2e-3, rtol=1e-5)


def test_held_out_emoji_share_nothing_with_training():
    training, test = named("train"), named("test")
    assert len(training) == 1538 and len(test) == 360 and len(test) == len(emoji("test"))
    for what in ("codepoints", "name", "image_path"):
        assert not {getattr(e, what) for e in training} & {getattr(e, what) for e in test}, what
    assert {e.category for e in training} == {e.category for e in test} == set(KINDS)
