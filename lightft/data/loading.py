"""From any source to a ``TaskData``: find the files, read the rows, make the splits, count what is doubtful."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from lightft.data import hub
from lightft.data.examples import Wanted, build_examples
from lightft.data.readers import Table, read_table
from lightft.data.reference_sets import REFERENCE_SETS, ReferenceSet
from lightft.data.rows import recognise
from lightft.data.splits import TEST_FRACTION, cut, file_names, rows_wanted, split_files, split_name, split_of_file_name
from lightft.data.task_data import SPLITS, TASKS, TaskData, duplicates_between_splits
from lightft.errors import DataError, InvalidSettingError, suggest
from lightft.packaged import PREFIX, path_in_package
from lightft.records import Example

__all__ = ["load_data", "read_examples"]


def load_data(
    source: str | PathLike[str] | Mapping[str, str | PathLike[str]],
    *,
    task: str | None = None,
    validation: float = 0.1,
    labels: Wanted = None,
    text_column: str | None = None,
    label_column: str | None = None,
    seed: int = 0,
    revision: str | None = None,
) -> TaskData:
    """Read a data set from wherever it is.

    Args:
        source: one of

            * a folder with ``train``, ``validation`` (or ``dev``) and ``test`` files: JSONL, JSON, CSV, TSV, CoNLL
              columns (``.conll``, ``.txt``, ``.bio``, ``.iob2``) or Parquet, perhaps gzipped;
            * one such file without a split in its name, of which 20 % become the test split and ``validation`` of
              it the validation split;
            * a mapping of split to file, ``{"train": …, "test": …}``;
            * ``"package:NAME/path"``: a file or folder inside an installed package, which is not imported;
            * a Hub data set, ``"owner/name"`` or ``"owner/name:configuration"``;
            * a name of ``REFERENCE_SETS``: conll2003, few-nerd, guanaco-llama2-1k, multinerd, sst2.

            What exists as a path is read as a path.
        task: ``"text-classification"``, ``"token-classification"`` or ``"causal-lm"``; told from the columns unless
            given.
        validation: what becomes the validation split where the source has none: a fraction (float) or a number of
            rows (int) of the training rows. The test split is never used for it.
        labels: classes or entity types to keep, or a mapping of old to new names in which None drops and names not
            mentioned stay. An entity of another type is no longer one (its words become O); a row of another class
            is left out. Both are counted in the notes.
        text_column: the column with text, words or prompt, where it has an unusual name.
        label_column: the column with class, tags, spans or answer, where it has an unusual name.
        seed: chooses the rows of splits made here.
        revision: branch, tag or commit of a Hub data set.

    Returns:
        The three splits with an account of what was repaired, dropped or found twice.

    Raises:
        DataError: the source cannot be found or a row cannot be read; the message names file and line.
        InvalidSettingError: ``task`` or ``validation`` is not acceptable, or ``revision`` is given for local files.
        UnknownNameError: ``labels`` names one that the data does not have.
    """
    if task is not None and task not in TASKS:
        raise InvalidSettingError(f"There is no task {task!r}. {suggest(task, TASKS)}")
    found = _find(source, revision)
    reference = found.reference
    if reference is not None:
        task, label_column = task or reference.task, label_column or reference.label_column
    tables = {split: _read_all(paths) for split, paths in found.files.items()}
    examples = _examples_of(tables, found, task, labels, text_column, label_column)
    splits, made = _three_splits(examples.splits, validation, seed)
    notes: dict[str, Any] = {
        "files": {split or "all": names for split, names in file_names(found.files).items()},
        "rows": {split: len(splits[split]) for split in SPLITS},
        **found.notes,
        **_skipped_lines(tables),
        **examples.notes,
        **made,
        **(_label_notes(splits) if examples.task != "causal-lm" else {}),
        "duplicates": duplicates_between_splits(splits),
    }
    return TaskData(
        task=examples.task,
        source=_described(source),
        labels=examples.labels,
        train=tuple(splits["train"]),
        validation=tuple(splits["validation"]),
        test=tuple(splits["test"]),
        notes=notes,
    )


def read_examples(
    path: str | PathLike[str],
    *,
    task: str | None = None,
    labels: Wanted = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> list[Example]:
    """Read the examples of one file, in its order and without making splits; arguments as for ``load_data``.

    Rows that hold nothing to learn from or to score (no gold label, no words) are left out; ``load_data`` counts them.

    Raises:
        DataError: the file cannot be found or a row cannot be read; the message names the line.
        UnknownNameError: ``labels`` names one that the data does not have.
    """
    path = Path(path)
    split = split_of_file_name(path.name) or ""
    found = _Found({split: [path]})
    tables = {split: read_table(path)}
    return _examples_of(tables, found, task, labels, text_column, label_column).splits[split or _UNSPLIT]


# --- finding the files


_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(:(?P<config>[^/]+))?")


@dataclass(frozen=True)
class _Found:
    """The files of each split; under ``""`` the one file that is not split yet."""

    files: dict[str, list[Path]]
    notes: dict[str, Any] = field(default_factory=dict)
    reference: ReferenceSet | None = None


def _find(source: str | PathLike[str] | Mapping[str, str | PathLike[str]], revision: str | None) -> _Found:
    if isinstance(source, Mapping):
        _refuse_revision(source, revision)
        return _Found(_named_files(source))
    name = fspath(source)
    path = path_in_package(name, DataError) if name.startswith(PREFIX) else Path(name).expanduser()
    if path.exists():
        _refuse_revision(source, revision)
        return _Found(split_files(path) if path.is_dir() else {"": [path]})
    reference = REFERENCE_SETS.get(name.lower())
    if reference is not None:
        return _from_hub(reference.repo, reference.config, revision or reference.revision, reference)
    hub_id = _HUB_ID.fullmatch(name)
    if isinstance(source, str) and hub_id is not None:
        return _from_hub(hub_id["repo"], hub_id["config"], revision, None)
    raise DataError(
        f"There is no file or folder {name!r}, and it is neither a Hub data set ('owner/name') nor a known short name. "
        f"{suggest(name, REFERENCE_SETS)}"
    )


def _refuse_revision(source: object, revision: str | None) -> None:
    if revision is not None:
        raise InvalidSettingError(
            f"revision={revision!r} is for Hub data sets, but {_described(source)} is on this machine."
        )


def _named_files(source: Mapping[str, str | PathLike[str]]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for name, file in source.items():
        split = split_name(name)
        if split is None or split in files:
            raise DataError(
                f"{name!r} names no split, or one that is named twice. Give each of 'train', 'validation' and 'test' "
                "one file."
            )
        text = fspath(file)
        files[split] = [path_in_package(text, DataError) if text.startswith(PREFIX) else Path(text).expanduser()]
    if not files:
        raise DataError('No files are named. Give at least {"train": …}.')
    return files


def _from_hub(repo: str, config: str | None, revision: str | None, reference: ReferenceSet | None) -> _Found:
    files = hub.download(repo, config, revision, reference.files if reference else None)
    note = {
        "repo": repo,
        "config": config,
        "revision": revision,
        "commit": files.commit,
        "from_cache": files.from_cache,
    }
    return _Found(files.splits, {"hub": note}, reference)


def _described(source: object) -> str:
    if isinstance(source, Mapping):
        return ", ".join(f"{split}={fspath(file)}" for split, file in source.items())
    return str(source)


# --- reading

_UNSPLIT = "row"


@dataclass(frozen=True)
class _Read:
    task: str
    splits: dict[str, list[Example]]
    labels: tuple[str, ...]
    notes: dict[str, Any]


def _read_all(paths: Sequence[Path]) -> Table:
    tables = [read_table(path) for path in paths]
    skipped: Counter[str] = Counter()
    for table in tables:
        skipped.update(table.skipped_lines)
    names = {column: value for table in tables for column, value in table.class_names.items()}
    return Table([row for table in tables for row in table.rows], names, skipped)


def _examples_of(
    tables: Mapping[str, Table],
    found: _Found,
    task: str | None,
    labels: Wanted,
    text_column: str | None,
    label_column: str | None,
) -> _Read:
    first = next((row for table in tables.values() for row in table.rows), None)
    if first is None:
        files = ", ".join(str(path) for paths in found.files.values() for path in paths)
        raise DataError(f"There are no rows in {files}.")
    shape = recognise(first, task, text_column, label_column)
    class_names = {column: names for table in tables.values() for column, names in table.class_names.items()}
    only: Mapping[str, str] = {}
    if found.reference is not None:
        only = found.reference.only
        if found.reference.tag_names and "tags" in shape.columns:
            class_names.setdefault(shape.columns["tags"], found.reference.tag_names)
    rows = {split or _UNSPLIT: table.rows for split, table in tables.items()}
    built = build_examples(rows, shape, class_names, labels, only)
    return _Read(shape.task, built.splits, built.labels, built.notes)


def _three_splits(
    given: Mapping[str, list[Example]], validation: float, seed: int
) -> tuple[dict[str, list[Example]], dict[str, Any]]:
    """Return train, validation and test, and notes on those made here."""
    splits = {split: given.get(split, []) for split in SPLITS}
    notes: dict[str, Any] = {}
    asked_of = len(splits["train"])
    if _UNSPLIT in given:
        rows = given[_UNSPLIT]
        asked_of = len(rows)
        splits["train"], splits["test"] = cut(rows, rows_wanted(TEST_FRACTION, asked_of), seed)
        notes["test_from"] = _made("test", splits["test"], asked_of, seed)
    if splits["validation"] or not splits["train"]:
        pass
    elif "validation" in given:
        notes["validation_from"] = "no validation split: none of the source's validation rows could be used"
    elif wanted := rows_wanted(validation, asked_of):
        rows_wanted(wanted, len(splits["train"]))
        splits["train"], splits["validation"] = cut(splits["train"], wanted, seed)
        notes["validation_from"] = _made("validation", splits["validation"], asked_of, seed)
    else:
        notes["validation_from"] = "no validation split: the source has none and none was asked for"
    if not splits["test"]:
        why = "none of its test rows could be used" if "test" in given else "the source has none"
        notes["test_from"] = f"no test split: {why}"
    if not splits["train"]:
        notes["train_from"] = "no training split: the source has none"
    return splits, notes


def _made(split: str, examples: Sequence[Example], available: int, seed: int) -> str:
    return f"{split} split made here: {len(examples):,} of {available:,} rows, seed {seed}, equal texts kept together"


# --- notes


def _skipped_lines(tables: Mapping[str, Table]) -> dict[str, Any]:
    skipped = {split or "all": dict(table.skipped_lines) for split, table in tables.items() if table.skipped_lines}
    return {"skipped_lines": skipped} if skipped else {}


def _label_notes(splits: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Return how often each label occurs in each split, and the labels that train never shows."""
    counts = {split: _label_counts(examples) for split, examples in splits.items()}
    notes: dict[str, Any] = {"label_counts": counts}
    unseen = {
        split: sorted(set(counts[split]) - set(counts["train"]))
        for split in SPLITS[1:]
        if splits["train"] and set(counts[split]) - set(counts["train"])
    }
    return {**notes, "labels_not_in_train": unseen} if unseen else notes


def _label_counts(examples: Sequence[Example]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for example in examples:
        if isinstance(example.target, tuple):
            counts.update(span.label for span in example.target)
        elif example.target is not None:
            counts[example.target] += 1
    return dict(sorted(counts.items()))
