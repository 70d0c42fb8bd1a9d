"""Origin of a data set: its places on disk, the ways to get it, and the errors when it is missing."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ablate.errors import UserError

SAMPLES = 256  # files whose bytes count
SIZES = 100_000  # files whose sizes count
SAMPLED_BYTES = 1 << 20


def default_data_root() -> Path:
    """Folder of the data sets if none is named: `$XDG_CACHE_HOME/ablate`, else `~/.cache/ablate`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ablate"


def listed(place: Path, contents: tuple[str, ...], most: int | None = None) -> list[str] | None:
    """Return the paths of the files below some names of a folder, but hidden ones, relative to it.

    Args:
        place: the folder.
        contents: the names.
        most: None is returned where there are more files; all are listed without.
    """
    found = (path for name in contents for path in _files(place, name))
    paths = sorted(found if most is None else islice(found, most + 1))
    return None if most is not None and len(paths) > most else paths


def digest_of_files(place: Path, paths: Sequence[str], names: Sequence[str]) -> str:
    """Return 16 hex digits of files.

    It covers all names, and of SAMPLES of the files, evenly spread, the size and the first SAMPLED_BYTES
    bytes: a file that is added, removed or renamed changes it always, other bytes in one image of very many
    may not.

    Args:
        place: folder of the files.
        paths: of the files, relative to it.
        names: that count, so that the place does not.
    """
    whole = hashlib.sha256("\0".join(names).encode())
    for path in _spread(paths, SAMPLES):
        with (place / path).open("rb") as stream:
            whole.update(f"{os.fstat(stream.fileno()).st_size}".encode() + stream.read(SAMPLED_BYTES))
    return whole.hexdigest()[:16]


def digest_of_sizes(place: Path, paths: Sequence[str]) -> str:
    """Return 16 hex digits of the sizes of files; of SIZES of them, evenly spread, where there are more.

    Times of change do not count: those of a copy are others.
    """
    sizes = (str((place / path).stat().st_size) for path in _spread(paths, SIZES))
    return hashlib.sha256("\0".join(sizes).encode()).hexdigest()[:16]


def _spread(paths: Sequence[str], most: int) -> Sequence[str]:
    return paths[:: max(1, -(-len(paths) // most))]


def _files(place: Path, name: str) -> Iterator[str]:
    """Yield the paths of the files below a name, relative to the folder."""
    if (place / name).is_file():
        yield name
    for folder, folders, names in os.walk(place / name):
        folders[:] = [each for each in folders if not each.startswith(".")]
        below = Path(folder).relative_to(place).as_posix()
        yield from (f"{below}/{each}" for each in names if not each.startswith("."))


@dataclass(frozen=True)
class Origin:
    """Places of a data set, and the ways to get it."""

    title: str
    contents: tuple[str, ...]  # files or folders that a place must hold
    folders: tuple[str, ...]  # places in the order of preference: absolute, or relative to the data root
    ways: tuple[str, ...]
    downloads: bool = False  # whether infra.download=true gets it

    def places(self, data_root: Path) -> list[Path]:
        """Every folder that is looked at."""
        return [data_root / folder for folder in self.folders]

    def find(self, data_root: Path) -> Path | None:
        """The first place that holds the whole contents."""
        for place in self.places(data_root):
            if all((place / name).exists() for name in self.contents):
                return place
        return None

    def missing(self, data_root: Path, hindrance: str = "") -> UserError:
        """The error for data that are not there: what, where, and every way to get them."""
        places = ", ".join(str(place) for place in self.places(data_root))
        problem = f"{self.title} not found: looked for {', '.join(self.contents)} in {places}"
        return UserError(problem + (f"; {hindrance}" if hindrance else ""), "; or ".join(self.ways))

    def corrupt(self, path: Path, reason: object) -> UserError:
        """The error for data that are there but cannot be read."""
        ways = "; or ".join(self.ways)
        return UserError(f"{self.title} is corrupt: {path}: {reason}", f"remove {path}, then: {ways}")

    def fetch(self, data_root: Path, folder: str, download: Callable[[Path], object]) -> None:
        """Download `folder` into the data root, whole or not at all.

        Processes that download at the same time never see half a file of each other's; the first wins.

        Args:
            data_root: made if it does not exist.
            folder: what the download leaves behind, relative to the root that it is given.
            download: fetches into the root that it is given.

        Raises:
            UserError: there is no network or no space, or the source is damaged.
        """
        try:
            data_root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=data_root, prefix=".download-") as scratch:
                download(Path(scratch))
                if not (data_root / folder).exists():
                    (Path(scratch) / folder).rename(data_root / folder)
        except (OSError, RuntimeError) as error:
            raise self.missing(data_root, f"the download failed: {error}") from error
