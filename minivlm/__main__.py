"""The command line: `python -m minivlm COMMAND`, one thin function a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from minivlm.designs import DESIGNS, PRESETS, find
from minivlm.model import VLM
from minivlm.runtime import SCALES

INTERRUPTED = 128 + 2  # the exit code of what SIGINT ended, as shells have it


def doctor(arguments: argparse.Namespace) -> None:
    """Say what is installed, what is missing, and which scale this machine can bear."""
    from minivlm.course.doctor import doctor

    if not doctor():
        raise SystemExit(1)


def designs(arguments: argparse.Namespace) -> None:
    """List every design: what it is, and the visual tokens and weights of the published system."""
    from minivlm.budget import budget
    from minivlm.shapes import uncollected

    print(f"{'name':10} {'year':4}  {'design':12} {'connector':26} {'fusion':24} {'tokens':>6} {'weights':>8}")
    with uncollected():
        for name, design in DESIGNS.items():
            counted = f"{'-':>6} {'-':>8}"  # two towers: one vector a picture, no sequence
            if design.answers:
                cost = budget(name)
                counted = f"{cost.visual_tokens:>6} {sum(cost.weights.values()) / 1e9:>7.2f}B"
            print(f"{name:10} {design.year:4}  {design.title:12} {design.connector:26} {design.fusion:24} {counted}")


def budget(arguments: argparse.Namespace) -> None:
    """Count what a design costs: tokens, weights, operations, cache and memory, of pictures of any size."""
    from minivlm.budget import budget

    sizes = dict(words=arguments.words, images=arguments.images, image_size=arguments.image)
    print(budget(arguments.design, arguments.preset, **sizes))


def train(arguments: argparse.Namespace) -> None:
    """Train a design on scenes at a scale, resumable, and save it."""
    from minivlm.recipes import train_design
    from minivlm.storage import save

    find(arguments.design)
    model = train_design(arguments.design, arguments.scale, arguments.seed, arguments.out, arguments.steps)
    save(model, Path(arguments.out) / "model.safetensors")
    print(f"saved {Path(arguments.out) / 'model.safetensors'}")


def evaluate(arguments: argparse.Namespace) -> None:
    """Print a trained model's accuracy per task, the same model without the picture beside it."""
    from minivlm.recipes import evaluation_table

    if arguments.per_task < 1:
        raise ValueError(f"--per-task must be at least 1, got {arguments.per_task}")
    print(evaluation_table(_answering(arguments.model), arguments.per_task))


def ask(arguments: argparse.Namespace) -> None:
    """Ask a trained model about a picture file."""
    from minivlm.data.files import load_image
    from minivlm.language.tokenizer import mini_tokenizer
    from minivlm.recipes import answer
    from minivlm.storage import bundled

    model = _answering(arguments.model) if arguments.model else bundled("llava15")
    image = load_image(arguments.image, model.config.vision.image_size)
    print(answer(model, mini_tokenizer(), image, arguments.question))


def compare(arguments: argparse.Namespace) -> None:
    """Train designs side by side under one setting, several seeds each, and print their accuracy per task."""
    from minivlm.compare import compare, imported
    from minivlm.tables import setting, table

    results = compare(
        dict.fromkeys(arguments.designs) | {name.rpartition(":")[2]: imported(name) for name in arguments.design},
        arguments.tokens,
        arguments.seeds,
        arguments.scale,
        arguments.steps,
        arguments.out,
        arguments.precision,
        arguments.language,
        arguments.data,
        arguments.jobs,
    )
    if not results:
        raise ValueError("every run failed, each for what is said above")
    print(f"{table(results, list(results[0].accuracy))}\n\n{setting(results)}")


def shots(arguments: argparse.Namespace) -> None:
    """Train a design, decoder frozen, to follow the examples in its prompt; print its accuracy against their number."""
    from minivlm.shots import COUNTS, few_shots

    for seed in arguments.seeds:
        result = few_shots(
            arguments.design, arguments.tokens, seed, arguments.scale, arguments.out, arguments.precision
        )
        print(f"{result.design}, {result.tokens} tokens, seed {seed}, {result.steps} steps; shots: {COUNTS}")
        for name, by_rule in (("pictures", result.seen), ("words", result.told)):
            for rule, shares in by_rule.items():
                print(f"  {name:8} {rule:5} {'  '.join(f'{share:4.0%}' for share in shares)}")


def read(arguments: argparse.Namespace) -> None:
    """Train designs to answer questions on pages, encoders frozen, and print their accuracy per task."""
    from minivlm.reading import read_pages, readings_table
    from minivlm.tables import setting

    wanted = [(design, seed) for seed in arguments.seeds for design in arguments.designs]
    results = [read_pages(*one, arguments.scale, arguments.out, arguments.precision) for one in wanted]
    print(f"{readings_table(results)}\n\n{setting(results)}")


