"""The page of documents: every text stays text, every entity is marked, and it can be read anywhere."""

from __future__ import annotations

import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightft.llm_ner.documents import Document
from lightft.llm_ner.files.page import write_page
from lightft.records import Span
from lightft.wording import printable_letters
from tests.browser import Browser
from tests.hostile import HOSTILE

TEXT = "Antonio Kandir visited the Bank of Minas Gerais."
SPANS = (
    Span(0, 14, "PER", score=0.987),
    Span(8, 34, "ODD"),
    Span(27, 47, "ORG", score=0.5),
    Span(35, 47, "LOC", score=0.75),
)


def document(text: str = TEXT, spans: tuple[Span, ...] = SPANS, **settings: Any) -> Document:
    return Document(**{"text": text, "spans": spans, "ungrounded": (), "outcome": "ok", "answers": ("",), **settings})


def page_of(folder: Path, *documents: Any, title: str = "news.jsonl", **settings: Any) -> str:
    return write_page(documents, folder / "page.html", title, **settings).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects the tags, and each text of the data without the names of types, with the marks around each letter."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.marked: list[tuple[str, frozenset[str]]] = []
        self._open: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self._open.append((tag, given.get("title") or given.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open and not any(tag == "style" for tag, _ in self._open):
            self.texts.append(data)
        if ("div", "said") in self._open and all(tag != "b" for tag, _ in self._open):
            marks = frozenset(title for tag, title in self._open if tag == "mark")
            self.marked += [(letter, marks) for letter in data]


def test_entities_are_marked_with_type_and_score(tmp_path: Path) -> None:
    page = page_of(tmp_path, document(spans=SPANS[:1]))
    assert ">Antonio Kandir<b>PER <i>0.99</i></b></mark> visited" in page
    assert 'title="PER, probability 0.987, characters 0 to 14"' in page
    assert "1 documents · 1 entities" in page
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_rows_of_a_file_are_shown_like_documents(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 14, "label": "PER", "text": "Antonio Kandir", "score": 0.987}]
    row = {"id": 1, "text": TEXT, "spans": spans, "outcome": "ok", "ungrounded": []}
    assert page_of(tmp_path, row) == page_of(tmp_path, document(spans=SPANS[:1]))


def test_doubtful_entities_are_marked_as_such_and_counted_apart(tmp_path: Path) -> None:
    page = page_of(tmp_path, document(spans=SPANS[:1], doubtful=SPANS[3:]))
    assert '<mark class="type-1 line-0 doubtful" title="LOC, doubtful, probability 0.750, characters 35 to 47">' in page
    assert ">Minas Gerais<b>LOC? <i>0.75</i></b></mark>." in page
    assert ">Antonio Kandir<b>PER <i>0.99</i></b></mark> visited" in page
    assert "1 documents · 1 entities · 1 doubtful" in page
    assert '<mark class="doubtful">doubtful?</mark> 1</li>' in page
    rows = [
        [{"start": s.start, "end": s.end, "label": s.label, "text": "", "score": s.score} for s in spans]
        for spans in (SPANS[:1], SPANS[3:])
    ]
    row = {"id": 1, "text": TEXT, "spans": rows[0], "outcome": "ok", "ungrounded": [], "doubtful": rows[1]}
    assert page_of(tmp_path, row) == page
    assert "doubtful?" not in page_of(tmp_path, document(spans=SPANS[:1]))


def test_what_was_set_aside_and_what_went_wrong_is_said(tmp_path: Path) -> None:
    ungrounded = tuple(("PER", f"nobody {n}") for n in range(60))
    page = page_of(
        tmp_path,
        document(ungrounded=ungrounded, outcome="ungrounded"),
        document(text="", spans=(), outcome="failed", error="timed <out>"),
    )
    assert "Not in the text: <q>nobody 0</q> PER, " in page
    assert "<q>nobody 49</q> PER, and 10 more." in page
    assert "timed &lt;out&gt;" in page
    assert "The text is empty." in page
    assert "Outcomes: 1 ungrounded, 1 failed." in page


def test_only_the_first_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    page = page_of(
        tmp_path, *[document(text=f"text {n}", spans=(Span(0, 4, f"T{n}"),)) for n in range(9)], most_documents=4
    )
    assert page.count('<div class="said"') == 4
    assert "The first 4 documents are shown; 5 more are counted above." in page
    assert "9 documents · 9 entities" in page
    assert ">T8</mark> 1<" in page


def test_a_long_text_is_cut_behind_an_entity_and_the_page_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path, document(), most_letters=10)
    assert ">Antonio Kandir visited the Bank of<b>ODD</b></mark>" not in page
    assert "Bank of" in page
    assert "Minas" not in page
    assert "14 more characters with 2 entities are not shown." in page


