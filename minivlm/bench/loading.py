"""How long a published system's folder takes to open, and how much memory: beside transformers' own loader, the same
folder. Both map files into memory and copy little, so all weights are looked at once before the clock stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from minivlm.bench.timing import Ratio, alternate, ratio
from minivlm.storage import load

RIVAL = "transformers' from_pretrained"


@dataclass(frozen=True)
class Peak:
    """Most megabytes that a process takes beyond what it took before the work, of ours and of the rival; the share
    that ours should take at most."""

    what: str
    ours: float
    theirs: float
    wanted: float

    @property
    def share(self) -> float:
        return self.ours / self.theirs


def written(width: int, folder: Path) -> Path:
    """A folder of transformers' LLaVA with random weights and a decoder of that width, in files of 50 MB at most."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = dict(hidden_size=width // 2, intermediate_size=2 * width, num_attention_heads=4, num_hidden_layers=4)
    text = dict(hidden_size=width, intermediate_size=3 * width, num_attention_heads=4, num_hidden_layers=4)
    config = LlavaConfig(
        vision_config=dict(model_type="clip_vision_model", image_size=224, patch_size=14, **vision),
        text_config=dict(model_type="llama", vocab_size=20 * width, num_key_value_heads=4, eos_token_id=2, **text),
        image_token_index=3,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder, max_shard_size="50MB")
    return folder


def ours(folder: str | Path) -> nn.Module:
    return seen(load(folder, "cpu"))


def theirs(folder: str | Path) -> nn.Module:
    from transformers import LlavaForConditionalGeneration

    return seen(LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32))


def seen(model: nn.Module) -> nn.Module:
    """Looked at, every weight."""
    for weight in model.parameters():
        weight.detach().sum()
    return model


def loading(width: int, rounds: int, wanted: float = 1 / 1.2) -> tuple[Ratio, Peak]:
    """Time in this process, in turns; peaks each in a new one. The ratio wanted is that of at most 1.2 times the time;
    of memory at most 1.1 times as much."""
    with TemporaryDirectory() as place:
        folder = written(width, Path(place) / "llava")
        megabytes = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
        took = alternate({"ours": lambda: ours(folder), "theirs": lambda: theirs(folder)}, rounds)
        rises = [_rise(loader, folder) for loader in (ours, theirs)]
    what = f"opening a folder of {megabytes:,.0f} MB"
    return ratio(what, ("load", took["ours"]), (RIVAL, took["theirs"]), wanted), Peak(what, *rises, wanted=1.1)


def _rise(loader: Callable, folder: Path) -> float:
    """Megabytes, measured in a process of its own."""
    code = f"from minivlm.bench import loading; loading.tell('{loader.__name__}', {str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def tell(loader: str, folder: str) -> None:
    """Print the rise of this process's peak; what both need is imported, and run once, before."""
    import transformers  # noqa: F401

    with TemporaryDirectory() as place:
        small = written(16, Path(place) / "small")
        ours(small), theirs(small)
    before = _peak(anew=True)
    {"ours": ours, "theirs": theirs}[loader](folder)
    print(_peak() - before)


def _peak(anew: bool = False) -> float:
    """Most megabytes that this process has held, on Linux `anew`: from now on. (What the system counts for a child may
    be its parent's there.)"""
    status = Path("/proc/self/status")
    if status.is_file():
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1e3
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
