"""Identity of code: what changes a digest, which modules compute a run, and when two runs are of one code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.ops.small import build

from ablate import hosts, ops
from ablate.store import code, shapes

TEXT = '''"""A module."""

import math  # of the standard library


def area(radius: float) -> str:
    """Return the area."""
    # in squares
    return f"{math.pi * radius ** 2:.2f} {'m'}²"
'''
DIGEST = "77b27145b9e1e216"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""\n', ""),
        ("  # of the standard library", "  # another comment"),
        ('    """Return the area."""\n', '    """Return\n    another text.\n    """\n'),
        ("    # in squares\n", "\n\n"),
        ("(radius: float)", "(\n    radius: float\n)"),
    ],
)
def test_comments_docstrings_and_layout_are_no_part_of_a_digest(old: str, new: str) -> None:
    assert old in TEXT
    assert code.digest_of_text(TEXT.replace(old, new)) == code.digest_of_text(TEXT)


@pytest.mark.parametrize(("old", "new"), [("** 2", "** 3"), (".2f", ".3f"), ("'m'", "'cm'"), ("area", "are")])
def test_what_is_computed_is_part_of_a_digest(old: str, new: str) -> None:
    assert code.digest_of_text(TEXT.replace(old, new)) != code.digest_of_text(TEXT)


def test_a_digest_is_the_same_with_every_python() -> None:
    assert code.digest_of_text(TEXT) == DIGEST


@pytest.mark.parametrize("name", ops.names())
def test_the_code_of_an_operator_is_its_own(name: str) -> None:
    operator = build(name)
    entries = {type(module).__module__ for module in operator.modules()}
    found = set(code.collect(entries).digests)
    own = {entry for entry in entries if entry.startswith("ablate.")}
    assert own
    assert own <= found
    zoo = {module for module in found if module.startswith("ablate.ops.zoo.")}
    others = {type(build(other)).__module__ for other in ("slide", "lesa", "outlook", "carafe")} - own
    assert not zoo & others
    assert not any(part in code.COMPILED for module in found for part in module.split("."))
    assert not found & set(code.REGISTRIES)


def test_an_edit_of_one_kernel_makes_runs_of_others_no_other_code() -> None:
    sums, slid = (code.collect({type(build(name)).__module__}).digests for name in ("dwconv", "slide"))
    assert "ablate.kernels.neighborhood_sums.reference" in sums
    assert "ablate.kernels.slide_attention.reference" in slid
    assert not any("slide" in name for name in sums)
    assert not any("neighborhood_sums" in name for name in slid)


@pytest.mark.parametrize("name", hosts.names())
def test_the_code_of_a_host_is_its_family(name: str) -> None:
    spec = hosts.spec(name)
    found = code.collect({spec.slots.__module__, spec.fill.__module__}).digests
    families = {f"ablate.hosts.{family}" for family in ("swin", "resnet", "convnext", "volo", "nat")}
    assert len(families & set(found)) == 1


def test_a_module_of_ones_own_comes_with_the_files_beside_it_and_no_library(tmp_path: Path) -> None:
    (tmp_path / "mine_alone.py").write_text(
        "import torch\nimport json\nimport beside_it\nfrom below.it import X\nfrom ablate import ops\n"
    )
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "it.py").write_text("import scipy\nfrom elsewhere.tools import y\nX = 1\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").write_text("")
    (tmp_path / "elsewhere" / "tools.py").write_text("y = 1\n")
    (tmp_path / "beside_it.py").write_text("X = 1\n")
    package = tmp_path / "mine_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "operator.py").write_text("from .parts import x\nfrom mine_package import more\n")
    (package / "parts.py").write_text("x = 1\n")
    (package / "more.py").write_text("")
    script = (
        "import sys; import mine_alone, mine_package.operator; from ablate.store import code; "
        "found = code.collect(['mine_alone', 'mine_package.operator']); "
        "print(*found.paths, *sorted(found.libraries))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    parts = ["below.it", "beside_it", "elsewhere", "elsewhere.tools", "mine_alone"]
    parts += ["mine_package.more", "mine_package.operator", "mine_package.parts"]
    found = done.stdout.split()
    assert [name for name in found if name != "elsewhere"] == [
        *(name for name in parts if name != "elsewhere"),
        *("scipy", "torch"),
    ]


def test_digests_that_are_declared_equal_are_one_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(digest: str) -> dict[str, dict[str, dict[str, str]]]:
        return {"code": {"digests": {"ablate.ops.local": digest, "data d": "1"}}}

    records = {"a": record("x"), "b": record("y"), "c": record("x"), "d": {}}
    assert code.differing(records) == {"ablate.ops.local": [["a", "c"], ["b"]]}
    assert code.changed(records["a"]) == ["ablate.ops.local"]
    monkeypatch.setattr(
        code, "_equal", lambda: {"ablate.ops.local": [["x", "y", code.digest_of_module("ablate.ops.local")]]}
    )
    assert code.differing(records) == {}
    assert code.changed(records["a"]) == []
    assert code.changed(records["d"]) == []


def test_a_run_that_two_texts_computed_fits_none_of_one() -> None:
    whole = {"code": {"digests": {"ablate.ops.local": "x"}}}
    both = {"code": {"digests": {"ablate.ops.local": "x"}, "resumed": ["ablate.ops.local"]}}
    assert code.differing({"a": whole, "b": whole, "c": both}) == {"ablate.ops.local": [["a", "b"], ["c"]]}


def test_the_committed_table_of_equal_digests_names_modules() -> None:
    for name, groups in code._equal().items():
        assert code.digest_of_module(name) is not None, name
        assert all(
            len(set(group)) > 1 and all(len(digest) == code.DIGITS for digest in group) for group in groups
        )


@pytest.mark.parametrize(
    "record", [[], {"digests": []}, {"digests": {"a": 1}}, {"paths": {"a": None}}, {"resumed": "a"}], ids=str
)
def test_a_record_of_another_shape_is_damage(record: object) -> None:
    whole = {"versions": {}, "hardware": {}}
    assert shapes.environment(whole) is None
    assert (
        shapes.environment({**whole, "code": {"digests": {"a": "0"}, "paths": {}, "resumed": ["a"]}}) is None
    )
    assert "code" in str(shapes.environment({**whole, "code": record}))