@given(
    st.text(st.sampled_from("ab <>&\"'\n\t\0\u202e\ud800é"), max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20), st.sampled_from(["A", "B<"])), max_size=25),
)
def test_every_letter_has_the_marks_of_the_entities_that_it_stands_in(
    tmp_path_factory: pytest.TempPathFactory, text: str, places: list[tuple[int, int, str]]
) -> None:
    spans = {Span(start, start + length, label) for start, length, label in places if start + length <= len(text)}
    page = page_of(tmp_path_factory.mktemp("page"), document(text, tuple(spans)))
    reader = Reader(page)
    drawn = {title for _, marks in reader.marked for title in marks}
    titles = {span: f"{span.label}, characters {span.start} to {span.end}" for span in spans}
    # Browsers, like this parser, read a carriage return as a line feed; there is none here.
    assert "".join(letter for letter, _ in reader.marked) == printable_letters(text)
    for place, (_, marks) in enumerate(reader.marked):
        around = {titles[span] for span in spans if span.start <= place < span.end}
        assert marks == around & drawn
        assert len(marks) >= min(len(around), 1)
    missing = len(set(titles.values()) - drawn)
    assert ("Inside the entities above" in page) == (missing > 0)


def test_no_hostile_text_becomes_a_tag(tmp_path: Path) -> None:
    harmless = document("x", (Span(0, 1, "X"),), ungrounded=(("X", "x"),), outcome="failed", error="x")
    allowed = set(Reader(page_of(tmp_path, harmless)).tags)
    documents = [
        document(text, (Span(0, len(text), text),), ungrounded=((text, text),), outcome="failed", error=text)
        for text in HOSTILE
    ]
    rows = [
        {"id": one.text, "text": one.text, "spans": [], "outcome": "ok", "ungrounded": [], "error": one.text}
        for one in documents
    ]
    page = page_of(tmp_path, *documents, *rows, title=HOSTILE[0], most_documents=10_000)
    reader = Reader(page)
    assert set(reader.tags) == allowed
    assert reader.tags.count("style") == 1
    assert not any(code in page for code in ("\0", "\u202e", "\x1b"))
    shown = "\n".join(reader.texts)
    assert all(printable_letters(text) in shown for text in HOSTILE if "\r" not in text)


def test_memory_does_not_grow_with_the_number_of_documents(tmp_path: Path) -> None:
    def peak(documents: int) -> int:
        tracemalloc.start()
        write_page(
            (document("word " * 60, ()) for _ in range(documents)), tmp_path / "p.html", "t", most_documents=10**9
        )
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(10)
    # Both fill the buffers; 1,100 documents more have 330 kB of text.
    assert peak(1500) < peak(400) + 100_000


def many_documents() -> list[Document]:
    types = [Span(n * 5, n * 5 + 4, f"TYPE{n}", score=0.9) for n in range(20)]
    return [
        document(),
        document("word " * 20, tuple(types)),
        document("x" * 3000, (Span(0, 2000, "PER"),), ungrounded=(("PER", "y" * 300),), outcome="ungrounded"),
        document("", (), outcome="failed", error="The server at http://localhost:8000 did not answer within 60 s."),
        document("התקיים בירושלים. مرحبا", (Span(8, 15, "LOC", score=0.8),)),
    ]


@pytest.mark.parametrize("width", [1280, 320])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_fits_the_screen_and_nothing_complains(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    page = browser.open(write_page(many_documents(), tmp_path / "page.html", "news"), width=width, dark=dark)
    assert page.run("document.scrollingElement.scrollWidth") <= width
    assert (page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark
    assert page.complaints() == []
    page.close()


def test_types_differ_in_colour_or_line(browser: Browser, tmp_path: Path) -> None:
    page = browser.open(write_page(many_documents(), tmp_path / "page.html", "news"))
    looks = page.run(
        "[...document.querySelectorAll('.legend mark')].map(one => getComputedStyle(one))"
        ".map(style => style.borderBottomColor + style.borderBottomStyle)"
    )
    assert len(set(looks[:21])) == 21
    page.close()
