"""The texts of a file, one line at a time: JSONL with an object per line, or a text per line."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightft.errors import DataError

__all__ = ["OUTPUT_FIELDS", "SUFFIXES", "SourceLine", "read_source"]

SUFFIXES = (".jsonl", ".txt", ".jsonl.gz", ".txt.gz")
"""How the name of a source ends."""

OUTPUT_FIELDS = ("id", "text", "spans", "outcome", "ungrounded", "doubtful", "error", "provenance")
"""The fields of a document in the output; a field of the source that is called so gets ``source.`` before its name."""


@dataclass(frozen=True)
class SourceLine:
    """A line of a source.

    Attributes:
        number: of the line, from 1.
        fields: ``id``, ``text`` and all that is carried along, as they stand in the output.
        error: why no text can be read; empty where one can.
    """

    number: int
    fields: Mapping[str, Any]
    error: str = ""


def read_source(path: Path, text_field: str = "text") -> Iterator[tuple[SourceLine | None, int]]:
    """Yield each line of a source, None for a blank line of JSONL, and how many bytes of the file were read so far.

    Raises:
        DataError: the file is no UTF-8 text, or its compression is damaged.
    """
    is_plain = path.name.lower().removesuffix(".gz").endswith(".txt")
    for number, (line, position) in enumerate(_lines(path), start=1):
        if is_plain:
            yield _plain_line(number, line), position
        else:
            yield (_object_line(number, line, text_field) if line.strip() else None), position


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    with path.open("rb") as file:
        unpacked: Iterable[bytes] = gzip.GzipFile(fileobj=file) if path.name.lower().endswith(".gz") else file
        try:
            for number, line in enumerate(unpacked):
                if number == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise DataError(f"{path} is UTF-16. Save it as UTF-8 (for instance: iconv -f utf-16 -t utf-8).")
                yield line.removeprefix(codecs.BOM_UTF8) if number == 0 else line, file.tell()
        except (gzip.BadGzipFile, EOFError, zlib.error) as cause:
            raise DataError(f"{path} cannot be unpacked to its end: {cause}. Copy or download it again.") from cause


def _plain_line(number: int, line: bytes) -> SourceLine:
    content = line.removesuffix(b"\n").removesuffix(b"\r")
    try:
        return SourceLine(number, {"id": number, "text": content.decode()})
    except UnicodeDecodeError as cause:
        return _bad_line(number, f"byte {content[cause.start]:#04x} is not UTF-8")


def _object_line(number: int, line: bytes, text_field: str) -> SourceLine:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as cause:
        return _bad_line(number, f"byte {line[cause.start]:#04x} is not UTF-8")
    except json.JSONDecodeError as cause:
        return _bad_line(number, f"no valid JSON ({cause.msg} at character {cause.pos + 1})")
    except (RecursionError, ValueError) as cause:
        return _bad_line(number, f"no JSON that can be read ({cause})")
    if not isinstance(row, dict):
        return _bad_line(number, f"JSON of type {type(row).__name__} and not an object")
    text = row.get(text_field)
    if isinstance(text, str):
        return SourceLine(number, _carried(number, row, text_field))
    given = f"{text_field!r} is of type {type(text).__name__}" if text_field in row else f"no field {text_field!r}"
    problem = f"{given}, and a text is needed; the fields are {', '.join(map(repr, row)) or 'none'}"
    return _bad_line(number, problem, _carried(number, {**row, text_field: ""}, text_field))


def _carried(number: int, row: Mapping[str, Any], text_field: str) -> dict[str, Any]:
    given_id = row.get("id")
    fields = {"id": number if given_id is None else given_id, "text": row[text_field]}
    for name, value in row.items():
        if name in ("id", text_field):
            continue
        carried = name
        while carried in OUTPUT_FIELDS or carried in fields:
            carried = f"source.{carried}"
        fields[carried] = value
    return fields


def _bad_line(number: int, problem: str, fields: Mapping[str, Any] | None = None) -> SourceLine:
    return SourceLine(number, fields or {"id": number, "text": ""}, f"line {number} of the source: {problem}")
