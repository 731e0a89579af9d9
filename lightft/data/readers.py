"""Files of rows: JSONL, JSON, CSV, TSV, CoNLL columns and Parquet, each perhaps gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lightft.errors import DataError

__all__ = ["FORMATS", "Row", "Table", "data_suffix", "read_table"]


class Row(NamedTuple):
    """One row as the file holds it, with its place for messages: ``"data/train.jsonl, line 7"``."""

    place: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of one file.

    Attributes:
        rows: in the file's order.
        class_names: by column, the names of its numbered classes or tags.
        skipped_lines: how many lines hold no data, by kind.
    """

    rows: Sequence[Row]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped_lines: Mapping[str, int] = field(default_factory=dict)


def data_suffix(name: str) -> str | None:
    """Return the suffix that tells the format (``".jsonl"`` for ``train.jsonl.gz``), None where no format is known."""
    suffix = Path(name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in FORMATS else None


def read_table(path: Path) -> Table:
    """Read all rows of one file; its suffix tells the format.

    Raises:
        DataError: the file is missing, of no known format, or not readable in its format.
    """
    suffix = data_suffix(path.name)
    if suffix is None:
        raise DataError(
            f"{path} is in no format known here. Its name should end in one of {', '.join(FORMATS)} (or .gz)."
        )
    if not path.is_file():
        raise DataError(f"There is no file {path}. Check the path, or name the folder that holds the splits.")
    if suffix == ".parquet":
        return _read_parquet(path)
    text = _read_text(path)
    if suffix == ".tsv" and _looks_like_tagged_columns(text):
        return _read_conll(path, text)
    return _TEXT_READERS[suffix](path, text)


# --- text formats


def _read_text(path: Path) -> str:
    try:
        data = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error) as cause:
        raise DataError(f"{path} cannot be read: {cause}. Copy or download it again.") from cause
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = data[: cause.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: byte {data[cause.start]:#04x} is not UTF-8. Save the file as UTF-8 "
            "(for instance: iconv -f latin1 -t utf-8)."
        ) from cause


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): words may hold the rarer line separators of Unicode.
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def _read_jsonl(path: Path, text: str) -> Table:
    rows = []
    for number, line in _lines(text):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                rows.append(_object_row(place, json.loads(line)))
            except json.JSONDecodeError as cause:
                raise DataError(f"{place}: no valid JSON ({cause.msg} at character {cause.pos + 1}).") from cause
    return Table(rows)


def _read_json(path: Path, text: str) -> Table:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as cause:
        if cause.msg == "Extra data":
            return _read_jsonl(path, text)
        raise DataError(
            f"{path}, line {cause.lineno}: no valid JSON ({cause.msg} at character {cause.colno})."
        ) from cause
    if isinstance(content, dict):
        return Table([_object_row(f"{path}, row 1", content)])
    if not isinstance(content, list):
        raise DataError(
            f"{path} holds JSON of type {type(content).__name__}; a list of objects is read, one for each row."
        )
    return Table([_object_row(f"{path}, row {number}", row) for number, row in enumerate(content, start=1)])


def _object_row(place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise DataError(
            f"{place}: a JSON object with named fields is expected, this is of type {type(value).__name__}."
        )
    return Row(place, value)


def _read_csv(path: Path, text: str) -> Table:
    return _read_cells(path, csv.reader(io.StringIO(text, newline=""), strict=True))


def _read_tsv(path: Path, text: str) -> Table:
    # Tab-separated files are written without quoting; a lone quotation mark would swallow the lines after it.
    return _read_cells(path, csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))


def _read_cells(path: Path, reader: Any) -> Table:
    rows = []
    try:
        header: list[str] = next(reader, [])
        if len(set(header)) != len(header):
            raise DataError(f"{path}, line 1: two columns have the same name ({', '.join(header)}). Rename one.")
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{place}: {len(cells)} cells where the header names {len(header)} columns ({', '.join(header)})."
                )
            rows.append(Row(place, dict(zip(header, cells, strict=True))))
    except csv.Error as cause:
        raise DataError(f"{path}, line {reader.line_num}: {cause}.") from cause
    return Table(rows)


# --- CoNLL columns

_TAG = re.compile(r"O|[BIESLUM](-.+)?")

_COMMENT = re.compile(r"#\s*(id\s|\S+\s*=)")


class _Line(NamedTuple):
    number: int
    columns: list[str]


