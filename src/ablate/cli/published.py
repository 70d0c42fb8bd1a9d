"""`ablate convert` and `ablate evaluate`: checkpoints that authors published."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.parsing import add_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Both verbs."""
    sub = add_verb(
        verbs,
        convert,
        "a checkpoint of ours from one under its authors' names",
        "ablate convert elsa_swin_tiny.pth.tar --model elsa_swin_tiny -o elsa_swin_tiny.pt",
    )
    sub.add_argument("checkpoint", metavar="OFFICIAL", type=Path, help="the authors' file (.pth, .pth.tar)")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the file to write")
    _add_model(sub)
    sub = add_verb(
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


def convert(arguments: argparse.Namespace) -> None:
    """A checkpoint of ours from one of the authors'."""
    from ablate.official import checkpoints

    checkpoints.convert_file(
        arguments.checkpoint, arguments.model, arguments.output, arguments.overrides, arguments.img_size
    )
    print(arguments.output)


def evaluate(arguments: argparse.Namespace) -> None:
    """Accuracy of a checkpoint on a data set."""
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
            precision=arguments.precision,
        )
    )
