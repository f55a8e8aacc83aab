"""A name on the Hugging Face hub becomes a folder here: downloaded once, and found again without network."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from minivlm.pretrained.files import PICKLES, only_pickles

OPEN_CLIP = "open_clip:"
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_BESIDE = ["*.json", "*.txt", "*.model", "*.jinja"]  # configurations, tokenizers and templates


def is_published(path: str | Path) -> bool:
    """Is that a folder, a name on the hub or one of open_clip, and not a file of ours?"""
    if str(path).startswith(OPEN_CLIP) or Path(path).is_dir():
        return True
    ours = Path(path).suffix in (".safetensors", *PICKLES) or Path(path).exists()
    return isinstance(path, str) and not ours and _NAME.fullmatch(path) is not None


def folder_of(name: str, revision: str | None = None, weights: str = "*model*.safetensors") -> Path:
    """The folder that holds what the hub has under `name`: weights, configuration, tokenizer. Without network, what was
    downloaded before.

    FileNotFoundError for a name or a revision that the hub does not have, PermissionError for one that must be asked
    for, ValueError for weights in pickles only, ConnectionError where the hub cannot be reached and not all is here.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = dict(revision=revision, allow_patterns=[*_BESIDE, weights])
    at = f" at revision {revision!r}" if revision else ""
    try:
        _check(name + at, HfApi().list_repo_files(name, revision=revision), weights)
        return Path(snapshot_download(name, **wanted))
    except GatedRepoError as error:
        asked = f"ask for it at huggingface.co/{name}, then log in with `hf auth login`"
        raise PermissionError(f"{name} is given only to those who have asked for it: {asked}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(f"no folder {name} here, and no {name} on the hub (or it is private)") from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} on the hub has no revision {revision!r}: see its branches and tags") from error
    except (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        return _kept(name + at, error, lambda: snapshot_download(name, local_files_only=True, **wanted))


def _check(name: str, files: list[str], weights: str) -> None:
    if any(fnmatch(file, weights) for file in files):
        return
    pickles = [file for file in files if Path(file).suffix in PICKLES]
    if pickles:
        raise ValueError(only_pickles(f"{name} on the hub", pickles))
    raise FileNotFoundError(f"{name} on the hub has no weights ({weights})")


def _kept(name: str, error: Exception, find: Callable[[], str]) -> Path:
    """What is here of a name, if all of it is."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(find())
    except LocalEntryNotFoundError:
        raise ConnectionError(
            f"the hub cannot be reached ({type(error).__name__}), there is no folder {name}, and {name} was not "
            "downloaded here before, or only in part: try again with network, or give a local folder"
        ) from error
