"""What a sweep trains: adapters with short names, and grids of them written in one line."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lightft.adapters import AdapterSpec
from lightft.errors import InvalidSettingError, suggest

__all__ = [
    "LEARNING_RATES",
    "QUANTIZATIONS",
    "Candidate",
    "LearningRates",
    "candidates_of",
    "combinations",
    "grid",
    "seeds_of",
]

QUANTIZATIONS = ("nf4", "int8")

_MOST_SEEDS = 1000

LearningRates = Literal["default", "chosen"]
LEARNING_RATES = ("default", "chosen")


@dataclass(frozen=True)
class Candidate:
    """One method of a sweep, which is trained with every seed.

    Attributes:
        name: in reports; unique in the sweep.
        adapter: what is trained.
        quantization: what the base is held in: None, ``"nf4"`` or ``"int8"``.
    """

    name: str
    adapter: AdapterSpec
    quantization: str | None = None

    def __post_init__(self) -> None:
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise InvalidSettingError(
                f"No quantization named {self.quantization!r}. {suggest(self.quantization, QUANTIZATIONS)}"
            )

    @property
    def file_name(self) -> str:
        """The name as a folder may have it."""
        return re.sub(r"[^\w.+-]+", "-", self.name).strip("-.") or "candidate"


def grid(kind: str, *, quantization: str | Sequence[str | None] | None = None, **parameters: Any) -> list[Candidate]:
    """Return all combinations of parameters of an adapter kind: ``grid("lora", r=[4, 16], targets=["attention", "all"])``.

    Each is named after what varies, such as ``"lora r=4 targets=all"``.

    Args:
        kind: of adapter.
        quantization: of the base: one, or a list of several, in which None is the base as it is.
        parameters: of the kind. A list names alternatives; anything else is one value, and so is a tuple of layer names.

    Raises:
        InvalidSettingError: a parameter or value that the kind does not have, or an empty list.
    """
    varied = [name for name, value in parameters.items() if isinstance(value, list) and len(value) > 1]
    return combinations(kind, parameters, quantization, told=varied)


def combinations(
    kind: str, parameters: Mapping[str, Any], quantization: str | Sequence[str | None] | None, told: Sequence[str]
) -> list[Candidate]:
    """Return what ``grid`` returns, named after the parameters ``told``."""
    alternatives = {name: value if isinstance(value, list) else [value] for name, value in parameters.items()}
    quantizations = [quantization] if isinstance(quantization, str) or quantization is None else list(quantization)
    for name, values in (*alternatives.items(), ("quantization", quantizations)):
        if not values:
            raise InvalidSettingError(f"{kind!r} has {name}=[]: give at least one value, or leave {name} out.")
    candidates = []
    for chosen in itertools.product(*alternatives.values()):
        spec = AdapterSpec(kind, dict(zip(alternatives, chosen, strict=True)))
        name = _name(kind, {name: spec.params[name] for name in told})
        candidates += [Candidate(_with(name, quantized), spec, quantized) for quantized in quantizations]
    return candidates


def candidates_of(specs: Any, quantizations: Sequence[str | None] = (None,)) -> tuple[Candidate, ...]:
    """Return what a sweep is asked to train as candidates of different names.

    Args:
        specs: candidates, specs, kinds or ready peft configs; or specs by name.
        quantizations: what the base is held in; every candidate that does not say is trained once in each.

    Raises:
        InvalidSettingError: there are none, or two have one name or are one and the same.
    """
    if isinstance(specs, Mapping):
        plain = [Candidate(str(name), AdapterSpec.of(spec)) for name, spec in specs.items()]
    else:
        plain = _named([specs] if isinstance(specs, (str, AdapterSpec, Candidate)) else list(specs))
    if not plain or not quantizations:
        raise InvalidSettingError("There is nothing to train: give at least one adapter and one quantization.")
    candidates = [
        crossed
        for candidate in plain
        for crossed in ([candidate] if candidate.quantization else _crossed(candidate, quantizations))
    ]
    _refuse_twins(candidates)
    return tuple(candidates)


def seeds_of(asked: int | Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of a sweep that is asked for so many, or for these.

    Raises:
        InvalidSettingError: none, one twice, or more than a thousand.
    """
    seeds = tuple(range(min(asked, _MOST_SEEDS + 1)) if isinstance(asked, int) else asked)
    if not 1 <= len(seeds) <= _MOST_SEEDS or len(set(seeds)) < len(seeds):
        raise InvalidSettingError(
            f"seeds is {asked!r}: give a number of seeds from 1 to {_MOST_SEEDS:,}, or a list of different ones."
        )
    return seeds


def _crossed(candidate: Candidate, quantizations: Sequence[str | None]) -> list[Candidate]:
    return [
        replace(candidate, name=_with(candidate.name, quantized), quantization=quantized) for quantized in quantizations
    ]


def _named(specs: Iterable[Any]) -> list[Candidate]:
    """Name what has no name by its kind, and by the parameters in which it departs from the kind's defaults."""
    given = [spec if isinstance(spec, Candidate) else AdapterSpec.of(spec) for spec in specs]
    kinds = Counter(spec.kind for spec in given if isinstance(spec, AdapterSpec))
    named = []
    for spec in given:
        if isinstance(spec, AdapterSpec):
            told = _departures(spec) if kinds[spec.kind] > 1 else {}
            spec = Candidate(_name(spec.kind, told), spec)
        named.append(spec)
    return named


def _departures(spec: AdapterSpec) -> dict[str, Any]:
    usual = AdapterSpec(spec.kind).params
    return {name: value for name, value in spec.params.items() if value != usual[name]}


def _name(kind: str, told: Mapping[str, Any]) -> str:
    return " ".join([kind, *(f"{name}={_value_words(value)}" for name, value in told.items())])


def _value_words(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _with(name: str, quantization: str | None) -> str:
    return name if quantization is None else f"{name} {quantization}"


def _refuse_twins(candidates: Sequence[Candidate]) -> None:
    names = Counter(candidate.name for candidate in candidates)
    repeated = sorted(name for name, count in names.items() if count > 1)
    if repeated:
        raise InvalidSettingError(
            f"Several candidates are called {', '.join(map(repr, repeated))}. Give them names: {{'name': spec, …}}."
        )
    files = Counter(candidate.file_name for candidate in candidates)
    seen: dict[tuple[AdapterSpec, str | None], str] = {}
    for candidate in candidates:
        if files[candidate.file_name] > 1:
            raise InvalidSettingError(
                f"The name {candidate.name!r} and another are the same as a folder, {candidate.file_name!r}. Rename one."
            )
        what = (candidate.adapter, candidate.quantization)
        if what in seen:
            raise InvalidSettingError(
                f"{seen[what]!r} and {candidate.name!r} are the same: {candidate.adapter}. Leave one of them out."
            )
        seen[what] = candidate.name
