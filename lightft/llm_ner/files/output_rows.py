"""The rows of an output file, written one by one, and the settings they were made with, which stand beside the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from lightft.errors import DataError
from lightft.llm_ner.digests import digest_of
from lightft.records import Span

__all__ = ["append_row", "claim_settings", "drop_half_line", "rows_of", "size_of", "span_rows", "spans_of_rows"]


def claim_settings(settings: Mapping[str, Any], source: Path, out: Path) -> str:
    """Write the settings beside the output, or check them against those that stand there; return their digest."""
    settings = json.loads(json.dumps(settings))
    digest = digest_of(settings)
    path = out.with_name(f"{out.name}.meta.json")
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content: dict[str, Any] = {
        "provenance": digest,
        "settings": settings,
        "source": source.name,
        "began": began,
        "lightft": [],
    }
    if out.exists():
        content = _described(path, out)
        _check_settings(content["settings"], settings, out)
    if version("lightft") in content["lightft"]:
        return digest
    content["lightft"] = [*content["lightft"], version("lightft")]
    written = path.with_name(f"{path.name}.new")
    written.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(written, path)
    return digest


def _described(path: Path, out: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**described, "settings": dict(described["settings"]), "lightft": list(described["lightft"])}
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise DataError(
            f"{out} exists, but {path.name} does not tell of what settings it is. Choose another out, or delete {out}."
        ) from cause


def _check_settings(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    differing = [
        f"{name} was {json.dumps(before.get(name))} and is now {json.dumps(now.get(name))}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise DataError(
            f"{out} holds documents of other settings: {'; '.join(differing)}. Choose another out, or delete {out}."
        )


def rows_of(path: Path, size: int) -> Iterator[dict[str, Any]]:
    """Yield the rows within the first ``size`` bytes of a file."""
    if not size:
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row: dict[str, Any] = json.loads(line)
                row["text"], row["spans"], row["outcome"], row["ungrounded"]
            except (ValueError, KeyError, TypeError) as cause:
                raise DataError(
                    f"{path}, line {number} is no document that was written here. Restore the file, or delete it."
                ) from cause
            yield row
            size -= len(line)
            if size <= 0:
                return


def span_rows(text: str, spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Return spans as they stand in a row."""
    return [
        {
            "start": span.start,
            "end": span.end,
            "label": span.label,
            "text": text[span.start : span.end],
            "score": None if span.score is None else round(span.score, 6),
        }
        for span in spans
    ]


def spans_of_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[Span, ...]:
    """Return the spans that ``span_rows`` wrote."""
    return tuple(Span(row["start"], row["end"], row["label"], row["text"], row["score"]) for row in rows)


def append_row(file: IO[bytes], row: Mapping[str, Any]) -> None:
    """Write a row as a line, so that it stands in the file at once."""
    try:
        line = json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair has no UTF-8, but an escape in JSON.
        line = json.dumps(row).encode()
    file.write(line + b"\n")
    file.flush()


def drop_half_line(path: Path) -> None:
    """Cut off what stands after the last line end of a file, if there is one: a row that was being written."""
    end = size_of(path)
    if not end:
        return
    with path.open("r+b") as file:
        while end:
            begin = max(0, end - 65536)
            file.seek(begin)
            last = file.read(end - begin).rfind(b"\n")
            end = begin + last + 1
            if last >= 0:
                break
        file.truncate(end)


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
