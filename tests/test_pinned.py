"""Identities, public names and the command line are those of the golden file (`python -m tests.pinned`)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tests import pinned

GOLDEN = json.loads(pinned.GOLDEN.read_text(encoding="utf-8"))
RECORDS = sorted((Path(__file__).parent.parent / "experiments").glob("*/results.csv"))


def test_every_study_has_the_runs_it_had() -> None:
    assert pinned.studies() == GOLDEN["studies"]


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parent.name)
def test_the_runs_of_a_record_are_those_of_its_study(record: Path) -> None:
    """A signature in a committed table is the one that today's configuration gives."""
    with record.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known = GOLDEN["studies"]
    drawn = [row for row in rows if row.get("task.init", "null") == "null"]
    strange = {row["signature"] for row in drawn if row["signature"] not in known.get(row["study"], ())}
    assert drawn
    assert not strange
    for study in {
        row["study"] for row in rows if row not in drawn
    }:  # a digest of weights is in the signature
        keys = pinned.pair_keys(study)
        assert {row["pair_key"] for row in rows if row["study"] == study} == keys


@pytest.mark.parametrize("kind", ["public", "verbs", "networks", "choices"])
def test_names_that_people_use_are_what_they_were(kind: str) -> None:
    assert getattr(pinned, kind)() == GOLDEN[kind]


def test_the_old_name_of_the_kernels_works_and_says_so() -> None:
    """`ablate.ops.kernels` is kept for one version."""
    from ablate import kernels
    from ablate.ops import kernels as old

    with pytest.warns(DeprecationWarning, match="is now ablate.kernels.slide_attention.attention"):
        assert old.mixed_attention is kernels.slide_attention.attention
    assert not hasattr(old, "nothing")
