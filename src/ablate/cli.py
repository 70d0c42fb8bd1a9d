"""The command line: `ablate VERB`. Each verb imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ablate.bench.report import Report
    from ablate.bench.settings import Settings

USER_ERROR = 2  # exit code for what the user can mend
MEASURING = ("device", "threads", "batch", "repetitions", "quick")  # options of all benchmarks


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the console script."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["train"]:
            train(given[1:])
            return
        parsed = _parser().parse_args(given)
        parsed.verb(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except BrokenPipeError:  # `ablate ops | head`
        sys.stderr.close()
    except OSError as error:  # a full disk, a folder that cannot be written: the message says which
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def train(arguments: list[str]) -> None:
    """Hand the rest of the command line to Hydra.

    Raises:
        UserError: a setting or choice that does not exist, or a run that cannot.
    """
    import hydra
    from hydra.errors import HydraException

    from ablate.ops.configs import conf_dir
    from ablate.runs.catalogue import publish_operators
    from ablate.runs.composition import explain

    sys.argv = ["ablate train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out as they are, to be explained here
    warnings.filterwarnings("ignore", message=".*overriding with `hydra.mode=MULTIRUN`.*")
    publish_operators()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(_train_one)()
    except HydraException as error:
        raise explain(error) from error


def _train_one(config: DictConfig) -> None:
    """Hydra's task for a single run; sweeps go through a launcher."""
    from hydra.core.hydra_config import HydraConfig

    from ablate.runs.launchers import request, run_inline, run_study

    run_study([request(config, list(HydraConfig.get().overrides.task))], run_inline)


def status(arguments: argparse.Namespace) -> None:
    """States of a study's runs, or the studies there are."""
    from ablate.runs import overview

    if arguments.study is None:
        overview.list_studies(arguments.runs_dir)
    else:
        overview.show(arguments.runs_dir, arguments.study)


def collect(arguments: argparse.Namespace) -> None:
    """One CSV of a study's runs."""
    from ablate.results.collect import collect, write_csv
    from ablate.store.manifest import study_dir

    frame = collect(arguments.runs_dir, arguments.study)
    path = arguments.output or study_dir(arguments.runs_dir, arguments.study) / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(frame, path)
    states = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    print(f"{len(frame)} runs ({states})")
    print(path)


def report(arguments: argparse.Namespace) -> None:
    """Page, figures and tables of a study."""
    from ablate.results.report import report

    paths = report(arguments.runs_dir, arguments.study, arguments.output)
    table = next(path for path in paths if path.name == "table.md")
    print(table.read_text(encoding="utf-8"))
    for path in paths:
        print(path)


def ops(arguments: argparse.Namespace) -> None:
    """The zoo table, or one operator's page."""
    from ablate.ops import page, table

    if arguments.name is not None:
        print(page.page(arguments.name))
    elif arguments.markdown:
        print(table.markdown())
    else:
        table.show()


def bench_kernels(arguments: argparse.Namespace) -> None:
    """Speed of the kernels, or what their Triton forms need of a GPU."""
    if arguments.aot:
        _bench_aot(arguments)
        return
    if arguments.golden is not None:
        raise UserError("--golden is of the compiled kernels", "write ablate bench kernels --aot --golden")
    from ablate.bench import kernels, settings

    stages = settings.stages(arguments.stages)
    asked = _measuring(arguments, batch=8, repetitions=10)
    _present(arguments, kernels.run(arguments.names, stages, asked, unfolds=not arguments.no_unfold))


def _bench_aot(arguments: argparse.Namespace) -> None:
    _refuse(arguments, [*MEASURING, "dtype", "stages", "no_unfold", "keep"], "leave out --aot")
    from ablate.bench import resources

    if arguments.golden is not None:
        resources.regenerate(arguments.golden)
    elif arguments.json:
        resources.dump(resources.measure(arguments.names))
    else:
        resources.show(resources.measure(arguments.names))


def bench_ops(arguments: argparse.Namespace) -> None:
    """Speed of the operators on one map."""
    from ablate.bench import ops, settings

    stage = settings.STAGES[arguments.stage]
    _present(arguments, ops.run(arguments.names, stage, _measuring(arguments, batch=8, repetitions=10)))


def bench_models(arguments: argparse.Namespace) -> None:
    """Parameters and multiply-accumulates of the named networks, or the time of their training steps."""
    if arguments.time:
        from ablate.bench import networks

        _present(arguments, networks.run(arguments.names, _measuring(arguments, batch=4, repetitions=5)))
        return
    _refuse(arguments, [*MEASURING, "json", "keep"], "add --time")
    from ablate.bench import models

    if arguments.golden is not None:
        models.regenerate(arguments.golden)
        print(arguments.golden)
    else:
        models.show(arguments.names)


def _measuring(arguments: argparse.Namespace, batch: int, repetitions: int) -> Settings:
    """How to measure, from what was given and else from these defaults."""
    from ablate.bench.settings import QUICK, prepare

    defaults = QUICK if arguments.quick else {"batch": batch, "repetitions": repetitions}
    return prepare(
        arguments.device or "cpu",
        arguments.threads,
        arguments.batch or defaults["batch"],
        arguments.repetitions or defaults["repetitions"],
        getattr(arguments, "dtype", None) or "float32",
    )


