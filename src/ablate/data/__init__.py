"""Data sets as training, validation and test batches of normalized images.

Start with `create`, which turns a `conf/data` node into `Splits`; `info` answers how many classes
and which image shape without any data on disk. Small sets live in memory as uint8 tensors and are
augmented batch by batch (`tensor_loader.py`); folders of image files go through timm's transforms
in worker processes (`image_loader.py`), those with objects through one geometry for image, boxes and masks
(`coco_loader.py`). What epoch `e` yields depends on the seed and on `e` alone.
Imports of ablate only `errors`, `configuration` and `store`, and torch only in `create`; used by `training`,
`compose.check`, `studies.look`, `studies.pictures` and `bench`.
"""

from ablate.data.availability import availability
from ablate.data.catalogue import (
    DATA_SETS,
    check,
    content,
    content_today,
    create,
    defaults,
    info,
    module_of,
    names,
    other_images,
    pictures,
    register,
    test_split,
)
from ablate.data.contract import (
    CLASS,
    INSTANCES,
    MAP,
    OUTSIDE,
    DataInfo,
    InstanceBatch,
    Instances,
    Labelled,
    LabelledSplits,
    Loader,
    MapBatch,
    Picture,
    Splits,
    Storage,
    Truth,
    TruthBatch,
)
from ablate.data.in_memory import InMemorySet
from ablate.data.shard import WHOLE, Shard

__all__ = [
    "CLASS",
    "DATA_SETS",
    "INSTANCES",
    "MAP",
    "OUTSIDE",
    "WHOLE",
    "DataInfo",
    "InMemorySet",
    "InstanceBatch",
    "Instances",
    "Labelled",
    "LabelledSplits",
    "Loader",
    "MapBatch",
    "Picture",
    "Shard",
    "Splits",
    "Storage",
    "Truth",
    "TruthBatch",
    "availability",
    "check",
    "content",
    "content_today",
    "create",
    "defaults",
    "info",
    "module_of",
    "names",
    "other_images",
    "pictures",
    "register",
    "test_split",
]
