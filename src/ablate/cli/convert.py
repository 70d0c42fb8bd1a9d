"""`ablate convert`: a checkpoint of ours from one that authors published."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.parsing import add_model, add_verb
from ablate.errors import UserError


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        convert,
        "a checkpoint of ours from one under its authors' names",
        "ablate convert elsa_swin_tiny.pth.tar --model elsa_swin_tiny -o elsa_swin_tiny.pt\n"
        "  ablate convert mask_rcnn.pth -o mask_rcnn.pt task=mask_rcnn host=swin_tiny op=lsa data=coco",
    )
    sub.add_argument("checkpoint", metavar="OFFICIAL", type=Path, help="the authors' file (.pth, .pth.tar)")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the file to write")
    add_model(
        sub,
        required=False,
        others="without --model, of a whole detector or segmenter (task=mask_rcnn host=swin_tiny data=coco)",
    )


def convert(arguments: argparse.Namespace) -> None:
    """Convert a checkpoint, and print the path of ours.

    Without a model it is a detector or segmenter, of the configuration that the overrides choose.
    """
    if arguments.model is None:
        from ablate.bench.conversion import convert_dense

        if arguments.img_size is not None:
            raise UserError("--img-size without --model", "the data of a detector or segmenter have the size")
        convert_dense(arguments.checkpoint, arguments.output, arguments.overrides)
    else:
        from ablate.official import checkpoints

        checkpoints.convert_file(
            arguments.checkpoint, arguments.model, arguments.output, arguments.overrides, arguments.img_size
        )
    print(arguments.output)
