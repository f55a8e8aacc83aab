"""The command line: `python -m minivlm COMMAND`, and the options of each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from minivlm import commands
from minivlm.designs import DESIGNS, PRESETS
from minivlm.runtime import SCALES

INTERRUPTED = 128 + 2  # the exit code of what SIGINT ended, as shells have it


def picture_size(told: str) -> tuple[int, int]:
    """ "672x1008" as (672, 1008)."""
    sides = told.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"{told!r} is no height and width in pixels, such as 672x1008")
    return int(sides[0]), int(sides[1])


def several_seeds(sub: argparse.ArgumentParser, folder: str) -> None:
    """The options of every command that trains with one seed after the other."""
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    sub.add_argument("--scale", choices=SCALES, help="how long (default: what the machine can bear)")
    sub.add_argument("--precision", choices=("no", "bf16", "fp16"), help="default: bf16 on a GPU, else no")
    sub.add_argument("--out", default=folder, help="folder for results, kept (default: %(default)s)")


def parser() -> argparse.ArgumentParser:
    """Every command with its options; `--help` of each is its function's docstring."""
    top = argparse.ArgumentParser("python -m minivlm", description="Small, true, visible vision-language models.")
    choices = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, name: str, among=choices) -> argparse.ArgumentParser:
        sub = among.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        return sub

    command(commands.doctor, "doctor")
    command(commands.designs, "designs")
    sub = command(commands.budget, "budget")
    sub.add_argument("design", help=f"one of those that answer: {', '.join(DESIGNS)}")
    sub.add_argument("--preset", choices=PRESETS, default="published", help="default: %(default)s")
    told = "height and width of the pictures in pixels, such as 672x1008 (default: the design's own)"
    sub.add_argument("--image", type=picture_size, metavar="HxW", help=told)
    sub.add_argument("--images", type=int, default=1, help="how many pictures (default: %(default)s)")
    sub.add_argument("--words", type=int, default=64, help="how many words beside them (default: %(default)s)")
    sub = command(commands.train, "train")
    sub.add_argument("design", help=f"one of {', '.join(DESIGNS)}")
    sub.add_argument("--scale", choices=SCALES, help="how long (default: what the machine can bear)")
    sub.add_argument("--steps", type=int, help="steps of every stage, instead of the scale's")
    sub.add_argument("--seed", type=int, default=0, help="where all chance starts (default: %(default)s)")
    told = "a dataset on the hub, or a folder of Parquet or tar files, to learn from instead of scenes"
    sub.add_argument("--data", metavar="NAME", help=told)
    sub.add_argument("--out", default="runs/last", help="folder for checkpoints and the model (default: %(default)s)")
    sub = command(commands.evaluate, "eval")
    sub.add_argument("model", help="a model.safetensors that `train` wrote")
    sub.add_argument("--per-task", type=int, default=500, help="questions a task (default: %(default)s)")
    sub = command(commands.ask, "ask")
    sub.add_argument("image", help="a picture file (PNG, JPEG, ...)")
    sub.add_argument("question", help='for instance "what color is the circle ?"')
    sub.add_argument("--model", help="a model.safetensors (default: the bundled mini LLaVA-1.5)")
    answering = [name for name in DESIGNS if DESIGNS[name].answers]
    sub = command(commands.compare, "compare")
    sub.add_argument("--designs", nargs="+", default=answering, metavar="DESIGN", help="default: all that answer")
    told = "a design of your own beside them: a function in a module here, which makes its VLMConfig"
    sub.add_argument("--design", nargs="+", default=[], metavar="MODULE:FUNCTION", help=told)
    told = "a folder of pictures with questions in its data.jsonl, instead of scenes"
    sub.add_argument("--data", metavar="FOLDER", help=told)
    sub.add_argument("--jobs", type=int, default=1, help="runs at once, each in a process (default: %(default)s)")
    sub.add_argument("--tokens", type=int, help="visual tokens a picture, for all (default: each design's own)")
    sub.add_argument("--steps", type=int, help="steps of the second stage, instead of the scale's")
    sub.add_argument(
        "--language", choices=("tuned", "lora", "frozen"), default="tuned", help="what of the decoder learns"
    )
    several_seeds(sub, "runs/compare")
    sub = command(commands.shots, "shots")
    sub.add_argument("design", help="one of those that answer")
    sub.add_argument("--tokens", type=int, help="visual tokens a picture (default: the design's own)")
    several_seeds(sub, "runs/shots")
    sub = command(commands.read, "read")
    sub.add_argument("designs", nargs="+", help='some of those that answer, or "blind"')
    several_seeds(sub, "runs/reading")
    sub = command(commands.ground, "ground")
    sub.add_argument("design", help="one of those that answer, and do not read the question into their tokens")
    sub.add_argument("--tokens", type=int, help="visual tokens a picture (default: the design's own)")
    sub.add_argument("--steps", type=int, help="steps of the second stage, instead of the scale's")
    sub.add_argument("--scenes", type=int, help="different scenes in training, instead of the scale's")
    several_seeds(sub, "runs/ground")
    sub = command(commands.watch, "watch")
    sub.add_argument("design", help='one of those that answer, or "blind"')
    sub.add_argument("--tokens-a-frame", type=int, help="visual tokens a frame (default: the design's own)")
    sub.add_argument("--frames", type=int, default=8, help="of each video, a multiple of 8 (default: %(default)s)")
    sub.add_argument("--steps", type=int, help="steps, instead of the scale's")
    several_seeds(sub, "runs/watch")
    sub = command(commands.raw, "raw")
    sub.add_argument("--arms", nargs="+", metavar="ARM", help="of: one size, several sizes, encoder (default: all)")
    several_seeds(sub, "runs/raw")
    sub = command(commands.hear, "hear")
    sub.add_argument("--graphs", nargs="+", metavar="GRAPH", help="of: shared, disjoint, fac (default: all)")
    several_seeds(sub, "runs/hear")
    sub = command(commands.depth, "depth")
    told = "of: llava15, mod, mod_auxiliary, mod_random (default: all)"
    sub.add_argument("designs", nargs="*", metavar="DESIGN", help=told)
    sub.add_argument("--capacity", type=float, default=0.125, help="share of places worked on (default: %(default)s)")
    sub.add_argument("--every", type=int, default=2, help="of how many blocks one is routed (default: %(default)s)")
    several_seeds(sub, "runs/depth")
    sub = command(commands.smol, "smol")
    sub.add_argument("designs", nargs="+", metavar="DESIGN", help="some of those that answer")
    sub.add_argument("--tokens", type=int, help="visual tokens a picture (default: each design's own)")
    sub.add_argument("--steps", type=int, help="steps of the second stage, instead of the scale's")
    several_seeds(sub, "runs/smol")
    sub = command(commands.bench, "bench")
    sub.add_argument("--scale", choices=SCALES, help="how much (default: what the machine can bear)")
    sub.add_argument("--out", default="runs/bench", help="folder for bench-SCALE.json (default: %(default)s)")
    sub = command(commands.pretrain, "pretrain")
    sub.add_argument("--out", default="minivlm/weights", help="folder for the weights (default: %(default)s)")
    sub.add_argument("--runs", default="runs/pretrain", help="folder for checkpoints (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="where all chance starts (default: %(default)s)")
    told = "Make copies of the lessons for a class, and repair those of students."
    course = choices.add_parser("course", help=told, description=told)
    actions = course.add_subparsers(dest="action", required=True, metavar="ACTION", help="build or repair")
    sub = command(commands.course_build, "build", actions)
    sub.add_argument("--out", default="build/course", help="folder for the copies (default: %(default)s)")
    sub.add_argument("--minutes", type=int, choices=(45, 90), default=90, help="45 leaves out what is marked extra")
    sub.add_argument("--nb", nargs="+", default=[], metavar="NN", help="only the lessons whose names begin so")
    repairing = command(commands.course_repair, "repair", actions)
    repairing.add_argument("student", metavar="STUDENT.ipynb", help="the student copy to mend, in place")
    for one in (sub, repairing):
        one.add_argument("--notebooks", default="notebooks", help="folder of the lessons (default: %(default)s)")
    return top


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    try:
        arguments.function(arguments)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"minivlm {arguments.command}: {error}")
    except KeyboardInterrupt:
        print(f"minivlm {arguments.command}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
