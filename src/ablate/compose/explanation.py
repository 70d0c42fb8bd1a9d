"""Hydra's composition errors in the project's own form: what was given, what is near, the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from ablate import plugins
from ablate.configuration import conf_dirs
from ablate.errors import UnknownSettingError, UserError, unknown

FOLDERS = ("study", "variant")
NULL_GROUP = re.compile(r"(op|host|data|recipe|infra|study|variant)(/\w+)?=null")


def _choices(group: str) -> list[str]:
    roots = [folder / group for folder in conf_dirs()]
    return sorted(
        {path.relative_to(root).with_suffix("").as_posix() for root in roots for path in root.rglob("*.yaml")}
    )


def _with_broken(refused: UserError) -> UserError:
    """Add the plug-ins that could not be loaded, which may have what was chosen."""
    from ablate.ops import registry

    registry.broken()  # presets in their folders, too
    return plugins.with_broken(refused)


def explained(error: Exception) -> bool:
    """Return True if the error is a mistake in a file or on the command line, which `explain` can explain."""
    of_composition = (HydraException, OmegaConfBaseException, yaml.MarkedYAMLError)
    of_null = isinstance(error, ValueError) and "Config group override must be" in str(error)
    return isinstance(error, (*of_composition, UnicodeDecodeError)) or of_null


def explain(error: Exception, typed: Sequence[str] = ()) -> UserError:
    """Return the user's error behind a failed composition.

    Args:
        error: raised by Hydra, OmegaConf or the reader of YAML.
        typed: the command line.
    """
    if isinstance(error, yaml.MarkedYAMLError):
        return _of_yaml(error)
    if isinstance(error, UnicodeDecodeError):
        return _of_bytes(error, typed)
    if isinstance(error, InterpolationResolutionError):
        return _of_interpolation(error)
    null = next((word for word in typed if NULL_GROUP.fullmatch(word)), None)
    if isinstance(error, ValueError) and null is not None:
        group = null.partition("=")[0]
        return UserError(
            f"{null}: a group cannot be null",
            f"leave {group}=… out, or choose one of: {', '.join(_choices(group))}",
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        path = error.missing_cfg_file.removesuffix(".yaml")
        group, _, choice = path.rpartition("/")
        flat = path.partition("/")[0]  # `study` and `variant` have choices in folders of their own
        if flat in FOLDERS:
            return _with_broken(unknown(flat, path.removeprefix(f"{flat}/"), _choices(flat)))
        if error.options:
            return _with_broken(unknown(group, choice, error.options))
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        key = str(cause.full_key)
        parent, _, last = key.rpartition(".")
        found = unknown(
            f"setting of {parent}:" if parent else "setting", last, [str(k) for k in cause.parent_node]
        )
        return UnknownSettingError(found.problem, found.way_out)
    lines = [line for line in str(error).splitlines() if line.strip()]
    hidden = re.compile(r"Set the environment variable|provider=|Config search path")
    shown = [line for line in lines if not hidden.search(line)]
    return UserError(
        "\n".join(shown), "`ablate train --help` lists groups and choices, `--cfg job` all settings"
    )


def _of_yaml(error: yaml.MarkedYAMLError) -> UserError:
    """Explain a file that is not YAML, with its line."""
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}, line {mark.line + 1}" if mark is not None else "a configuration file"
    problem = error.problem or error.context or "it cannot be read"
    hints = {
        "\\t": "YAML is indented with spaces, never with tabs",
        "duplicate key": "keep one of the two",
        "could not determine a constructor": "tags (!name) are not read, for safety: write a plain value",
    }
    hint = next((hint for part, hint in hints.items() if part in problem), "correct it or the line before")
    return UserError(f"{where}: {problem}", hint)


def _of_bytes(error: UnicodeDecodeError, typed: Sequence[str]) -> UserError:
    """Explain a file that is not text; the error itself does not name the file."""
    for path in _files(typed):
        content = path.read_bytes()
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as found:
            line = content[: found.start].count(b"\n") + 1
            return UserError(f"{path}, line {line}: bytes that are not UTF-8", "save the file as UTF-8")
    return UserError(f"a configuration file is not UTF-8: {error}", "save it as UTF-8")


def _of_interpolation(error: InterpolationResolutionError) -> UserError:
    key = getattr(error, "full_key", None)
    where = f"{key}: " if key else ""
    text = " ".join(str(getattr(error, "msg", None) or error).split())
    variable = re.search(r"Environment variable '(\w+)' not found", text)
    if variable is not None:
        name = variable[1]
        return UserError(
            f"{where}the environment variable {name} is not set",
            f"export {name}=…, or give a default: ${{oc.env:{name},VALUE}}",
        )
    if "Recursive interpolation" in text:
        return UserError(f"{where}an interpolation ${{…}} refers to itself", "give one of them a value")
    return UserError(f"{where}{text}", "an interpolation names a setting from the top: ${recipe.epochs}")


def _files(typed: Sequence[str]) -> Iterator[Path]:
    """Yield every configuration file that the command may have read."""
    folders = conf_dirs()
    for word, following in zip(typed, [*typed[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option in ("--config-dir", "-cd", "--config-path", "-cp"):
            folders.append(Path(value or following))
        elif option == "hydra.searchpath":
            folders += [Path(place) for place in re.findall(r"file://([^,\]]+)", value)]
    for folder in folders:
        yield from sorted(folder.rglob("*.yaml"))
