"""write_page: documents as one HTML file with their entities marked, which opens from disk, on a phone or a desk."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from lightft.llm_ner.documents import Document
from lightft.llm_ner.files.output_rows import spans_of_rows
from lightft.llm_ner.formats import OUTCOMES
from lightft.records import Span
from lightft.wording import printable, printable_letters

__all__ = ["write_page"]

_COLOURS = 7
_DEEPEST = 6
_MOST_MENTIONS = 50


def write_page(
    documents: Iterable[Document | Mapping[str, Any]],
    path: str | Path,
    title: str,
    *,
    most_documents: int = 1000,
    most_letters: int = 20_000,
) -> Path:
    """Write a self-contained page, without script or network, in constant memory.

    Args:
        documents: or rows of a file that ``extract_file`` wrote; all are counted.
        path: of the page.
        title: its heading.
        most_documents: how many are shown.
        most_letters: how much is shown of each text; what is left out is said.

    Returns:
        The path.
    """
    path = Path(path)
    counts = _Counts()
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as body:
        for document in documents:
            shown = _Shown.of(document, counts.documents + 1)
            counts.add(shown)
            if counts.documents <= most_documents:
                body.writelines(_document(shown, counts, most_letters))
        body.seek(0)
        with path.open("w", encoding="utf-8", newline="\n") as page:
            _write_head(page, title, counts, most_documents)
            shutil.copyfileobj(body, page)
            page.write("</ol>\n</body>\n</html>\n")
    return path


class _Entity(NamedTuple):
    span: Span
    is_doubtful: bool

    @property
    def title(self) -> str:
        doubt = ", doubtful" if self.is_doubtful else ""
        scored = "" if self.span.score is None else f", probability {self.span.score:.3f}"
        return f"{_words(self.span.label)}{doubt}{scored}, characters {self.span.start:,} to {self.span.end:,}"


@dataclass(frozen=True)
class _Shown:
    id: str
    text: str
    entities: tuple[_Entity, ...]
    ungrounded: Sequence[tuple[str, str]]
    outcome: str
    error: str

    @classmethod
    def of(cls, document: Document | Mapping[str, Any], number: int) -> _Shown:
        if isinstance(document, Document):
            name, text, error = str(number), document.text, document.error
            spans, doubtful = document.spans, document.doubtful
            ungrounded: Sequence[tuple[str, str]] = document.ungrounded
            outcome = document.outcome
        else:
            name, text, error = str(document["id"]), document["text"], document.get("error", "")
            spans, doubtful = spans_of_rows(document["spans"]), spans_of_rows(document.get("doubtful", ()))
            ungrounded = [(label, mention) for label, mention in document["ungrounded"]]
            outcome = document["outcome"]
        entities = [_Entity(span, False) for span in spans] + [_Entity(span, True) for span in doubtful]
        entities.sort(key=lambda one: (one.span.start, -one.span.end, one.span.label))
        return cls(name, text, tuple(entities), ungrounded, outcome, error)


@dataclass
class _Counts:
    documents: int = 0
    doubtful: int = 0
    types: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, document: _Shown) -> None:
        self.documents += 1
        self.outcomes[document.outcome] += 1
        for span, is_doubtful in document.entities:
            self.doubtful += is_doubtful
            self.types[span.label] += not is_doubtful
            self.numbers.setdefault(span.label, len(self.numbers))

    def style(self, label: str) -> str:
        """Return the classes of a type: its colour, and another line where the colours begin again."""
        number = self.numbers.setdefault(label, len(self.numbers))
        return f"type-{number % _COLOURS} line-{number // _COLOURS % 3}"


def _write_head(page: TextIO, title: str, counts: _Counts, most_documents: int) -> None:
    counted = [f"{counts.documents:,} documents", f"{counts.types.total():,} entities"]
    counted += [f"{counts.doubtful:,} doubtful"] if counts.doubtful else []
    page.write(
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{_words(title)}: entities</title>\n<style>\n{_shared_style()}\n{_STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<p class="eyebrow">{" · ".join(counted)}</p>\n'
        f"<h1>{_words(title)}</h1>\n"
    )
    legend = [
        f'<li><mark class="{counts.style(label)}">{_words(label)}</mark> {count:,}</li>'
        for label, count in counts.types.most_common()
    ]
    if counts.doubtful:
        legend.append(f'<li><mark class="doubtful">doubtful?</mark> {counts.doubtful:,}</li>')
    page.write(f'<ul class="legend" aria-label="Types">\n{"".join(legend)}\n</ul>\n' if legend else "")
    outcomes = [f"{counts.outcomes[name]:,} {name}" for name in OUTCOMES if name in counts.outcomes]
    page.write(f'<p class="caption">Outcomes: {", ".join(outcomes) or "none"}.</p>\n')
    if counts.documents > most_documents:
        page.write(
            f'<p class="warning" role="note">The first {most_documents:,} documents are shown; '
            f"{counts.documents - most_documents:,} more are counted above.</p>\n"
        )
    page.write('</header>\n<ol class="examples">\n')


def _document(document: _Shown, counts: _Counts, most_letters: int) -> Iterator[str]:
    outcome = "" if document.outcome == "ok" else f' <b class="outcome">{_words(document.outcome)}</b>'
    yield f'<li>\n<p class="head"><span>{_words(document.id)}</span>{outcome}</p>\n'
    entities, too_deep = _within_depth(document.entities)
    end = min(len(document.text), most_letters)
    # An entity that the end of what is shown lies in is shown whole.
    end = max([end, *(span.end for span, _ in entities if span.start < end)])
    shown = [one for one in entities if one.span.end <= end]
    if document.text:
        yield f'<div class="said" dir="auto">{"".join(_marked(document.text, end, shown, counts))}</div>\n'
    else:
        yield '<p class="missed">The text is empty.</p>\n'
    if end < len(document.text):
        yield (
            f'<p class="missed">{len(document.text) - end:,} more characters with {len(entities) - len(shown):,} entities '
            "are not shown.</p>\n"
        )
    yield from _listed(
        "Inside the entities above", [(span.label, document.text[span.start : span.end]) for span, _ in too_deep]
    )
    yield from _listed("Not in the text", document.ungrounded)
    if document.error:
        yield f'<p class="missed"><b class="outcome">error</b> {_words(document.error)}</p>\n'
    yield "</li>\n"


def _listed(what: str, mentions: Sequence[tuple[str, str]]) -> Iterator[str]:
    if mentions:
        shown = ", ".join(f"<q>{_words(mention)}</q> {_words(label)}" for label, mention in mentions[:_MOST_MENTIONS])
        more = f", and {len(mentions) - _MOST_MENTIONS:,} more" if len(mentions) > _MOST_MENTIONS else ""
        yield f'<p class="missed">{what}: {shown}{more}.</p>\n'


def _within_depth(entities: Sequence[_Entity]) -> tuple[list[_Entity], list[_Entity]]:
    """Return the entities that lie at most so deep in one another that a reader can tell them apart, and the others."""
    drawn: list[_Entity] = []
    too_deep: list[_Entity] = []
    around: list[Span] = []
    for entity in entities:
        around = [outer for outer in around if outer.end > entity.span.start]
        if len(around) < _DEEPEST:
            around.append(entity.span)
            drawn.append(entity)
        else:
            too_deep.append(entity)
    return drawn, too_deep


def _marked(text: str, end: int, entities: Sequence[_Entity], counts: _Counts) -> Iterator[str]:
    """Yield a text with a mark around each entity; of two that cross, the later is drawn in two pieces."""
    beginning: dict[int, list[_Entity]] = defaultdict(list)
    for entity in entities:
        beginning[entity.span.start].append(entity)
    edges = sorted({0, end, *(span.start for span, _ in entities), *(span.end for span, _ in entities)})
    still_open: list[_Entity] = []
    for start, stop in pairwise(edges):
        for entity in beginning[start]:
            # The longest first, so that what crosses nothing is never cut.
            still_open.append(entity)
            yield _opening(entity, counts, "")
        yield escape(printable_letters(text[start:stop]))
        first = next((place for place, (span, _) in enumerate(still_open) if span.end == stop), len(still_open))
        going_on = [entity for entity in still_open[first:] if entity.span.end != stop]
        for entity in reversed(still_open[first:]):
            yield _label(entity) if entity.span.end == stop else ""
            yield "</mark>"
        still_open[first:] = going_on
        for entity in going_on:
            yield _opening(entity, counts, " goes-on")


def _opening(entity: _Entity, counts: _Counts, piece: str) -> str:
    doubt = " doubtful" if entity.is_doubtful else ""
    return f'<mark class="{counts.style(entity.span.label)}{doubt}{piece}" title="{entity.title}">'


def _label(entity: _Entity) -> str:
    # The question mark tells of the doubt where no colour or line can.
    doubt = "?" if entity.is_doubtful else ""
    score = "" if entity.span.score is None else f" <i>{entity.span.score:.2f}</i>"
    return f"<b>{_words(entity.span.label)}{doubt}{score}</b>"


def _words(text: str) -> str:
    return escape(printable(text))


def _shared_style() -> str:
    # The look of the reports, found without importing what draws them.
    return files("lightft").joinpath("reports", "page.css").read_text(encoding="utf-8")


_STYLE = """\
.legend { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; list-style: none; margin: 0 0 .8rem; padding: 0; }
.legend mark { font-weight: 600; font-size: .9rem; }
.examples { margin-top: 2rem; }
.examples .said { max-width: 46rem; line-height: 2.1; }
.examples .missed { margin: .35rem 0 0; max-width: 46rem; }
.outcome { color: var(--wrong); font-weight: 600; }
mark b { white-space: nowrap; }
mark i { font-style: normal; font-weight: 400; color: var(--muted); font-variant-numeric: tabular-nums; }
mark mark { border-radius: .15rem; }
mark:has(mark) { padding-bottom: .32em; }
mark:has(mark mark) { padding-bottom: .56em; }
mark.doubtful { margin: 0 .15em; background: none; outline: 1px dashed var(--type); outline-offset: 1px; }
mark.goes-on { border-top-left-radius: 0; border-bottom-left-radius: 0; padding-left: 0; }
.line-1 { border-bottom-style: dashed; }
.line-2 { border-bottom-style: double; border-bottom-width: 4px; }
@media print {
  mark { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .examples > li { break-inside: auto; }
  .examples .head { break-after: avoid; }
}
"""
