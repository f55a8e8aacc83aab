"""The shapes written beside every argument are true: each design runs with all of them checked.

Checking is switched on before the package is imported, so this file runs itself in a fresh process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_annotated_shapes_are_true():
    package = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, __file__], cwd=package, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.splitlines()[-1] == "checked"


def check_every_design() -> None:
    from minivlm import DESIGNS, VLM, build
    from minivlm.contrastive.mmv import MMV

    for name in DESIGNS:
        model = build(name, device="cpu")
        if isinstance(model, VLM):
            check_vlm(model)
        elif isinstance(model, MMV):
            check_hearing(model)
        else:
            check_towers(model)
        print(name)


def check_vlm(model) -> None:
    """Every way of calling a decoder: two pictures, questions side by side, padding, features, no pictures at all."""
    import torch

    from minivlm import Batch
    from minivlm.language.tokenizer import Tokenizer

    tokenizer = Tokenizer(["red", "blue", "what", "is", "it"])
    images = torch.rand(2, 2, 3, *model.config.vision.image_size)
    dialogs = [[("what is it", "red"), ("is it blue", "red")], [("it", "")]]
    if model.connector.conditioned:  # a question in a sample of its own
        dialogs = [dialog[-1:] for dialog in dialogs]
    batch = Batch.pack(tokenizer, dialogs, images)
    for capture in (False, True):
        model(batch, capture=capture).loss.backward()
    model(Batch.pack(tokenizer, dialogs, features=model.features(images)))
    model(batch.blind(model.image_token_id))
    ids = torch.tensor([[1, 3, 270]] * 2)
    model(Batch(images[:, :1], ids, instruction=ids))  # neither padding nor questions: plainly causal
    model.generate(batch, max_new_tokens=3)


def check_towers(model) -> None:
    import torch

    images, ids = torch.rand(3, 3, *model.config.vision.image_size), torch.randint(4, 60, (3, 7))
    for capture in (False, True):
        model(images, ids, capture=capture).loss.backward()
    model(images[:2], ids)


def check_hearing(model) -> None:
    import torch

    images, audio = torch.rand(3, 3, 64, 64), torch.randn(3, 64, 64)
    for capture in (False, True):
        model.train()(images, audio, torch.randint(4, 60, (6, 7)), capture=capture).loss.backward()
    model.eval()(images[:2], audio, torch.randint(4, 60, (4, 7)))


def check_conversions() -> None:
    """Towers and decoders that no design in small is made of, and what conversion itself calls."""
    import references

    from minivlm import from_transformers

    for make in (references.clip, references.siglip, references.llama, references.llava, references.instructblip):
        from_transformers(make())
    tower = from_transformers(references.vit())
    tower(references.pictures(2, 3, *tower.config.image_size))
    from_transformers(references.kosmos2())
    for make in (references.opt, references.phi, references.kosmos2_text):
        decoder = from_transformers(make())
        decoder.logits(decoder(decoder.embedding(references.words(2, 5)))).sum().backward()


def check_that_checking_is_on() -> None:
    import torch

    from minivlm.attention import attend

    q, k = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 5)
    try:
        attend(q, k, k)
    except Exception as error:
        assert type(error).__name__ == "TypeCheckError", error
    else:
        raise AssertionError("a key of another size was let through: shapes are not being checked")


if __name__ == "__main__":
    from jaxtyping import install_import_hook

    sys.path.insert(0, str(Path(__file__).parents[1]))
    with install_import_hook("minivlm", "beartype.beartype"):
        import minivlm.pretrained  # noqa: F401

        check_that_checking_is_on()
        check_every_design()
        check_conversions()
    print("checked")
