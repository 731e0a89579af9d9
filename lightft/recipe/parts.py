"""The parts of a recipe: model, data, adapters and comparison, each checked by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightft.data.task_data import TASKS
from lightft.errors import InvalidSettingError, suggest
from lightft.reports import REPORTS
from lightft.sweeping.candidates import QUANTIZATIONS, Candidate, combinations

__all__ = ["DTYPES", "RecipeAdapter", "RecipeComparison", "RecipeData", "RecipeModel", "check_report"]

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class RecipeModel:
    """The base model.

    Attributes:
        name: as for ``ModelLoader``.
        revision: of a Hub model.
        dtype: of the frozen base.
        quantization: of the base for every adapter that does not say: None, ``"nf4"`` or ``"int8"``.
        device: where to compute.
    """

    name: str
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InvalidSettingError(f"There is no dtype {self.dtype!r}. {suggest(self.dtype, DTYPES)}")
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise InvalidSettingError(
                f"No quantization named {self.quantization!r}. {suggest(self.quantization, QUANTIZATIONS)}"
            )


@dataclass(frozen=True)
class RecipeData:
    """The data.

    Attributes:
        source: as for ``load_data``: a file, a folder, a Hub id, a known short name, or a file for each split.
        task: ``"text-classification"``, ``"token-classification"`` or ``"causal-lm"``; by default told from the columns.
        labels: classes or entity types to keep; by default all.
        text_column: where it has an unusual name.
        label_column: likewise.
        revision: of a Hub data set.
        validation: what is set aside of the training rows where there is no validation split: a share, or a number of
            rows.
        test_from: ``"validation"`` tests on the source's validation split, for sources whose test split has no gold
            answers; ``validation`` is then set aside of the training rows. None tests on the test split.
        rows: how many rows of each split to keep, the first ones; by default all.
    """

    source: str | Mapping[str, str]
    task: str | None = None
    labels: tuple[str, ...] | None = None
    text_column: str | None = None
    label_column: str | None = None
    revision: str | None = None
    validation: float = 0.1
    test_from: str | None = None
    rows: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise InvalidSettingError(f"There is no task {self.task!r}. {suggest(self.task, TASKS)}")
        if self.test_from not in (None, "validation"):
            raise InvalidSettingError(
                f"test_from is {self.test_from!r}; it can be 'validation', or left out to test on the test split."
            )
        if self.validation < 0 or (isinstance(self.validation, float) and self.validation >= 1):
            raise InvalidSettingError(
                f"validation is {self.validation}; it is a share from 0 to below 1, or a number of rows."
            )
        for split, count in self.rows.items():
            if split not in ("train", "validation", "test"):
                raise InvalidSettingError(
                    f"There is no split {split!r}. {suggest(split, ('train', 'validation', 'test'))}"
                )
            if count < 0:
                raise InvalidSettingError(f"rows of {split} is {count}; give 0 or more.")


@dataclass(frozen=True)
class RecipeAdapter:
    """One adapter, or a grid of them.

    Attributes:
        kind: of adapter.
        params: of the kind; a list is one alternative after the other, and all combinations are trained.
        quantization: of the base, or a list of alternatives, in which None is the base as it is.
        name: in reports, for one that is no grid; by default the kind and the parameters given.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    quantization: str | list[str | None] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        # A list of one is that one, so that equal recipes are equal.
        plain = {name: _only(value) for name, value in self.params.items()}
        object.__setattr__(self, "params", plain)
        object.__setattr__(self, "quantization", _only(self.quantization))
        made = self.candidates()
        if self.name is not None and len(made) > 1:
            raise InvalidSettingError(
                f"{self.name!r} names a grid of {len(made)} adapters. Leave the name out: parameters name each of them."
            )

    def candidates(self) -> list[Candidate]:
        """Return what is trained, named after everything that is given here."""
        made = combinations(self.kind, self.params, self.quantization, told=list(self.params))
        return made if self.name is None else [replace(candidate, name=self.name) for candidate in made]


def _only(value: Any) -> Any:
    """Return the one alternative where there is one, else all; several names that make one value are a tuple."""
    if not isinstance(value, list):
        return value
    alternatives = [tuple(one) if isinstance(one, list) else one for one in value]
    return alternatives[0] if len(alternatives) == 1 else alternatives


@dataclass(frozen=True)
class RecipeComparison:
    """How the runs are compared.

    Attributes:
        baseline: name of the adapter the others are held against; None compares every pair.
        metric: the headline; by default the task's own.
    """

    baseline: str | None = None
    metric: str | None = None


def check_report(path: str) -> None:
    """Refuse a report of a kind that does not exist.

    Raises:
        InvalidSettingError: no report has the name of the suffix.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    known = sorted([*REPORTS, "json"])
    if suffix not in known:
        endings = ", ".join(f".{name}" for name in known)
        raise InvalidSettingError(f"{path!r} does not say which report to write. End it in one of: {endings}.")
