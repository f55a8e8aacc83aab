"""Any combination of parts either works, from the first pass to the saved file, or is refused in one clear sentence.

50 combinations, the same each time; `make fuzz` draws 500 others (HYPOTHESIS_PROFILE=nightly).
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TypeVar

import torch
from drawn import VOCABULARY, Plan, designs
from hypothesis import HealthCheck, given, settings
from references import randomise

import minivlm
from minivlm import VLM, Batch, budget, load, save

HERE = str(Path(minivlm.__file__).parent)
SETTINGS = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile("ci", max_examples=50, derandomize=True, **SETTINGS)
settings.register_profile("nightly", max_examples=500, print_blob=True, **SETTINGS)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
SEEN: Counter[str] = Counter()
T = TypeVar("T")


def if_it_can(run: Callable[[], T]) -> T | None:
    """What it gives, or None where the package itself refuses and says why."""
    try:
        return run()
    except (ValueError, TypeError) as error:
        raised = traceback.extract_tb(error.__traceback__)[-1].filename
        assert raised.startswith(HERE) and len(str(error).split()) > 3, f"no clear error: {error!r} from {raised}"
        return None


def made(plan: Plan) -> VLM:
    torch.manual_seed(0)
    return randomise(plan.make().build())


def sample(model: VLM) -> Batch:
    """Two samples of two pictures, the second with fewer words, all of which are to be learned."""
    ids = torch.randint(4, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(0))
    ids[:, [1, 3]] = model.image_token_id
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 6:] = False
    labels = torch.where(mask & (ids != model.image_token_id), ids, -100)
    images = torch.rand(2, 2, 3, *model.config.vision.image_size)
    return Batch(images, ids, labels, mask, instruction=ids[:, 4:7], instruction_mask=mask[:, 4:7])


def check_learning(model: VLM, batch: Batch) -> None:
    """Whatever learns and is read at all has a gradient, and the loss is a number."""
    with redirect_stdout(StringIO()):
        model.train_only(*model.parts)
    loss = model.train()(batch).loss
    loss.backward()
    assert loss.isfinite()
    lost = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not lost, f"no gradient reaches {lost}"
    model.eval().zero_grad()


@torch.no_grad()
def check_saying(model: VLM, batch: Batch) -> None:
    """Three words from a cache, each of which is the likeliest when all before it is read again."""
    alone = Batch(batch.images[:1], batch.input_ids[:1], instruction=batch.instruction[:1])
    said = model.generate(alone, max_new_tokens=3)
    ids = torch.cat([alone.input_ids, said], dim=1)
    if (said == model.image_token_id).any():
        return  # which would be read as one more picture
    logits = model(Batch(alone.images, ids, instruction=alone.instruction)).logits[0, -said.shape[1] - 1 : -1]
    best, chosen = logits.amax(dim=-1), logits.gather(1, said.T)[:, 0]
    ended = (said[0] == model.config.eos_id).cumsum(dim=0) > 0
    assert ((best - chosen < 1e-3) | ended).all()


@torch.no_grad()
def check_counting(model: VLM, batch: Batch) -> None:
    cost = budget(model.config, words=6, images=2)
    assert sum(cost.weights.values()) == sum(p.numel() for p in model.parameters())
    visual = model.connect(model.features(batch.images), batch)
    assert cost.visual_tokens == visual.shape[1] * visual.shape[2]
    assert cost.positions == int(model(batch).layout.lengths[0])


@torch.no_grad()
def check_keeping(model: VLM, batch: Batch, path: Path) -> None:
    save(model, path)
    again = load(path, "cpu").eval()
    assert again.config == model.config
    torch.manual_seed(1)  # some depths draw lots
    before = model(batch).logits
    torch.manual_seed(1)
    assert torch.equal(again(batch).logits, before)


@torch.no_grad()
def check_other_sizes(model: VLM, batch: Batch) -> None:
    """Pictures of another size than the encoder's are read and counted, or refused as clearly."""
    height, width = model.config.vision.image_size
    images = torch.rand(2, 2, 3, height + 7, width + 12)
    output = if_it_can(lambda: model(replace(batch, images=images)))
    if output is not None:
        cost = budget(model.config, words=6, images=2, image_size=(height + 7, width + 12))
        assert cost.positions == int(output.layout.lengths[0])


@PROFILE
@given(plan=designs())
def fuzz(plan: Plan, path: Path) -> None:
    model = if_it_can(lambda: made(plan))
    SEEN["refused" if model is None else "works"] += 1
    if model is None:
        return
    batch = sample(model)
    check_learning(model, batch)
    if getattr(model.config.language, "rule", None) != "random":  # another lot for each reading
        check_saying(model, batch)
    check_counting(model, batch)
    check_keeping(model, batch, path)
    check_other_sizes(model, batch)


def test_any_combination_works_or_is_refused(tmp_path, capsys):
    SEEN.clear()
    fuzz(path=tmp_path / "model.safetensors")
    assert SEEN["works"] > 10 and SEEN["refused"] > 10, SEEN
