"""What a value of an adapter's parameter may be: the annotations of its builder, checked when a spec is made."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from lightft.errors import InvalidSettingError, suggest

__all__ = [
    "AtLeast",
    "Between",
    "Bias",
    "NonNegative",
    "Positive",
    "Rank",
    "Share",
    "Targets",
    "check_value",
    "schema_of",
]


@dataclass(frozen=True)
class AtLeast:
    """A number of ``low`` or more; with ``open``, more than ``low``."""

    low: float
    open: bool = False

    def accepts(self, value: float) -> bool:
        """Whether ``value`` is in range."""
        return value > self.low if self.open else value >= self.low

    def __str__(self) -> str:
        return f"above {self.low:g}" if self.open else f"{self.low:g} or more"


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to below ``high``."""

    low: float
    high: float

    def accepts(self, value: float) -> bool:
        """Whether ``value`` is in range."""
        return self.low <= value < self.high

    def __str__(self) -> str:
        return f"from {self.low:g} to below {self.high:g}"


Rank = Annotated[int, AtLeast(1)]
Positive = Annotated[float, AtLeast(0, open=True)]
NonNegative = Annotated[float, AtLeast(0)]
Share = Annotated[float, Between(0, 1)]
Bias = Literal["none", "all", "lora_only"]
Targets = str | Sequence[str]


def schema_of(build: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotation of each parameter of a builder; those that cannot be evaluated are left out."""
    namespace: dict[str, Any] = inspect.unwrap(build).__globals__
    written = {name: note for name, note in build.__annotations__.items() if name != "return"}
    schema: dict[str, Any] = {}
    for name, note in written.items():
        holder = types.SimpleNamespace(__annotations__={name: note})
        try:
            schema |= typing.get_type_hints(holder, globalns=namespace, include_extras=True)
        except NameError:
            # A name that is imported for type checkers only: the value is then left to the builder.
            continue
    return schema


def check_value(kind: str, name: str, value: Any, annotation: Any) -> None:
    """Refuse a value that the annotation of its parameter does not allow.

    Raises:
        InvalidSettingError: naming the value and what is accepted.
    """
    if get_origin(annotation) is Literal and value not in get_args(annotation):
        raise InvalidSettingError(
            f"{kind!r} cannot have {name}={value!r}. {suggest(str(value), map(str, get_args(annotation)))}"
        )
    accepted = _accepted_types(annotation)
    if accepted and not _is_of(value, accepted):
        words = " or ".join(_WORDS[plain] for plain in accepted)
        raise InvalidSettingError(f"{kind!r} cannot have {name}={value!r}: it must be {words}.")
    limits = [limit for limit in get_args(annotation)[1:] if isinstance(limit, (AtLeast, Between))]
    for limit in limits if get_origin(annotation) is Annotated else ():
        if not limit.accepts(value):
            raise InvalidSettingError(f"{kind!r} cannot have {name}={value!r}: it must be {limit}.")


_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Sequence: "a list of names",
    Mapping: "a mapping",
    type(None): "None",
}


def _accepted_types(annotation: Any) -> list[Any]:
    """Return the plain types an annotation allows; empty where it says nothing that could be checked."""
    if get_origin(annotation) is Annotated:
        return _accepted_types(get_args(annotation)[0])
    if get_origin(annotation) in (types.UnionType, typing.Union):
        members = [_accepted_types(member) for member in get_args(annotation)]
        return [plain for member in members for plain in member] if all(members) else []
    plain = get_origin(annotation) or annotation
    return [plain] if plain in _WORDS else []


def _is_of(value: Any, accepted: Sequence[Any]) -> bool:
    if isinstance(value, bool):
        return bool in accepted
    if isinstance(value, int):
        return int in accepted or float in accepted
    if isinstance(value, str):
        return str in accepted
    return isinstance(value, tuple(accepted))
