"""Before anything of minivlm is imported: have every annotated shape checked, which only tests pay for. And what all
comparisons with other libraries' models are tried with."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several at work: each with a core of its own
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from jaxtyping import install_import_hook

# The numeric tower: an int is welcome where a float is asked for, as type checkers have it.
install_import_hook("minivlm", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture(params=range(3), ids="seed {}".format)
def seed(request) -> int:
    return request.param


@pytest.fixture(params=[1.0, 0.02], ids="scale {}".format)
def scale(request) -> float:
    """What enters the first block (words, patches, queries, features) is multiplied by: when small, a wrong epsilon
    shows."""
    return request.param


@pytest.fixture(scope="session")
def opened() -> tuple:
    """SmolLM2 as our `Llama`, and its tokenizer: opened once for all, for it takes long. Nothing may change it."""
    from minivlm.pretrained import smollm2

    try:
        return smollm2()
    except ImportError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def no_graph():
    with torch.no_grad():
        yield
