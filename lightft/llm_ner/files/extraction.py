"""extract_file: the entities of a file of texts of any size, line by line, to be stopped and gone on with at any time."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tqdm.auto import tqdm

from lightft.errors import DataError, EngineError
from lightft.llm_ner.documents import Document
from lightft.llm_ner.files.output_rows import append_row, claim_settings, drop_half_line, rows_of, size_of, span_rows
from lightft.llm_ner.files.page import write_page
from lightft.llm_ner.files.sources import OUTPUT_FIELDS, SUFFIXES, SourceLine, read_source
from lightft.llm_ner.formats import OUTCOMES

__all__ = ["FileResult", "TextExtractor", "extract_file"]

_ANSWERED = frozenset(OUTPUT_FIELDS) - {"id", "text"}


class TextExtractor(Protocol):
    """What finds the entities of texts, such as ``LLMNERExtractor``."""

    def extract(self, texts: Iterable[str]) -> Iterator[Document]:
        """Yield one document per text, in order; texts are read as the documents are, a bounded number ahead."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """Return what decides the answers, as plain JSON data."""
        ...


@dataclass(frozen=True)
class FileResult:
    """What a file of documents holds.

    Attributes:
        path: the file.
        documents: how many there are.
        spans: how many entities.
        doubtful: how many entities are not sure enough for the precision that was asked for.
        ungrounded: how many mentions were set aside.
        outcomes: how many documents of each outcome, those of bad lines among the failed.
        kept: documents that were finished before.
        bad_lines: lines of the source without a text that can be read; each is a document with the reason.
        blank_lines: lines of a JSONL source with nothing in them; they are no documents.
    """

    path: Path
    documents: int = 0
    spans: int = 0
    doubtful: int = 0
    ungrounded: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    kept: int = 0
    bad_lines: int = 0
    blank_lines: int = 0

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in self.outcomes.items())
        facts = [
            f"{self.documents:,} documents{f' ({outcomes})' if outcomes else ''}",
            f"{self.spans:,} entities",
            f"{self.doubtful:,} doubtful entities" if self.doubtful else "",
            f"{self.ungrounded:,} mentions set aside" if self.ungrounded else "",
            f"{self.kept:,} documents kept from before" if self.kept else "",
            f"{self.bad_lines:,} lines could not be read" if self.bad_lines else "",
            f"{self.blank_lines:,} blank lines passed over" if self.blank_lines else "",
        ]
        return f"{self.path}: {', '.join(fact for fact in facts if fact)}"


def extract_file(
    extractor: TextExtractor,
    source: str | Path,
    out: str | Path,
    *,
    text_field: str = "text",
    html: str | Path | None = None,
    progress: bool = True,
) -> FileResult:
    """Write the entities of each text of a file, in constant memory; when stopped, the same call goes on.

    ``out`` gets a row for each document, in the order of the source: ``id`` (that of the source, else the number of its
    line), ``text``, ``spans`` (``start``, ``end``, ``label``, ``text``, ``score``), ``outcome``, ``ungrounded``,
    ``doubtful`` and ``error`` where there are any, and all other fields of the source. A field that is called like one of
    these gets ``source.`` before its name. Settings stand once in ``OUT.meta.json``, and every row has their digest as
    ``provenance``, so that a row which got away from its file still says where it is from.

    What is finished is kept and not asked again, but for rows whose outcome is ``failed``. Those are asked again when all
    others are done, into ``OUT.redo``, which then takes the place of ``out``.

    Args:
        extractor: an ``LLMNERExtractor``, or anything with its ``extract`` and ``settings``.
        source: JSONL (an object per line) or TXT (a text per line), in UTF-8, perhaps gzipped.
        out: a file whose name ends in ``.jsonl``.
        text_field: the field of a JSONL source that holds the text.
        html: where to write a page with the entities of the first documents marked.
        progress: whether to show how much of the source is done.

    Raises:
        DataError: the source cannot be read, or ``out`` holds documents of other settings or of another source.
        EngineError: the extractor could not go on; what is finished stays.
    """
    source, out = Path(source), Path(out)
    _check_paths(source, out)
    redo = out.with_name(f"{out.name}.redo")
    if not out.exists():
        redo.unlink(missing_ok=True)
    job = _Job(extractor, source, text_field, claim_settings(extractor.settings(), source, out), progress)
    tallies: list[_Tally] = []
    try:
        if not redo.exists():
            tallies.append(job.extend(out))
        while not tallies or tallies[-1].failed_before:
            tallies.append(job.extend(redo, older=out))
            os.replace(redo, out)
    except EngineError as error:
        raise EngineError(
            f"{str(error).rstrip('.')}. What is finished stays in {out}; run the same command again to go on."
        ) from error
    if html is not None:
        write_page(rows_of(out, size_of(out)), html, title=out.name)
    return tallies[-1].result(out, kept=tallies[0].kept)


@dataclass
class _Tally:
    outcomes: Counter[str] = field(default_factory=Counter)
    spans: int = 0
    doubtful: int = 0
    ungrounded: int = 0
    kept: int = 0
    failed_before: int = 0
    bad_lines: int = 0
    blank_lines: int = 0

    def count(self, step: _Step, row: Mapping[str, Any]) -> None:
        is_kept = step.before is not None
        self.outcomes[row["outcome"]] += 1
        self.spans += len(row["spans"])
        self.doubtful += len(row.get("doubtful", ()))
        self.ungrounded += len(row["ungrounded"])
        self.bad_lines += bool(step.line.error)
        self.kept += is_kept and row["outcome"] != "failed"
        self.failed_before += is_kept and row["outcome"] == "failed" and not step.line.error

    def result(self, path: Path, kept: int) -> FileResult:
        return FileResult(
            path=path,
            documents=self.outcomes.total(),
            spans=self.spans,
            doubtful=self.doubtful,
            ungrounded=self.ungrounded,
            outcomes={outcome: self.outcomes[outcome] for outcome in OUTCOMES if outcome in self.outcomes},
            kept=kept,
            bad_lines=self.bad_lines,
            blank_lines=self.blank_lines,
        )


class _Step(NamedTuple):
    """A line of the source, its row where one is kept, and whether that stands in the output already."""

    line: SourceLine
    before: dict[str, Any] | None
    is_in_place: bool


@dataclass(frozen=True)
class _Job:
    extractor: TextExtractor
    source: Path
    text_field: str
    provenance: str
    progress: bool

    def extend(self, out: Path, older: Path | None = None) -> _Tally:
        """Append the rows that ``out`` lacks, taken from ``older`` where they are finished there, and count all."""
        drop_half_line(out)
        size_before = size_of(out)
        # Two readers of the same files: the extractor reads ahead, and rows between its texts need not wait in memory.
        steps = self._steps(out, size_before, older)
        texts = (
            _encodable(step.line.fields["text"])
            for step, _ in self._steps(out, size_before, older)
            if step is not None and step.before is None and not step.line.error
        )
        documents = iter(self.extractor.extract(texts))
        tally = _Tally()
        size = self.source.stat().st_size
        with (
            out.open("ab") as file,
            tqdm(total=size, unit="B", unit_scale=True, desc=self.source.name, disable=not self.progress) as bar,
        ):
            for step, position in steps:
                if step is None:
                    tally.blank_lines += 1
                else:
                    row = step.before or self._row(step.line, documents)
                    tally.count(step, row)
                    if not step.is_in_place:
                        append_row(file, row)
                bar.update(position - bar.n)
        return tally

    def _steps(self, out: Path, size: int, older: Path | None) -> Iterator[tuple[_Step | None, int]]:
        """Yield what is to be done with each line, None with a blank one, and the bytes of the source up to there."""
        placed, old = rows_of(out, size), iter(()) if older is None else rows_of(older, size_of(older))
        for line, position in read_source(self.source, self.text_field):
            if line is None:
                yield None, position
                continue
            in_place, in_older = next(placed, None), next(old, None)
            finished = in_older if in_older is not None and in_older["outcome"] != "failed" else None
            before = in_place or finished
            if before is not None and before["outcome"] != "failed":
                self._check(line, before, older or out)
            yield _Step(line, before, in_place is not None), position
        if next(placed, None) is not None or next(old, None) is not None:
            raise DataError(
                f"{out} has more documents than {self.source}, so that it was made from another source. Choose another "
                f"out, or delete {out}."
            )

    def _check(self, line: SourceLine, row: Mapping[str, Any], out: Path) -> None:
        """Refuse a finished row that is of other settings or another text."""
        given = {name: json.dumps(value) for name, value in row.items() if name not in _ANSWERED}
        now = {name: json.dumps(value) for name, value in line.fields.items()}
        changed = [repr(name) for name in {**given, **now} if given.get(name) != now.get(name)]
        if row.get("provenance") != self.provenance:
            changed = ["the settings"]
        if changed:
            raise DataError(
                f"{out} holds another document than line {line.number} of {self.source}: {', '.join(changed)} changed. "
                f"Choose another out, or delete {out}."
            )

    def _row(self, line: SourceLine, documents: Iterator[Document]) -> dict[str, Any]:
        text = line.fields["text"]
        document = Document(text, (), (), "failed", (), line.error) if line.error else next(documents)
        return {
            **line.fields,
            "spans": span_rows(text, document.spans),
            "outcome": document.outcome,
            "ungrounded": [list(pair) for pair in document.ungrounded],
            **({"doubtful": span_rows(text, document.doubtful)} if document.doubtful else {}),
            **({"error": document.error} if document.error else {}),
            "provenance": self.provenance,
        }


def _check_paths(source: Path, out: Path) -> None:
    if not source.is_file():
        raise DataError(f"There is no file {source}. Check the path.")
    if not source.name.lower().endswith(SUFFIXES):
        raise DataError(f"{source} is in no format known here. Its name should end in one of {', '.join(SUFFIXES)}.")
    if not out.name.endswith(".jsonl"):
        raise DataError(f"{out} should end in .jsonl: documents are written one per line as JSON.")
    if out.resolve() == source.resolve():
        raise DataError(f"{out} is the source itself. Choose another out.")
    out.parent.mkdir(parents=True, exist_ok=True)


def _encodable(text: str) -> str:
    """Return a text of the same length that every tokenizer takes: without halves of surrogate pairs."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