def ground(arguments: argparse.Namespace) -> None:
    """Teach a design to say where things are; print how much of the true boxes its own cover."""
    from minivlm.ground import ground

    for seed in arguments.seeds:
        result = ground(
            arguments.design,
            arguments.tokens,
            seed,
            arguments.scale,
            arguments.steps,
            arguments.scenes,
            arguments.out,
            arguments.precision,
        )
        print(
            f"{result.design}, {result.tokens} tokens, seed {seed}, {result.steps} steps: mean IoU {result.iou:.2f} "
            f"(blind {result.blind:.2f}), IoU >= 0.5 {result.found:.0%}, boxes named right {result.named:.0%}"
        )


def watch(arguments: argparse.Namespace) -> None:
    """Train a design to answer questions on videos, encoder frozen, and print its accuracy per task."""
    from minivlm.tables import setting
    from minivlm.watch import watch, watching_table

    how = (arguments.frames, arguments.scale, arguments.steps, arguments.out, arguments.precision)
    results = [watch(arguments.design, arguments.tokens_a_frame, seed, *how) for seed in arguments.seeds]
    print(f"{watching_table(results)}\n\n{setting(results)}")


def raw(arguments: argparse.Namespace) -> None:
    """Train on raw patches of one size, of several, and on an encoder's; print accuracy by steps and by size."""
    from minivlm.raw import ARMS, raw_run, table

    runs = [(arm, seed) for seed in arguments.seeds for arm in arguments.arms or ARMS]
    print(table([raw_run(*run, arguments.scale, arguments.out, arguments.precision) for run in runs]))


def hear(arguments: argparse.Namespace) -> None:
    """Train MMV's three graphs on scenes that can be heard; print who finds whom, trained together or not."""
    from minivlm.hear import GRAPHS, hear, hear_table

    runs = [(graph, seed) for seed in arguments.seeds for graph in arguments.graphs or GRAPHS]
    print(hear_table([hear(*run, arguments.scale, arguments.out, arguments.precision) for run in runs]))


def depth(arguments: argparse.Namespace) -> None:
    """Train decoders whose blocks skip places, by rule or by lot, and one that skips none; print what each answers."""
    from minivlm.depth import ARMS, depth_run, depths_table
    from minivlm.tables import setting

    how = (arguments.capacity, arguments.every, arguments.scale, arguments.out, arguments.precision)
    results = [depth_run(design, seed, *how) for seed in arguments.seeds for design in arguments.designs or ARMS]
    print(f"{depths_table(results)}\n\n{setting(results)}")


def bench(arguments: argparse.Namespace) -> None:
    """Measure how fast training and answering are, beside transformers and open_clip; print a table of ratios."""
    from minivlm.bench.report import bench, bench_table

    print(bench_table(bench(arguments.scale, arguments.out)))


def _answering(path: str) -> VLM:
    """The model of a file, or a ValueError if it is one that cannot be asked."""
    from minivlm.storage import load

    model = load(path)
    if not isinstance(model, VLM):
        raise ValueError(f"{path} holds a {type(model).__name__}; this command wants a model that answers questions")
    return model


def pretrain(arguments: argparse.Namespace) -> None:
    """Make the bundled weights again: mini CLIP, encoders that read pages, mini decoders on text, mini LLaVA-1.5."""
    from minivlm.pretraining import pretrain_all

    pretrain_all(Path(arguments.out), Path(arguments.runs), arguments.seed)


def course_build(arguments: argparse.Namespace) -> None:
    """Make student, solution and instructor copies of the lessons."""
    from minivlm.course.run import select
    from minivlm.course.student import build

    for path in build(select(Path(arguments.notebooks), arguments.nb), Path(arguments.out), arguments.minutes):
        print(path)