def _present(arguments: argparse.Namespace, found: Report) -> None:
    """Print what was found, keep it where that is asked for; exit code 1 where values did not agree."""
    from ablate.bench import report

    if arguments.json:
        report.dump(found)
    else:
        report.show(found)
    if arguments.keep is not None:
        for path in report.keep(found, arguments.keep):
            print(path, file=sys.stderr)
    if not found.agreed:
        sys.exit(1)


def _refuse(arguments: argparse.Namespace, options: Sequence[str], way_out: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(arguments, name)]
    if given:
        raise UserError(f"{', '.join(given)}: only where speed is measured", way_out)


def convert(arguments: argparse.Namespace) -> None:
    """A checkpoint of ours from one of the authors'."""
    from ablate.official import checkpoints

    checkpoints.convert_file(
        arguments.checkpoint, arguments.model, arguments.output, arguments.overrides, arguments.img_size
    )
    print(arguments.output)


def evaluate(arguments: argparse.Namespace) -> None:
    """Accuracy of a checkpoint on a data set."""
    from ablate.training.published import Evaluation, run

    run(
        Evaluation(
            model=arguments.model,
            checkpoint=arguments.checkpoint,
            ema=arguments.ema,
            overrides=tuple(arguments.overrides),
            img_size=arguments.img_size,
            crop_pct=arguments.crop_pct,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            device=arguments.device,
            precision=arguments.precision,
        )
    )


