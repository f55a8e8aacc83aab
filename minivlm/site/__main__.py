"""Make the pages of the course: `python -m minivlm.site`, or `make site`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from minivlm.site.build import build


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("python -m minivlm.site", description="Make the pages of the course.")
    top.add_argument("--out", type=Path, default=Path("build/site"), help="folder for them (default: %(default)s)")
    return top


def main(words: Sequence[str] | None = None) -> int:
    try:
        index = build(Path("notebooks"), parser().parse_args(words).out)
    except (ImportError, ValueError, RuntimeError) as error:
        sys.exit(f"minivlm.site: {error}")
    print(f"the pages are made: open {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
