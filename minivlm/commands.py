"""The commands of `python -m minivlm`, one thin function each; what a command needs is imported when it is called."""

from __future__ import annotations

import argparse
from pathlib import Path

from minivlm.designs import DESIGNS, find
from minivlm.model import VLM


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
    """Train a design on scenes or on data in shards, resumable, and save it; on many machines by minivlm/launch."""
    from minivlm.recipes import train_design
    from minivlm.storage import save
    from minivlm.train import writes

    find(arguments.design)
    how = (arguments.scale, arguments.seed, arguments.out, arguments.steps, arguments.data)
    model = train_design(arguments.design, *how)
    if writes():
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


def smol(arguments: argparse.Namespace) -> None:
    """Teach SmolLM2 to see as designs do and to answer in sentences; print how many held-out emoji it can place."""
    from minivlm.smol import smol_run, smol_table
    from minivlm.tables import setting

    how = (arguments.scale, arguments.steps, arguments.out, arguments.precision)
    wanted = [(design, arguments.tokens, seed) for seed in arguments.seeds for design in arguments.designs]
    results = [smol_run(*one, *how) for one in wanted]
    said = "\n".join(f"{name}: {sentence}" for name, sentence in results[-1].said.items())
    print(f"{smol_table(results)}\n\n{setting(results)}\n\nWhat the last says is\n{said}")


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
