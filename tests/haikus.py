"""MMV as its paper and its released code have it, in numpy, on arrays named as Haiku names them: no line of ours."""

from __future__ import annotations

import numpy as np

Arrays = dict[str, dict[str, np.ndarray]]
DECAY, EPS, TEMPERATURE = 0.9, 1e-5, 0.07


def made(seed: int, vocab: int = 23, norm: str = "__batch_norm") -> tuple[Arrays, Arrays]:
    """Parameters and state of a small model, every number of which matters; sizes are odd, and the backbones' arrays
    and the unused heads that a checkpoint holds are there too."""
    draw = np.random.default_rng(seed)
    image, audio, word, text, fine, coarse = (int(draw.integers(low, low + 5)) for low in (9, 14, 5, 11, 8, 4))

    def linear(width, out, bias=True):
        arrays = {"w": draw.normal(size=(width, out)) / width**0.5}
        return arrays | ({"b": draw.normal(size=out) / 2} if bias else {})

    def affine(width):
        return {"scale": 1 + draw.normal(size=(1, width)) / 5, "offset": draw.normal(size=(1, width)) / 2}

    params = {
        "vid2audio_embd/final_projection_inner": linear(image, fine),
        f"vid2audio_embd/{norm}": affine(fine),
        "vid2audio_embd/final_projection": linear(fine, fine, bias=False),
        f"vid2audio_embd/{norm}_1": affine(fine),
        "vis_embd/final_projection": linear(fine, coarse),
        f"vis_embd/{norm}": affine(coarse),
        "audio_embd/final_projection": linear(audio, fine),
        "audio2txt_embd/final_projection": linear(audio, fine),
        "txt_embd/final_projection": linear(text, coarse),
        "txt2audio_embd/final_projection": linear(text, fine),
        "text_module/embed": {"embeddings": draw.normal(size=(vocab, word))},
        "text_module/text_conv1": {"w": draw.normal(size=(1, word, text)) / word**0.5, "b": draw.normal(size=text) / 2},
        "visual_module/tsm_resnet/conv": {"w": draw.normal(size=(3, 3, 3, 7))},
        "audio_module/resnet/conv": {"w": draw.normal(size=(3, 3, 1, 7))},
    }
    state = {}
    for name in (f"vid2audio_embd/{norm}", f"vid2audio_embd/{norm}_1", f"vis_embd/{norm}"):
        width = params[name]["scale"].shape[1]
        mean, variance = draw.normal(size=(1, width)), draw.uniform(0.5, 2, (1, width))
        for kind, average in (("mean_ema", mean), ("var_ema", variance)):
            counter = np.array(4)
            hidden = average * (1 - DECAY**4)
            state[f"{name}/~/{kind}"] = {"counter": counter, "hidden": hidden, "average": average}
    return tuple(
        {
            f"text_audio_video/{name}": {key: np.float32(x).astype(float) for key, x in arrays.items()}
            for name, arrays in half.items()
        }
        for half in (params, state)
    )  # rounded to 32 bits, so that a model in 64 has the same numbers


class HaikuMMV:
    """`params` and `state` as above; `training` uses a batch's own statistics, and learns the running ones."""

    def __init__(self, params: Arrays, state: Arrays):
        self.params = {name.partition("/")[2]: arrays for name, arrays in params.items()}
        self.state = {name.partition("/")[2]: dict(arrays) for name, arrays in state.items()}
        self.training = False

    def fresh(self) -> HaikuMMV:
        """With the running averages of a model that has not begun to train."""
        for arrays in self.state.values():
            arrays |= {"counter": 0, "hidden": 0.0, "average": None}
        return self

    def linear(self, name, x):
        arrays = self.params[name]
        return x @ arrays["w"] + arrays.get("b", 0)

    def norm(self, name, x):
        if self.training:
            mean, variance = x.mean(0), (x**2).mean(0) - x.mean(0) ** 2
            self.average(f"{name}/~/mean_ema", mean)
            self.average(f"{name}/~/var_ema", variance)
        else:
            mean, variance = (self.state[f"{name}/~/{kind}"]["average"] for kind in ("mean_ema", "var_ema"))
        return (x - mean) / np.sqrt(variance + EPS) * self.params[name]["scale"] + self.params[name]["offset"]

    def average(self, name, value):
        arrays = self.state[name]
        arrays["counter"] = arrays["counter"] + 1
        arrays["hidden"] = arrays["hidden"] * DECAY + value * (1 - DECAY)
        arrays["average"] = arrays["hidden"] / (1 - DECAY ** arrays["counter"])

    def fine_image(self, v):
        x = self.norm("vid2audio_embd/__batch_norm", self.linear("vid2audio_embd/final_projection_inner", v))
        x = self.linear("vid2audio_embd/final_projection", np.maximum(x, 0))
        return self.norm("vid2audio_embd/__batch_norm_1", x)

    def coarse(self, fine):
        return self.norm("vis_embd/__batch_norm", self.linear("vis_embd/final_projection", np.maximum(fine, 0)))

    def text(self, ids):
        words = self.params["text_module/embed"]["embeddings"][ids]
        conv = self.params["text_module/text_conv1"]
        return self.linear("txt_embd/final_projection", np.maximum(words @ conv["w"][0] + conv["b"], 0).max(axis=1))

    def __call__(self, v, a, ids):
        """The logits of pictures and sounds, pictures and texts, sounds and texts (None in training), and the loss."""
        v_va, a_va, t_vat = self.fine_image(v), self.linear("audio_embd/final_projection", a), self.text(ids)
        v_vat = self.coarse(v_va)
        a_vat = None if self.training else self.coarse(a_va)
        fine, coarse = cosines(v_va, a_va), cosines(v_vat, t_vat)
        loss = np.mean([nce(fine, i, 1) + nce(coarse, i, len(ids) // len(v)) for i in range(len(v))])
        return fine, coarse, None if a_vat is None else cosines(a_vat, t_vat), loss


def cosines(x, y):
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y)]
    return unit[0] @ unit[1].T / TEMPERATURE


def nce(logits: np.ndarray, i: int, candidates: int) -> float:
    """Pair by pair: minus the log of what picture i's own pairs have of all that are right or wrong for it."""
    right = wrong = 0.0
    for picture, row in enumerate(logits):
        for other, logit in enumerate(row):
            if picture == i and other // candidates == i:
                right += np.exp(logit)
            elif picture == i or other // candidates == i:
                wrong += np.exp(logit)
    return -np.log(right / (right + wrong))
