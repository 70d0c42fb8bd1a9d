"""`ablate evaluate`: accuracy of a checkpoint on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.parsing import add_model, add_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
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
    add_model(sub)


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the accuracy of a checkpoint on a data set."""
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
