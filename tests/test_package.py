"""What is installed is whole: a wheel built from the sources works elsewhere, configuration included."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel: what pip would put into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, str(wheel)], check=True)
    names = zipfile.ZipFile(wheel).namelist()
    assert "ablate/data/fashion_mini/LICENSE" in names
    assert not any(name.startswith(("tests", "runs")) for name in names)
    return target


def run(installed: Path, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The console script's entry, from the wheel and from nowhere else."""
    code = (
        "import sys, ablate, ablate.cli; assert ablate.__file__.startswith(sys.argv[1]), ablate.__file__; "
        "ablate.cli.main(sys.argv[2:])"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(installed), *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)


def test_the_wheel_prints_the_zoo_trains_and_reports(installed: Path, tmp_path: Path) -> None:
    zoo = run(installed, tmp_path, "ops")
    assert zoo.returncode == 0, zoo.stderr
    assert "elsa_equation" in zoo.stdout
    sweep = ("-m", "seed=0,1", "recipe=debug", "data=synthetic", "recipe.epochs=1", "study.name=wheel")
    trained = run(installed, tmp_path, "train", *sweep, "infra.tracking=none", "hydra/launcher=local")
    assert trained.returncode == 0, trained.stderr
    reported = run(installed, tmp_path, "report", "wheel")
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path / "runs/studies/wheel/report/index.html").exists()


def test_importing_the_package_is_light() -> None:
    code = "import sys, ablate; assert not {'torch', 'hydra', 'pandas'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
