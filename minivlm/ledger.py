"""A ledger: a JSON Lines file that runs are added to, a line each, whole or not at all.

A line is one write to the end of the file, so that several processes may add to it. What a kill or a full disk left of
a line is known by being no JSON; it is passed over, and the next line begins behind it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Ledger:
    """The file `path`, made with its folder where there is none. OSError, saying what to do, where it cannot be written
    or has no room for `room` more bytes: before the work whose results it is to keep."""

    def __init__(self, path: str | Path, room: int = 0):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path if self.path.exists() else self.path.parent, os.W_OK):
            raise PermissionError(f"cannot write results into {self.path}: choose another folder")
        self._try(room)

    def _try(self, room: int) -> None:
        """Open the file as `add` does, and put so many bytes beside it for a moment."""
        os.close(os.open(self.path, _APPEND, 0o666))
        trial = self.path.with_name(f".{self.path.name}.room-{os.getpid()}")
        try:
            trial.write_bytes(bytes(room))
        except OSError as error:
            told = f"no room for {room:,} bytes of results in {self.path.parent} ({error.strerror}): make room, or"
            raise OSError(error.errno, f"{told} choose another folder") from error
        finally:
            trial.unlink(missing_ok=True)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Put an entry at the end. OSError where not all of it could be written."""
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        file = os.open(self.path, _APPEND, 0o666)
        try:
            if not self._ends_whole(file):
                line = b"\n" + line
            if os.write(file, line) < len(line):
                raise OSError(f"{self.path}: the disk is full, and the last line is not whole; make room and run again")
            os.fsync(file)
        finally:
            os.close(file)

    @staticmethod
    def _ends_whole(file: int) -> bool:
        size = os.lseek(file, 0, os.SEEK_END)
        if size == 0:
            return True
        os.lseek(file, size - 1, os.SEEK_SET)
        return os.read(file, 1) == b"\n"

    def entries(self) -> list[dict[str, Any]]:
        """All whole entries, in order; says on which lines there are others."""
        found = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                found.append(json.loads(line))
            except ValueError:
                print(f"{self.path}:{number}: not whole, as a kill or a full disk leaves it; passed over")
        return found


_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT
