"""Studies and runs as one file, to hand on or to keep beside a paper; every byte is checked by a digest.

An archive is a zip file: the files of each finished run below its signature, the manifest of the study, and
contents.json with size and digest of every entry. It holds no pickles but the checkpoints that were asked
for, which are read as weights only, and importing one runs nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from ablate import __version__
from ablate.errors import UserError
from ablate.store import damage, digests, manifest
from ablate.store.files import json_text, naming, write_atomically
from ablate.store.folder import RunFolder
from ablate.store.locks import locked
from ablate.store.manifest import Manifest, PlannedRun
from ablate.store.run_files import DamagedError

CONTENTS, FORMAT = "contents.json", 1
FILES = (*digests.FILES, digests.DIGESTS)
RUN = re.compile(rf"[0-9a-f]{{12}}/({'|'.join(map(re.escape, FILES))})")
STUDY = re.compile(r"studies/(?P<name>.+)/manifest\.json")
CHUNK = 2**20
LONGEST_CONTENTS = 2**28  # bytes of contents.json
DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, TypeError, AttributeError, ValueError, EOFError)
WAY_OUT = "it must come from `ablate export`; copy it again"


class Moved(NamedTuple):
    """Numbers of an export or import."""

    study: str | None  # None: one run that no study lists
    runs: int
    left: int  # not exported because they are not finished; not imported because they were here already
    bytes: int


Track = Callable[[Sequence[Any]], Iterable[Any]]


def export(runs_dir: Path, name: str, path: Path, *, checkpoints: bool = False, track: Track = iter) -> Moved:
    """Write the finished runs of a study, or one run, into an archive, whole or not at all.

    Args:
        runs_dir: folder of the runs.
        name: of the study, or the beginning of a run's signature.
        path: of the archive; its folder must exist, and it must not.
        checkpoints: take the weights too.
        track: yields the runs, and may show how many are done.

    Raises:
        UserError: no such study, no finished run, or a file that exists.
        DamagedError: a file of a run is damaged.
    """
    planned = manifest.load(runs_dir, name)
    if path.exists():
        raise UserError(f"{path} exists", "choose another file, or remove it")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder", "create it, or choose another one")
    folders = [RunFolder(runs_dir / run.signature) for run in planned.runs]
    finished = [folder for folder in folders if folder.finished()]
    if not finished:
        raise UserError(f"study {name!r} has no finished run", f"`ablate status {name}` shows its runs")
    if found := [one for folder in track(finished) for one in damage.find_changed(folder)]:
        raise DamagedError(found)
    listed = planned.name if manifest.find(runs_dir, planned.name) is not None else None
    entries: dict[str, dict[str, Any]] = {}

    def write(stream: Any) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for folder in track(finished):
                for file in FILES:
                    if (folder.path / file).exists() and (checkpoints or file not in digests.REMOVABLE):
                        data = (folder.path / file).read_bytes()
                        _add(archive, entries, f"{folder.signature}/{file}", data)
            if listed is not None:
                data = json_text(asdict(planned)).encode()
                _add(archive, entries, f"studies/{planned.name}/{manifest.MANIFEST}", data)
            contents = {"format": FORMAT, "ablate": __version__, "files": entries}
            archive.writestr(CONTENTS, json_text(contents))

    write_atomically(path, write)
    return Moved(listed, len(finished), len(folders) - len(finished), path.stat().st_size)


def _add(archive: zipfile.ZipFile, entries: dict[str, dict[str, Any]], name: str, data: bytes) -> None:
    entries[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    archive.writestr(name, data)


def load(path: Path, runs_dir: Path, track: Track = iter) -> Moved:
    """Add the runs and studies of an archive to a folder of runs. Nothing that is there changes.

    Runs that are there with the same result are left alone. A study that is there gets the runs it lacks.
    All is checked before the first run appears; an import that was cut off can be repeated.

    Args:
        path: of the archive.
        runs_dir: folder of the runs; made if it does not exist.
        track: yields the entries, and may show how many are done.

    Raises:
        UserError: it is no archive, is damaged, does not fit on the disk, or contradicts what is there.
    """
    with _opened(path) as (archive, entries):
        total = sum(entry["bytes"] for entry in entries.values())
        runs_dir.mkdir(parents=True, exist_ok=True)
        if total > (free := shutil.disk_usage(runs_dir).free):
            raise UserError(
                f"{path} needs {total} bytes, and {runs_dir} has {free}", "make room on this disk"
            )
        with tempfile.TemporaryDirectory(dir=runs_dir, prefix=".import-", ignore_cleanup_errors=True) as made:
            unpacked = Path(made)
            for name in track(list(entries)):
                _unpack(archive, name, entries[name], unpacked, path)
            runs = sorted({name.split("/")[0] for name in entries if RUN.fullmatch(name)})
            _check(path, [RunFolder(unpacked / run) for run in runs])
            new = [run for run in runs if not _is_here(runs_dir, unpacked, run)]
            study = next((match["name"] for name in entries if (match := STUDY.fullmatch(name))), None)
            joined = None if study is None else _joined(runs_dir, unpacked, study)
            for run in new:
                (unpacked / run).rename(runs_dir / run)
            if joined is not None:
                folder = manifest.study_dir(runs_dir, joined.name)
                folder.mkdir(parents=True, exist_ok=True)
                with locked(folder / manifest.LOCK):
                    joined = _joined(runs_dir, unpacked, joined.name)
                    if joined != manifest.find(runs_dir, joined.name):
                        joined.save(runs_dir)
    return Moved(study, len(new), len(runs) - len(new), total)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, dict[str, Any]]]]:
    """An archive and its entries, of which every name is one that an export writes."""
    try:
        with naming(path):
            archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is not a zip file, or is damaged: {error}", WAY_OUT) from error
    with archive:
        yield archive, _entries(archive, path)


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, dict[str, Any]]:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    try:
        if sizes.pop(CONTENTS) > LONGEST_CONTENTS:
            raise ValueError(f"{CONTENTS} is too long")
        contents = json.loads(archive.read(CONTENTS))
        entries: dict[str, dict[str, Any]] = contents["files"]
        format_, listed = contents["format"], {name: entry["bytes"] for name, entry in entries.items()}
    except DAMAGE as error:
        raise UserError(f"{path} does not hold runs, or is damaged: {error}", WAY_OUT) from error
    if format_ != FORMAT:
        raise UserError(f"{path} has format {format_}, not {FORMAT}", "use a newer ablate")
    if sizes != listed:
        raise UserError(f"{path} has other files than it lists", WAY_OUT)
    for name in sizes:
        if (match := STUDY.fullmatch(name)) is not None:
            manifest.study_dir(Path(), match["name"])
        elif not RUN.fullmatch(name):
            raise UserError(f"{path} has a file {name!r}, which does not belong to a run", WAY_OUT)
    return entries


def _unpack(archive: zipfile.ZipFile, name: str, entry: dict[str, Any], folder: Path, path: Path) -> None:
    target, digest = folder / name, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(target), archive.open(name) as source, target.open("wb") as stream:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                stream.write(chunk)
    except DAMAGE as error:
        raise UserError(f"{path} is damaged at {name}: {error}", "copy it again") from error
    if digest.hexdigest() != entry["sha256"]:
        raise UserError(f"{path} is damaged: the bytes of {name} have changed", "copy it again")


def _check(path: Path, folders: Sequence[RunFolder]) -> None:
    """Refuse runs that are not finished, or whose files are not those of their signature."""
    for folder in folders:
        reasons = [str(one) for one in damage.find_changed(folder)]
        if reasons or not folder.finished() or not folder.config_path.exists():
            said = "; ".join(reasons) or "it is not finished"
            raise UserError(f"run {folder.signature} of {path} cannot be imported: {said}", "export it again")


def _is_here(runs_dir: Path, unpacked: Path, run: str) -> bool:
    """True if a run is there with the same result.

    Raises:
        UserError: it is there with another one, or unfinished.
    """
    here = RunFolder(runs_dir / run)
    if not here.path.exists():
        return False
    if here.result() == RunFolder(unpacked / run).result():
        return True
    state = "with another result" if here.finished() else f"and {here.state()}"
    raise UserError(
        f"run {run} is already in {runs_dir}, {state}", "import into another folder: --runs-dir FOLDER"
    )


def _joined(runs_dir: Path, unpacked: Path, name: str) -> Manifest:
    """The manifest of a study that may be there already, with the runs of both."""
    theirs, mine = manifest.load(unpacked, name), manifest.find(runs_dir, name)
    if theirs.name != name:
        raise UserError(f"the manifest of {name} calls itself {theirs.name}", "export the study again")
    if mine is None:
        return theirs
    for what in ("factors", "baseline", "metric"):
        if getattr(mine, what) != getattr(theirs, what):
            raise UserError(
                f"study {name} is already in {runs_dir} with {what} {getattr(mine, what)}, "
                f"not {getattr(theirs, what)}",
                "import into another folder: --runs-dir FOLDER",
            )
    known = {run.signature for run in mine.runs}
    more: list[PlannedRun] = [run for run in theirs.runs if run.signature not in known]
    return replace(mine, runs=[*mine.runs, *more])
