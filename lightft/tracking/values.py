"""What of a run goes where: settings become parameters, results become numbers, its folder becomes files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightft.comparison import Comparison, compare_runs
from lightft.records import Run

__all__ = ["KeptFile", "files_of", "numbers_of", "parameters_of", "write_reports"]

_LONGEST_VALUE = 6000  # MLflow's limit, the tightest of all
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
_RESULTS = ("cost", "history", "scores")
_PROMPT_FILE = "extractor.json"


@dataclass(frozen=True)
class KeptFile:
    """A file that a tracker is to keep.

    Attributes:
        path: where it is.
        place: its path in the tracker, with ``/`` between folders.
    """

    path: Path
    place: str


def parameters_of(run: Run) -> dict[str, str | int | float | bool]:
    """Return what was asked of a run, flat: ``adapter.params.r``, ``training.learning_rate``, ``model.name``, ….

    What only training brings is left out, so that a run has the same parameters before it and after. A value longer than
    trackers take is cut and says so; ``run.json`` has it whole.
    """
    described = {name: value for name, value in run.to_json().items() if name not in _RESULTS}
    described["training"] = _without(described["training"], "best_epoch", "steps")
    described["data"] = _without(described["data"], "encoding")
    return {name: _parameter(value) for name, value in _flat(described)}


def numbers_of(run: Run) -> dict[str, float]:
    """Return the results of a run: each metric with ``_low`` and ``_high`` of its interval, costs, and what was counted."""
    scores = {
        name if part == "value" else f"{name}_{part}": value
        for name, score in run.scores.items()
        for part, value in score.items()
    }
    course = {name: run.training[name] for name in ("best_epoch", "steps") if name in run.training}
    counted = {f"encoding.{name}": count for name, count in run.data.get("encoding", {}).items()}
    return {
        name: float(value)
        for name, value in {**run.cost, **course, **counted, **scores}.items()
        if isinstance(value, (int, float))
    }


def files_of(run: Run, folder: Path, work: Path, *, texts: bool) -> list[KeptFile]:
    """Return the files of a run, and a report of it that is written into ``work``.

    Args:
        run: as it stands in ``folder``.
        folder: the run's.
        work: an empty folder.
        texts: include files that hold texts.
    """
    files = [KeptFile(folder / "run.json", "run.json")]
    if texts or not _writes_texts(run):
        files.append(KeptFile(folder / "predictions.jsonl", "predictions.jsonl"))
    for path in sorted((folder / "adapter").rglob("*")):
        # The prompt of an extractor may show examples.
        if path.is_file() and (texts or path.name != _PROMPT_FILE):
            files.append(KeptFile(path, path.relative_to(folder).as_posix()))
    if run.predictions:
        # What chose the epoch is told in the report.
        files += write_reports(compare_runs([run], selected_on_test="warn"), work, ("html", "md"), texts=False)
    return files


def write_reports(comparison: Comparison, work: Path, kinds: tuple[str, ...], *, texts: bool) -> list[KeptFile]:
    """Write a comparison as ``report.KIND`` of each kind into ``work``, with its examples if they may be shown."""
    include_text = texts and bool(comparison.examples)
    return [
        KeptFile(comparison.save(work / f"report.{kind}", include_text=include_text), f"report.{kind}")
        for kind in kinds
    ]


def _writes_texts(run: Run) -> bool:
    """Whether an answer, gold or given, is a text of its own and not one of the run's labels."""
    answers = (answer for prediction in run.predictions for answer in (prediction.gold, prediction.predicted))
    return any(isinstance(answer, str) and answer not in run.labels for answer in answers)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        # Trackers limit what a name may look like; keys that come from data stay in the value.
        if isinstance(value, Mapping) and all(map(_PLAIN_KEY.fullmatch, value)):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parameter(value: Any) -> str | int | float | bool:
    if isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST_VALUE:
        return text
    remark = f" … ({len(text):,} characters in all, see run.json)"
    return text[: _LONGEST_VALUE - len(remark)] + remark


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
