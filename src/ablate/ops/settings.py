"""Settings of an operator: arguments of its constructor, plain in a configuration and typed in Python.

Numbers, strings, booleans and None are both. An enumeration is written by the name of its member, a path as
text, a tuple as a list, and a dataclass as a group of settings.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from ablate.configuration import convert
from ablate.errors import UserError, unknown

POSSIBLE = (
    "bool, int, float, str, None, Path, an Enum, a Literal, a dataclass, tuples, lists and dicts of these, "
    "or several with |"
)
NO_DEFAULT = inspect.Parameter.empty
PLAIN = (bool, int, float, str)
SEQUENCES = (list, tuple, collections.abc.Sequence)
MAPPINGS = (dict, collections.abc.Mapping)


@dataclass(frozen=True)
class Settings:
    """Arguments of an operator's constructor.

    Attributes:
        geometry: those that the host gives.
        hints: the types of the others by name; None without an annotation.
        defaults: of those that have one, as plain values.
    """

    geometry: tuple[str, ...]
    hints: Mapping[str, Any]
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, module: type[nn.Module], geometry: Sequence[str]) -> Settings:
        """Read a constructor; `geometry` are the names of arguments that a host gives.

        Raises:
            UserError: an argument is annotated with a type, or has a default, that no configuration can have.
        """
        parameters = [
            parameter
            for parameter in list(inspect.signature(module.__init__).parameters.values())[1:]
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        annotations = _hints(module.__init__)
        own = [parameter for parameter in parameters if parameter.name not in geometry]
        hints = {parameter.name: annotations.get(parameter.name) for parameter in own}
        for name, hint in hints.items():
            if not _possible(hint):
                raise UserError(
                    f"{module.__name__}: its setting {name!r} is annotated with {_words(hint)}, "
                    "which no configuration can have",
                    f"possible: {POSSIBLE}",
                )
        return cls(
            tuple(parameter.name for parameter in parameters if parameter.name in geometry),
            hints,
            {
                parameter.name: plain(
                    f"{module.__name__}: the default of {parameter.name!r}", parameter.default
                )
                for parameter in own
                if parameter.default is not NO_DEFAULT
            },
        )

    def read(self, path: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the constructor; `path` is where the settings are, for messages.

        Raises:
            UserError: a setting is missing, or a value has another type than its annotation; names both.
        """
        if missing := [name for name in self.hints if name not in config]:
            raise UserError(
                f"{path} has no {', '.join(missing)}",
                "a configuration has all settings of an operator: begin with ops.spec(name).defaults",
            )
        return {name: typed(f"{path}.{name}", config[name], hint) for name, hint in self.hints.items()}


def plain(what: str, value: Any) -> Any:
    """Return a value as a configuration has it.

    Args:
        what: it is, for a message.
        value: of one of the possible types.

    Raises:
        UserError: no configuration can have it.
    """
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(what, getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(what, item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(what, item) for key, item in value.items()}
    raise UserError(f"{what} is {value!r}, which no configuration can have", f"possible: {POSSIBLE}")


def typed(path: str, value: Any, hint: Any) -> Any:
    """Return the value of a setting as its annotation asks; as it is without one.

    Args:
        path: of the setting, for messages.
        value: as a configuration has it, or typed already.
        hint: its annotation.

    Raises:
        UserError: names the setting, what was given and what is possible.
    """
    origin = get_origin(hint)
    if hint is None or hint is Any:
        return value
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            raise unknown(f"{path}:", str(value), [str(choice) for choice in get_args(hint)])
        return value
    if origin in (Union, types.UnionType):
        return _one_of(path, value, hint)
    if hint is types.NoneType and value is None:
        return None
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _member(path, value, hint)
    if hint in PLAIN:
        return convert(path, value, hint.__name__)
    if isinstance(hint, type) and issubclass(hint, PurePath) and isinstance(value, (str, PurePath)):
        return hint(value)
    if dataclasses.is_dataclass(hint):
        return _group(path, value, hint)
    if (origin or hint) in SEQUENCES and isinstance(value, (list, tuple)):
        return _sequence(path, value, hint)
    if (origin or hint) in MAPPINGS and isinstance(value, Mapping):
        inner = (get_args(hint) or (None, None))[1]
        return {key: typed(f"{path}.{key}", item, inner) for key, item in value.items()}
    raise UserError(f"{path}={value!r} has the wrong type", f"expected {_words(hint)}")


def _one_of(path: str, value: Any, hint: Any) -> Any:
    """Return a value as the first alternative that takes it; one of exactly its type comes first."""
    alternatives = sorted(get_args(hint), key=lambda one: one is not type(value))
    refused: list[UserError] = []
    for alternative in alternatives:
        try:
            return typed(path, value, alternative)
        except UserError as error:
            refused.append(error)
    if len([one for one in alternatives if one is not types.NoneType]) == 1 and not isinstance(value, PLAIN):
        raise refused[0]  # of a group or a list, the part of it that is wrong
    raise UserError(f"{path}={value!r} has the wrong type", f"expected {_words(hint)}")


def _member(path: str, value: Any, kind: type[enum.Enum]) -> enum.Enum:
    if isinstance(value, kind):
        return value
    for member in kind:
        if value == member.name or (value == member.value and type(value) is type(member.value)):
            return member
    raise unknown(f"{path}:", str(value), [member.name for member in kind])


def _group(path: str, value: Any, kind: Any) -> Any:
    """Return a dataclass from a group of settings."""
    if isinstance(value, kind):
        return value
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if not isinstance(value, Mapping):
        raise UserError(f"{path}={value!r} is not a group of settings", f"give {', '.join(fields)}")
    for key in value:
        if key not in fields:
            raise unknown("setting", f"{path}.{key}", [f"{path}.{name}" for name in fields])
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise UserError(f"{path}.{name} is missing", f"settings: {', '.join(fields)}")
    hints = _hints(kind)
    return kind(**{name: typed(f"{path}.{name}", item, hints.get(name)) for name, item in value.items()})


def _sequence(path: str, value: Sequence[Any], hint: Any) -> Any:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        if len(inner) != len(value):
            raise UserError(f"{path}={list(value)} has {len(value)} values", f"expected {_words(hint)}")
        each = list(inner)
    else:
        each = [inner[0] if inner else None] * len(value)
    items = [typed(f"{path}[{i}]", item, one) for i, (item, one) in enumerate(zip(value, each, strict=True))]
    return tuple(items) if kind is tuple else items


def _possible(hint: Any) -> bool:
    """Return True if a configuration can have values of a type."""
    origin, inner = get_origin(hint), [one for one in get_args(hint) if one is not Ellipsis]
    if hint is None or hint is Any or hint is types.NoneType or hint in PLAIN or origin is Literal:
        return True
    if origin in (Union, types.UnionType) or (origin or hint) in (*SEQUENCES, *MAPPINGS):
        return all(map(_possible, inner))
    if dataclasses.is_dataclass(hint):
        return all(map(_possible, _hints(hint).values()))
    return isinstance(hint, type) and issubclass(hint, (enum.Enum, PurePath))


def _hints(annotated: Any) -> dict[str, Any]:
    """Return annotations as types; none where one of them names what exists for type checkers only."""
    try:
        return get_type_hints(annotated)
    except NameError:
        return {}


def _words(hint: Any) -> str:
    return (
        hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    )