def _read_conll(path: Path, text: str) -> Table:
    sentences, skipped = _conll_sentences(text)
    if not sentences:
        return Table([], skipped_lines=skipped)
    _check_columns(path, sentences)
    word_column, tag_column = _word_and_tag_column(sentences)
    rows = []
    for sentence in sentences:
        tokens = [line.columns[word_column] for line in sentence]
        tags = [line.columns[tag_column] for line in sentence]
        rows.append(Row(f"{path}, line {sentence[0].number}", {"tokens": tokens, "ner_tags": tags}))
    return Table(rows, skipped_lines=skipped)


def _conll_sentences(text: str) -> tuple[list[list[_Line]], dict[str, int]]:
    tabs = any("\t" in line.strip() for line in text.split("\n", 200)[:200])
    sentences: list[list[_Line]] = [[]]
    skipped: Counter[str] = Counter()
    for number, line in _lines(text):
        if not line.strip(" \t"):
            sentences.append([])
        elif line.startswith("-DOCSTART-"):
            skipped["-DOCSTART-"] += 1
            sentences.append([])
        elif not sentences[-1] and _is_comment(line, tabs):
            skipped["comments"] += 1
        else:
            columns = line.rstrip(" \t").split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))
            sentences[-1].append(_Line(number, columns))
    return [sentence for sentence in sentences if sentence], dict(skipped)


def _is_comment(line: str, tabs: bool) -> bool:
    """Whether a line before a sentence speaks about it; ``#`` is also a word of tweets, with a tag after it."""
    return line.startswith("#") and (bool(_COMMENT.match(line)) or (tabs and "\t" not in line))


def _check_columns(path: Path, sentences: Sequence[Sequence[_Line]]) -> None:
    first = sentences[0][0]
    for sentence in sentences:
        for number, columns in sentence:
            if len(columns) < 2:
                raise DataError(
                    f"{path}, line {number}: one column, where a word and its tag are expected, separated by a tab or "
                    "spaces. An empty line ends a sentence."
                )
            if len(columns) != len(first.columns):
                raise DataError(
                    f"{path}, line {number}: {len(columns)} columns, where line {first.number} has "
                    f"{len(first.columns)}. A word with a space in it needs tabs between the columns."
                )


def _word_and_tag_column(sentences: Sequence[Sequence[_Line]]) -> tuple[int, int]:
    """Return where word and tag stand: first and last, or after a column that numbers the words of each sentence."""
    numbered = len(sentences[0][0].columns) >= 3 and all(
        line.columns[0] == str(position) for sentence in sentences for position, line in enumerate(sentence, start=1)
    )
    if not numbered:
        return 0, -1
    for column in range(2, len(sentences[0][0].columns)):
        if all(_TAG.fullmatch(line.columns[column]) for sentence in sentences for line in sentence):
            return 1, column
    return 1, -1


def _looks_like_tagged_columns(text: str) -> bool:
    """Whether a .tsv holds CoNLL columns: its first line ends in a tag, where a table has a column's name."""
    sentences, _ = _conll_sentences("\n".join(text.split("\n", 200)[:200]))
    return bool(sentences) and bool(_TAG.fullmatch(sentences[0][0].columns[-1])) and len(sentences[0][0].columns) > 1


# --- Parquet


def _read_parquet(path: Path) -> Table:
    import pyarrow  # type: ignore[import-untyped,unused-ignore]
    import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as cause:
        raise DataError(f"{path} is no readable Parquet file: {cause}. Copy or download it again.") from cause
    rows = [Row(f"{path}, row {number}", fields) for number, fields in enumerate(table.to_pylist(), start=1)]
    return Table(rows, class_names=_class_names(table.schema.metadata or {}))


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of ``ClassLabel`` columns, which the datasets library leaves in the Parquet schema."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = {}
    for column, feature in features.items():
        # A column of lists is {"feature": {…}, "_type": "List" or "Sequence"}, or in old files a list of one.
        inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            names[column] = tuple(inner["names"])
    return names


_TEXT_READERS = {
    ".bio": _read_conll,
    ".conll": _read_conll,
    ".csv": _read_csv,
    ".iob": _read_conll,
    ".iob2": _read_conll,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".tsv": _read_tsv,
    ".txt": _read_conll,
}

FORMATS = (*sorted(_TEXT_READERS), ".parquet")
"""The suffixes of the formats that can be read."""