def course_repair(arguments: argparse.Namespace) -> None:
    """Restore missing or edited cards and checks of a student copy; what the student wrote stays."""
    from minivlm.course.repair import repair

    done = repair(Path(arguments.student), Path(arguments.notebooks))
    print("\n".join(done) or f"{arguments.student}: nothing was missing or changed")


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
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, name: str, among=commands) -> argparse.ArgumentParser:
        sub = among.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        return sub

    command(doctor, "doctor")
    command(designs, "designs")
    sub = command(budget, "budget")
    sub.add_argument("design", help=f"one of those that answer: {', '.join(DESIGNS)}")
    sub.add_argument("--preset", choices=PRESETS, default="published", help="default: %(default)s")
    told = "height and width of the pictures in pixels, such as 672x1008 (default: the design's own)"
    sub.add_argument("--image", type=picture_size, metavar="HxW", help=told)
    sub.add_argument("--images", type=int, default=1, help="how many pictures (default: %(default)s)")
    sub.add_argument("--words", type=int, default=64, help="how many words beside them (default: %(default)s)")
    sub = command(train, "train")
    sub.add_argument("design", help=f"one of {', '.join(DESIGNS)}")
    sub.add_argument("--scale", choices=SCALES, help="how long (default: what the machine can bear)")
    sub.add_argument("--steps", type=int, help="steps of every stage, instead of the scale's")
    sub.add_argument("--seed", type=int, default=0, help="where all chance starts (default: %(default)s)")
    sub.add_argument("--out", default="runs/last", help="folder for checkpoints and the model (default: %(default)s)")
    sub = command(evaluate, "eval")
    sub.add_argument("model", help="a model.safetensors that `train` wrote")
    sub.add_argument("--per-task", type=int, default=500, help="questions a task (default: %(default)s)")
    sub = command(ask, "ask")
    sub.add_argument("image", help="a picture file (PNG, JPEG, ...)")
    sub.add_argument("question", help='for instance "what color is the circle ?"')
    sub.add_argument("--model", help="a model.safetensors (default: the bundled mini LLaVA-1.5)")
    answering = [name for name in DESIGNS if DESIGNS[name].answers]
    sub = command(compare, "compare")
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
    sub = command(shots, "shots")
    sub.add_argument("design", help="one of those that answer")
    sub.add_argument("--tokens", type=int, help="visual tokens a picture (default: the design's own)")
    several_seeds(sub, "runs/shots")
    sub = command(read, "read")
    sub.add_argument("designs", nargs="+", help='some of those that answer, or "blind"')
    several_seeds(sub, "runs/reading")
    sub = command(ground, "ground")
    sub.add_argument("design", help="one of those that answer, and do not read the question into their tokens")
    sub.add_argument("--tokens", type=int, help="visual tokens a picture (default: the design's own)")
    sub.add_argument("--steps", type=int, help="steps of the second stage, instead of the scale's")
    sub.add_argument("--scenes", type=int, help="different scenes in training, instead of the scale's")
    several_seeds(sub, "runs/ground")
    sub = command(watch, "watch")
    sub.add_argument("design", help='one of those that answer, or "blind"')
    sub.add_argument("--tokens-a-frame", type=int, help="visual tokens a frame (default: the design's own)")
    sub.add_argument("--frames", type=int, default=8, help="of each video, a multiple of 8 (default: %(default)s)")
    sub.add_argument("--steps", type=int, help="steps, instead of the scale's")
    several_seeds(sub, "runs/watch")
    sub = command(raw, "raw")
    sub.add_argument("--arms", nargs="+", metavar="ARM", help="of: one size, several sizes, encoder (default: all)")
    several_seeds(sub, "runs/raw")
    sub = command(hear, "hear")
    sub.add_argument("--graphs", nargs="+", metavar="GRAPH", help="of: shared, disjoint, fac (default: all)")
    several_seeds(sub, "runs/hear")
    sub = command(depth, "depth")
    told = "of: llava15, mod, mod_auxiliary, mod_random (default: all)"
    sub.add_argument("designs", nargs="*", metavar="DESIGN", help=told)
    sub.add_argument("--capacity", type=float, default=0.125, help="share of places worked on (default: %(default)s)")
    sub.add_argument("--every", type=int, default=2, help="of how many blocks one is routed (default: %(default)s)")
    several_seeds(sub, "runs/depth")
    sub = command(bench, "bench")
    sub.add_argument("--scale", choices=SCALES, help="how much (default: what the machine can bear)")
    sub.add_argument("--out", default="runs/bench", help="folder for bench-SCALE.json (default: %(default)s)")
    sub = command(pretrain, "pretrain")
    sub.add_argument("--out", default="minivlm/weights", help="folder for the weights (default: %(default)s)")
    sub.add_argument("--runs", default="runs/pretrain", help="folder for checkpoints (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="where all chance starts (default: %(default)s)")
    told = "Make copies of the lessons for a class, and repair those of students."
    course = commands.add_parser("course", help=told, description=told)
    actions = course.add_subparsers(dest="action", required=True, metavar="ACTION", help="build or repair")
    sub = command(course_build, "build", actions)
    sub.add_argument("--out", default="build/course", help="folder for the copies (default: %(default)s)")
    sub.add_argument("--minutes", type=int, choices=(45, 90), default=90, help="45 leaves out what is marked extra")
    sub.add_argument("--nb", nargs="+", default=[], metavar="NN", help="only the lessons whose names begin so")
    repairing = command(course_repair, "repair", actions)
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
