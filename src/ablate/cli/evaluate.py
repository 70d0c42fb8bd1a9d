"""`ablate evaluate`: figures of a run, or accuracy of a checkpoint on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.parsing import add_model, add_runs_dir, add_verb
from ablate.errors import UserError

OF_CHECKPOINTS = ("model", "img_size", "crop_pct", "ema")


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        evaluate,
        "a run's figures by its task's evaluation, or top-1 and top-5 of a checkpoint, ours or its authors'",
        "ablate evaluate --run 3f2a --split validation task.evaluation.flip=true\n"
        "  ablate evaluate --model elsa_swin_tiny --checkpoint elsa_swin_tiny.pt data.root=/data/imagenet",
    )
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="the beginning of a run's signature: any task, on its own data")
    source.add_argument(
        "--checkpoint", type=Path, help="weights of a classifier: ours, its authors', or timm's"
    )
    add_runs_dir(sub)
    sub.add_argument(
        "--split",
        choices=("test", "validation"),
        default="test",
        help="of a run's data (default: %(default)s)",
    )
    sub.add_argument("--ema", action="store_true", help="the averaged weights in the checkpoint")
    sub.add_argument("--crop-pct", type=float, help="centre crop (default: the model's own)")
    sub.add_argument("--batch-size", type=int, default=128, help="images at a time (default: %(default)s)")
    sub.add_argument(
        "--workers", type=int, default=4, help="processes that read image files (default: %(default)s)"
    )
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")
    sub.add_argument(
        "--precision",
        choices=("float32", "float16", "bfloat16"),
        help="of the forward pass (default: the recipe's of a run, float32 of a checkpoint)",
    )
    add_model(sub, required=False)


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the figures of a run or of a checkpoint."""
    if arguments.run is not None:
        _run(arguments)
        return
    if arguments.model is None:
        raise UserError("--checkpoint without --model", "name its network: `ablate bench models` lists them")
    from ablate.bench.accuracy import Evaluation, run

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
            precision=arguments.precision or "float32",
        )
    )


def _run(arguments: argparse.Namespace) -> None:
    for name in OF_CHECKPOINTS:
        if getattr(arguments, name):
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} with --run", f"leave {option} out: a run has its own network and data")
    from ablate.studies.evaluate import Computation
    from ablate.studies.evaluate import evaluate as evaluate_run

    computation = Computation(arguments.device, arguments.precision, arguments.workers, arguments.batch_size)
    done = evaluate_run(arguments.runs_dir, arguments.run, arguments.overrides, arguments.split, computation)
    figures = done.text(done.found)
    print(f"{done.signature}: {arguments.split} {figures} ({done.images:,} images, {done.data_set})")
    if done.recorded is not None:
        print(f"  in its result.json: {done.text(done.recorded)}")