def doctor(arguments: argparse.Namespace) -> None:
    """What is available here."""
    from ablate.doctor import show

    show(arguments.data_root)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ablate",
        description="Ablation studies of local vision operators.",
        epilog="example:\n  ablate train study=quick hydra/launcher=local\n  ablate report quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("train", help="train one run or a study (Hydra's syntax; see `ablate train --help`)")
    for verb, help_text, example in (
        (status, "states of a study's runs; without STUDY, the studies", "ablate status quick"),
        (collect, "one CSV of a study's runs, failed ones too", "ablate collect quick -o quick.csv"),
        (report, "page, figures and tables of a study", "ablate report quick -o quick_report"),
    ):
        sub = _verb(verbs, verb, help_text, example)
        nargs = "?" if verb is status else None
        sub.add_argument("study", metavar="STUDY", nargs=nargs, help="name of the study, e.g. quick")
        sub.add_argument(
            "--runs-dir", type=Path, default=Path("runs"), help="where the runs lie (default: runs)"
        )
        if verb is not status:
            sub.add_argument(
                "-o", "--output", type=Path, help="where to write (default: in the study's folder)"
            )
    sub = _verb(
        verbs,
        ops,
        "the operator zoo: paper, axes, parameters, multiply-accumulates; with NAME, one operator's page",
        "ablate ops elsa",
    )
    sub.add_argument("name", metavar="NAME", nargs="?", help="an operator: equation, settings, quirks")
    sub.add_argument("--markdown", action="store_true", help="the table as Markdown")
    _add_bench(verbs)
    _add_published(verbs)
    sub = _verb(verbs, doctor, "what is available here and, if not, why", "ablate doctor")
    sub.add_argument("--data-root", type=Path, help="folder of data sets (infra.data_root)")
    return parser


def _add_bench(verbs: argparse._SubParsersAction) -> None:
    bench = verbs.add_parser(
        "bench",
        help="how fast kernels, operators and networks are, and what networks cost",
        epilog="examples:\n  ablate bench kernels --quick\n  ablate bench ops elsa\n  ablate bench models",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = bench.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_bench_kernels(kinds)
    _add_bench_ops(kinds)
    _add_bench_models(kinds)


def _add_bench_kernels(kinds: argparse._SubParsersAction) -> None:
    kernels = _kind(
        kinds,
        bench_kernels,
        "kernels beside the form that authors write (F.unfold) and the library's nearest, at Swin-T's shapes",
        "ablate bench kernels attention --stages 3,4",
        "ablate bench kernels --threads 1 --keep",
        "ablate bench kernels --aot aggregate_taps",
        "ablate bench kernels --aot --golden",
    )
    kernels.add_argument("names", metavar="NAME", nargs="*", help="kernels (default: all)")
    _add_measuring(kernels, batch=8, repetitions=10)
    _add_dtype(kernels)
    kernels.add_argument("--stages", metavar="1,2,…", help="of Swin-T, whose shapes to take (default: all)")
    kernels.add_argument(
        "--no-unfold",
        action="store_true",
        help="compare with the unfold form on 2 images, and do not time it",
    )
    kernels.add_argument(
        "--aot",
        action="store_true",
        help="instead, compile the Triton kernels for A100, H100 and B200: registers, spills, shared memory",
    )
    kernels.add_argument(
        "--golden",
        type=Path,
        nargs="?",
        const=Path("tests/kernels/aot.json"),
        metavar="FILE",
        help="with --aot: compile all and write the file that the tests compare with (default: %(const)s)",
    )


def _add_bench_ops(kinds: argparse._SubParsersAction) -> None:
    ops = _kind(
        kinds,
        bench_ops,
        "operators of the zoo on one map, by compiled kernels and by plain PyTorch, beside lsa and dwconv",
        "ablate bench ops elsa na --quick",
        "ablate bench ops --stage 1 --keep",
    )
    ops.add_argument("names", metavar="NAME", nargs="*", help="operators (default: all)")
    _add_measuring(ops, batch=8, repetitions=10)
    _add_dtype(ops)
    ops.add_argument(
        "--stage",
        type=int,
        choices=(1, 2, 3, 4),
        default=2,
        help="of Swin-T, whose map to take (default: %(default)s, 28×28 with 192 channels)",
    )


def _add_bench_models(kinds: argparse._SubParsersAction) -> None:
    models = _kind(
        kinds,
        bench_models,
        "parameters and multiply-accumulates of every named network, beside its authors' count; with --time, "
        "training steps beside timm's Swin-T",
        "ablate bench models elsa_swin_tiny rednet50",
        "ablate bench models --golden",
        "ablate bench models --time elsa_swin_tiny involution --quick",
    )
    models.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="networks (default: all); with --time elsa_swin_tiny, na_swin_tiny or an operator for Swin-T",
    )
    models.add_argument("--time", action="store_true", help="time forward and backward at 224×224 pixels")
    _add_measuring(models, batch=4, repetitions=5)
    models.add_argument(
        "--golden",
        type=Path,
        nargs="?",
        const=Path("tests/golden/models.json"),
        metavar="FILE",
        help="count all and write the golden file that the tests compare with (default: %(const)s)",
    )


def _add_measuring(sub: argparse.ArgumentParser, batch: int, repetitions: int) -> None:
    sub.add_argument("--device", choices=("cpu", "cuda"), help="where to compute (default: cpu)")
    sub.add_argument("--threads", type=_positive, help="of the CPU (default: PyTorch's choice)")
    sub.add_argument("--batch", type=_positive, help=f"images at a time (default: {batch})")
    sub.add_argument(
        "--repetitions", type=_positive, help=f"of each, in turns with the others (default: {repetitions})"
    )
    sub.add_argument("--quick", action="store_true", help="a first look: a batch of 2, 3 repetitions")
    sub.add_argument("--json", action="store_true", help="raw figures for programs: seconds, FLOPs, bytes")
    sub.add_argument(
        "--keep",
        type=Path,
        nargs="?",
        const=Path("benchmarks"),
        metavar="FOLDER",
        help="write the record too, with hardware and versions, as Markdown and JSON (default: %(const)s)",
    )


def _add_dtype(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(text)


def _kind(
    kinds: argparse._SubParsersAction, call: Callable, help_text: str, *examples: str
) -> argparse.ArgumentParser:
    """A kind of benchmark, named after its function `bench_<kind>`."""
    sub: argparse.ArgumentParser = kinds.add_parser(
        call.__name__.removeprefix("bench_"),
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(verb=call)
    return sub


def _add_published(verbs: argparse._SubParsersAction) -> None:
    sub = _verb(
        verbs,
        convert,
        "a checkpoint of ours from one under its authors' names",
        "ablate convert elsa_swin_tiny.pth.tar --model elsa_swin_tiny -o elsa_swin_tiny.pt",
    )
    sub.add_argument("checkpoint", metavar="OFFICIAL", type=Path, help="the authors' file (.pth, .pth.tar)")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the file to write")
    _add_model(sub)
    sub = _verb(
        verbs,
        evaluate,
        "top-1 and top-5 of a checkpoint, ours or its authors'",
        "ablate evaluate --model elsa_swin_tiny --checkpoint elsa_swin_tiny.pt data=imagenet data.root=/data",
    )
    sub.add_argument("--checkpoint", type=Path, required=True, help="ours, its authors', or timm's")
    sub.add_argument("--ema", action="store_true", help="the averaged weights in the checkpoint")
    sub.add_argument("--crop-pct", type=float, help="centre crop (default: the model's own)")
    sub.add_argument("--batch-size", type=int, default=128, help="images at a time (default: %(default)s)")
    sub.add_argument(
        "--workers", type=int, default=4, help="processes that read images (default: %(default)s)"
    )
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")
    sub.add_argument(
        "--precision",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the forward pass (default: %(default)s)",
    )
    _add_model(sub)


def _add_model(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True, help="a network of `ablate bench models`, or any of timm's")
    sub.add_argument("--img-size", type=int, help="height and width of its images (default: its own)")
    sub.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="settings of its operator (op.channel.ghost_lambda=1); to evaluate, of the data too "
        "(data=imagenet data.root=DIR)",
    )


class _Version(argparse.Action):
    """Reads the version only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import ablate

        print(f"ablate {ablate.__version__}")
        parser.exit()


def _verb(
    verbs: argparse._SubParsersAction, call: Callable, help_text: str, example: str
) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = verbs.add_parser(
        call.__name__,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(verb=call)
    return sub
