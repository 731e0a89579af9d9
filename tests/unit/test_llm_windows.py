"""Long texts: every window is readable, and together they say what one reader of the whole text would."""

from __future__ import annotations

import re
import time
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightft.errors import InvalidSettingError
from lightft.llm_ner.documents import Document
from lightft.llm_ner.windows import merged, windows_of
from lightft.records import Span

PROSE = st.text(st.sampled_from("ab1 .,\n。中é\u0301\r👍🏽\u200d\ud83d\ude00"), max_size=300)
WORDS = st.lists(st.sampled_from(["the", "<12>", "end.", "<345 6>", "a\n", "<7>", "中文。", "x" * 50]), max_size=120)
SIZES = st.integers(1, 40).flatmap(lambda words: st.tuples(st.just(words), st.integers(0, words // 2)))


def words_in(text: str) -> int:
    return sum(-(-len(run) // 16) for run in text.split()) + sum(len(run) // 16 for run in re.findall(r"\s+", text))


def find_digits(text: str) -> Document:
    spans = tuple(Span(*match.span(), "NUMBER", text=match[0]) for match in re.finditer(r"<[\d ]+>", text))
    return Document(text, spans, (), "ok", (f"{len(spans)} found",))


def found_in_windows(text: str, words: int, overlap: int) -> Document:
    bounds = windows_of(text, words, overlap)
    return merged(text, bounds, [find_digits(text[start:end]) for start, end in bounds])


def test_a_text_that_fits_is_one_window() -> None:
    assert windows_of("", 5, 2) == [(0, 0)]
    assert windows_of(" one two three ", 3, 1) == [(0, 15)]


def test_windows_end_after_sentences_and_begin_with_sentences() -> None:
    text = "One two three. " * 20
    parts = [text[start:end] for start, end in windows_of(text, 24, 3)]
    assert len(parts) > 2
    assert all(part.startswith("One") and part.endswith(". ") for part in parts)


def test_without_sentences_lines_are_kept_whole() -> None:
    text = "one two three\n" * 20
    parts = [text[start:end] for start, end in windows_of(text, 24, 3)]
    assert all(part.startswith("one") and part.endswith("\n") for part in parts)


def test_an_abbreviation_ends_no_sentence() -> None:
    text = "word " * 19 + "approx. ten " + "word " * 40
    assert not text[: windows_of(text, 24, 0)[0][1]].endswith("approx. ")


@pytest.mark.parametrize(("words", "overlap"), [(0, 0), (-3, 0), (10, 6), (10, -1), (1, 1)])
def test_sizes_that_cannot_be_are_refused(words: int, overlap: int) -> None:
    with pytest.raises(InvalidSettingError, match="from 0 to half of a window"):
        windows_of("a b c", words, overlap)


@given(PROSE | WORDS.map(" ".join), SIZES)
@example("1 🏽", (1, 0))
def test_windows_cover_the_text_move_on_and_are_small(text: str, sizes: tuple[int, int]) -> None:
    words, overlap = sizes
    bounds = windows_of(text, words, overlap)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == len(text)
    for (start, end), (next_start, next_end) in pairwise(bounds):
        assert start < next_start <= end < next_end
    for start, end in bounds:
        # Marks that belong to the last character, at most 30, may come on top.
        assert words_in(text[start : max(start, end - 30)]) <= words


@given(PROSE, SIZES)
def test_no_character_is_cut_in_two(text: str, sizes: tuple[int, int]) -> None:
    for place in {place for bounds in windows_of(text, *sizes) for place in bounds} - {0, len(text)}:
        before, after = text[place - 1 : place + 1]
        around = text[max(0, place - 31) : place + 31]
        if all(not unicodedata.combining(letter) and letter != "\u200d" for letter in around):
            assert not (before == "\ud83d" and after == "\ude00")
            assert not (before == "👍" and after == "🏽")
        if len(re.sub(r"[^\u0301\u200d]", "", around)) < 10:
            assert not unicodedata.combining(after)
            assert "\u200d" not in (before, after)


@given(WORDS.map(" ".join), st.integers(8, 60))
@example("a <345 6> " * 30, 8)
def test_what_is_shorter_than_the_overlap_is_found_once_wherever_it_stands(text: str, words: int) -> None:
    # "<345 6>" is two words of seven characters, and two more make sure of what a short overlap shows of it.
    document = found_in_windows(text, words, max(4, words // 3))
    assert document.spans == find_digits(text).spans
    assert all(text[span.start : span.end] == span.text for span in document.spans)


@given(PROSE, SIZES, st.lists(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30))), max_size=60), st.data())
def test_spans_of_different_windows_never_cross_or_double(
    text: str, sizes: tuple[int, int], places: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    bounds = windows_of(text, *sizes)
    said: list[set[Span]] = []
    documents = []
    for place, (start, end) in enumerate(bounds):
        given_places = places[place] if place < len(places) else []
        spans = {
            Span(first, first + length, data.draw(st.sampled_from("AB")))
            for first, length in given_places
            if first + length <= end - start
        }
        said.append({Span(span.start + start, span.end + start, span.label) for span in spans})
        outcome = data.draw(st.sampled_from(["ok", "truncated"]))
        documents.append(Document(text[start:end], tuple(sorted(spans)), (), outcome, ("",)))
    spans = merged(text, bounds, documents).spans
    assert set(spans) <= set().union(*said)
    assert len(set(spans)) == len(spans)
    for one in spans:
        for other in spans:
            crossing = one.start < other.start < one.end < other.end
            if crossing or (one != other and (one.start, one.end) == (other.start, other.end)):
                assert any({one, other} <= spans_of_one for spans_of_one in said)
    # What only one window shows whole, and nothing overlaps, stays.
    everything = set().union(*said)
    for window, spans_of_one in enumerate(said):
        for span in spans_of_one:
            others = [bound for number, bound in enumerate(bounds) if number != window]
            is_alone = not any(start <= span.start and span.end <= end for start, end in others)
            if is_alone and not any(
                one != span and one.start < span.end and span.start < one.end for one in everything
            ):
                assert span in spans


BOUNDS = [(0, 20), (10, 30)]


def of(start: int, end: int, spans: list[Span], outcome: str = "ok", error: str = "") -> Document:
    return Document("x" * (end - start), tuple(spans), (), outcome, ("answer",), error)


def test_the_window_that_sees_more_around_a_place_decides() -> None:
    # Characters 12 to 14 end 6 before the end of the first window, and begin 2 after the start of the second.
    near_first, near_second = Span(12, 14, "PER"), Span(16, 18, "LOC")
    first = of(0, 20, [near_first, near_second])
    assert merged("x" * 30, BOUNDS, [first, of(10, 30, [])]).spans == (near_first,)
    second = of(10, 30, [Span(2, 4, "PER"), Span(6, 8, "LOC")])
    assert merged("x" * 30, BOUNDS, [of(0, 20, []), second]).spans == (near_second,)


def test_a_window_without_an_answer_has_no_say() -> None:
    near_second = Span(16, 18, "LOC")
    for outcome in ("failed", "refused", "truncated"):
        document = merged("x" * 30, BOUNDS, [of(0, 20, [near_second]), of(10, 30, [], outcome)])
        assert document.spans == (near_second,)
        assert document.outcome == outcome


def test_of_spans_that_cross_the_better_seen_stays() -> None:
    # Middles at 13.5 and 17: each belongs to its window, but both cannot be.
    first, second = of(0, 20, [Span(11, 16, "PER")]), of(10, 30, [Span(4, 20, "ORG")])
    assert merged("x" * 30, BOUNDS, [first, second]).spans == (Span(11, 16, "PER"),)


def test_an_entity_inside_another_stays_where_one_window_gave_both() -> None:
    # The inner belongs to the first window, the outer to the second.
    inner, outer = Span(12, 14, "LOC"), Span(11, 26, "ORG")
    first = of(0, 20, [inner])
    both = of(10, 30, [Span(1, 16, "ORG"), Span(2, 4, "LOC")])
    assert merged("x" * 30, BOUNDS, [first, both]).spans == (outer, inner)
    assert len(merged("x" * 30, BOUNDS, [first, of(10, 30, [Span(1, 16, "ORG")])]).spans) == 1


def test_an_entity_cut_off_by_a_window_is_taken_from_the_other() -> None:
    cut_off, whole = Span(17, 20, "ORG"), Span(7, 16, "ORG")
    merged_spans = merged("x" * 30, BOUNDS, [of(0, 20, [cut_off]), of(10, 30, [whole])]).spans
    assert merged_spans == (Span(17, 26, "ORG"),)


def test_a_bad_window_never_loses_the_others() -> None:
    bounds = [(0, 10), (10, 20), (20, 30)]
    documents = [
        replace_ungrounded(of(0, 10, [Span(1, 2, "PER")], "ungrounded")),
        of(10, 20, [], "failed", "timed out"),
        of(20, 30, [Span(1, 2, "PER", text="x", score=0.5)], "repaired"),
    ]
    document = merged("x" * 30, bounds, documents)
    assert document.spans == (Span(1, 2, "PER"), Span(21, 22, "PER"))
    assert (document.spans[1].text, document.spans[1].score) == ("x", 0.5)
    assert document.outcome == "failed"
    assert document.ungrounded == (("PER", "nobody"),)
    assert document.answers == ("answer",) * 3
    assert document.error == "timed out (1 of 3 windows)"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        # Two windows that overlap may tell of the same mention; the third of three shows nothing that the first shows.
        (["a", "a", ""], "a"),
        (["a", "a", "a"], "aa"),
        (["a", "", "a"], "aa"),
        (["aa", "a", ""], "aa"),
        (["a", "aab", "b"], "aab"),
        (["ab", "ba", "ab"], "abab"),
    ],
)
def test_a_mention_set_aside_in_the_overlap_is_listed_once(told: list[str], expected: str) -> None:
    def saying(mentions: str) -> Document:
        return Document("x" * 20, (), tuple(("PER", mention) for mention in mentions), "ungrounded", ("answer",))

    documents = [saying(mentions) for mentions in told]
    overlapping, apart = [(0, 20), (10, 30), (20, 40)], [(0, 20), (20, 40), (40, 60)]
    assert merged("x" * 40, overlapping, documents).ungrounded == tuple(("PER", mention) for mention in expected)
    assert "".join(mention for _, mention in merged("x" * 60, apart, documents).ungrounded) == "".join(told)


def replace_ungrounded(document: Document) -> Document:
    return Document(document.text, document.spans, (("PER", "nobody"),), document.outcome, document.answers)


def test_a_single_window_is_the_document_itself() -> None:
    document = of(0, 10, [Span(1, 2, "PER")], "failed", "timed out")
    assert merged("x" * 10, [(0, 10)], [document]) == document


@pytest.mark.parametrize("unit", ["word. ", "中", "x", " ", "e\u0301", "\u0301", "a.).).) ", "\n", "<12> "])
def test_ten_times_the_text_takes_about_ten_times_as_long(unit: str) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        started = time.perf_counter()
        bounds = windows_of(text, 200, 40)
        assert len(bounds) > 3
        merged(text, bounds, [find_digits(text[start:end]) for start, end in bounds])
        return time.perf_counter() - started

    short = min(seconds(30_000) for _ in range(3))
    # Quadratic would be a hundredfold; a machine that pauses is no reason to fail.
    assert seconds(300_000) < 40 * short + 0.5
