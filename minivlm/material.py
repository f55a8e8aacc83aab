"""Material: what a comparison trains on and asks about, the same for every design. Here: scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from minivlm.data.captions import caption
from minivlm.data.scenes import render, sample_scenes
from minivlm.data.tasks import TASKS, evaluation_bank
from minivlm.evaluate import Question
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.model import VLM
from minivlm.recipes import VLM_SIZES, Size, vlm_stages
from minivlm.streams import Bank, Dialogs, generator
from minivlm.train import Stage

# Smaller than a lesson's: all designs with three seeds are to take two hours on two cores ("cpu", two runs at once),
# and less than one on a large GPU ("gpu", four at once)
SIZES = {
    "smoke": VLM_SIZES["smoke"],
    "cpu": Size(scenes=3000, batch_size=8, align_steps=100, steps=1200, per_scene=12),
    "gpu": Size(scenes=20000, batch_size=128, align_steps=100, steps=1000, per_scene=12),
}
PER_TASK = {"smoke": 10, "cpu": 400, "gpu": 1000}  # questions a task


@dataclass(frozen=True)
class Exam:
    """Test questions, S samples of them, what an encoder makes of their pictures, and the first of these pictures.
    `told` is each picture in words, where that is known."""

    questions: Sequence[Sequence[Question]]
    features: Float[Tensor, "S 1 N D"]
    picture: Float[Tensor, "1 1 3 H W"]
    told: Sequence[str] | None


@runtime_checkable
class Material(Protocol):
    """What `compare` asks of material. Banks and exams hold what an encoder makes of pictures, so that designs with
    one encoder share them."""

    name: str
    size: Size
    tokenizer: Tokenizer

    def bank(self, model: VLM, seed: int) -> object: ...

    def exam(self, model: VLM) -> Exam: ...

    def stages(self, model: VLM, bank: object, seed: int, language: str) -> list[Stage]: ...

    def blind_stages(self, bank: object, seed: int) -> list[Stage]: ...


@dataclass(frozen=True)
class SceneMaterial:
    """Scenes and fresh questions on them; `per_task` test questions a task, the same for every run."""

    size: Size
    per_task: int
    name: str = "scenes"

    @property
    def tokenizer(self) -> Tokenizer:
        return mini_tokenizer()

    def bank(self, model: VLM, seed: int) -> Bank:
        return Bank.make(model, sample_scenes(self.size.scenes, generator(seed, 0)))

    def exam(self, model: VLM) -> Exam:
        scenes, questions = evaluation_bank(per_task=self.per_task)
        told = [caption(scenes[i]) for i in range(len(scenes))]
        first = render(scenes[:1], model.config.vision.image_size)[:, None]
        return Exam(questions, Bank.make(model, scenes).features, first, told)

    def stages(self, model: VLM, bank: Bank, seed: int, language: str) -> list[Stage]:
        return vlm_stages(model, self.size, seed, bank=bank, language=language)

    def blind_stages(self, bank: Bank, seed: int) -> list[Stage]:
        """The second stage alone, on the same questions, without their pictures."""
        size = self.size
        asked = Dialogs(mini_tokenizer(), bank, size.batch_size, TASKS, size.per_scene, blind=True, seed=seed + 1)
        return [Stage("instruct", asked, size.steps, lr=1e-3, trains=("language",))]


def scenes(scale: str, steps: int | None) -> SceneMaterial:
    """As much of them as that scale has; `steps` replaces those of the second stage."""
    size = SIZES[scale]
    return SceneMaterial(size if steps is None else replace(size, steps=steps), PER_TASK[scale])
