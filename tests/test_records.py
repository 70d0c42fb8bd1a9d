"""Committed pages, figures and tables agree with their sources; the README's example runs."""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path

import jupytext
import matplotlib
import pytest
from tests import command

from ablate.ops import table
from generate import markdown, zoo

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_committed_figures_and_tables_are_not_stale(tmp_path: Path) -> None:
    """Every script of analysis/, as `make figures` runs it."""
    tested = re.search(r"^matplotlib==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    for script in sorted((ROOT / "analysis").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"analysis_{script.stem}", script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(tmp_path)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(EXPERIMENTS)
        for folder in ("figures", "tables")
        for path in EXPERIMENTS.glob(f"*/{folder}/**/*")
        if path.is_file()
    }
    assert made == kept, "files that no script makes, or that are not committed: make figures"
    for path in made:
        if path.suffix != ".svg" or matplotlib.__version__ == tested:
            same = (tmp_path / path).read_bytes() == (EXPERIMENTS / path).read_bytes()
            assert same, f"{path} is stale: make figures"


def test_the_sites_zoo_is_the_registry() -> None:
    page = zoo.index()
    for row in table.rows():
        name, *cells = (markdown.cell(text) for text in row)
        assert f"| [`{name}`]({name}.md) | " + " | ".join(cells) + " |" in page


def test_the_records_have_the_table_of_the_study() -> None:
    rows = (EXPERIMENTS / "quick" / "tables" / "table.md").read_text(encoding="utf-8").splitlines()
    page = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    assert all(row in page for row in rows if row.startswith("|"))


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 900


def test_links_of_the_readme_and_other_pages_lead_somewhere() -> None:
    """Links to pages that only the built site has are checked there (tests/docs)."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "experiments").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    pages += [path for path in (ROOT / "docs").rglob("*.md") if "generated" not in path.parts]
    for page in pages:
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"https?:|mailto:", target) and "generated/" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_the_readmes_operator_in_one_file_trains(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?@ops\.register.*?)```", README, re.DOTALL)
    (tmp_path / "pooling.py").write_text(block, encoding="utf-8")
    overrides = [
        "infra.plugins=pooling.py",
        "op=pooling",
        "op.kernel=5",
        "recipe=debug",
        "data=synthetic",
        "infra.tracking=none",
    ]
    done = command.run("train", *overrides, folder=tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "test top-1" in done.stderr


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_notebooks_run(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = jupytext.read(notebook).cells
    assert cells[0].cell_type == "markdown"
    assert not any("%%" in cell.source for cell in cells), "read as one text, not as cells"
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(notebook))
