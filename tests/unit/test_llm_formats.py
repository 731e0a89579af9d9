"""Answer formats: what is written is read back, and whatever is read is entities that the text holds."""

from __future__ import annotations

import ast
import json
import random
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lightft.errors import InvalidPluginError, InvalidSettingError, UnknownNameError
from lightft.llm_ner import FORMATS, OUTCOMES, Reading
from lightft.records import Span

TEXT = "Angela met Bert in Paris and Bert left Paris in 1999"
LABELS = ("PER", "LOC", "DATE")
INLINE = ("brackets", "xml")
LISTED = ("categories", "objects")
GOLD = (Span(0, 6, "PER"), Span(19, 24, "LOC"), Span(29, 33, "PER"))
ANSWERS = {
    "brackets": "[Angela](PER) met Bert in [Paris](LOC) and [Bert](PER) left Paris in 1999",
    "xml": "<PER>Angela</PER> met Bert in <LOC>Paris</LOC> and <PER>Bert</PER> left Paris in 1999",
    "categories": '{"PER": ["Angela", "Bert"], "LOC": ["Paris"]}',
    "objects": '[{"entity": "Angela", "type": "PER"}, {"entity": "Paris", "type": "LOC"}, '
    '{"entity": "Bert", "type": "PER"}]',
}


def read(name: str, answer: str, text: str = TEXT) -> Reading:
    reading = FORMATS[name].read(text, answer, LABELS)
    check(reading, text)
    return reading


def check(reading: Reading, text: str) -> None:
    """Check what holds of any reading."""
    assert reading.outcome in OUTCOMES
    assert not reading.ungrounded or reading.outcome in ("ungrounded", "truncated")
    assert reading.outcome != "refused" or not reading.spans
    assert list(reading.spans) == sorted(set(reading.spans))
    for span in reading.spans:
        assert 0 <= span.start < span.end <= len(text)
        assert text[span.start : span.end] == span.text
        assert span.label in LABELS


# --- writing and reading back

PIECES = ["[", "]", "](PER)", "(", ")", "<", ">", "</", "<PER>", "</LOC>", '"', "'", "\\", "\n", ":", ",", "{", "}"]
PIECES += ["Bert", "Paris", " ", "🦜", "é", "`", "```\n", "\\u0041", "\x00", "null", "\u2028", "] (PER)"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), min_size=1, max_size=25).map("".join)


@st.composite
def texts_with_spans(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """Entities side by side, apart, or one over another."""
    text = draw(TEXTS)
    assume(text)
    starts = st.integers(0, len(text) - 1)
    drawn = draw(st.lists(st.tuples(starts, st.integers(1, 8), st.sampled_from(LABELS)), max_size=6))
    return text, [Span(start, min(len(text), start + length), label) for start, length, label in drawn]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_looks_as_the_format_is_described(name: str) -> None:
    answer, left_out = FORMATS[name].write(TEXT, GOLD)
    assert (answer, left_out) == (ANSWERS[name], ())


@pytest.mark.parametrize("name", INLINE)
@given(given_case=texts_with_spans())
@example(given_case=("[[Reuters]]", [Span(2, 9, "PER")]))
@example(given_case=("a](PER)b", [Span(0, 1, "PER"), Span(7, 8, "LOC")]))
@example(given_case=(" Bert\n", [Span(0, 2, "PER")]))
def test_what_an_inline_format_writes_is_read_back_span_by_span(name: str, given_case: tuple[str, list[Span]]) -> None:
    text, spans = given_case
    answer, left_out = FORMATS[name].write(text, spans)
    reading = read(name, answer, text)
    assert set(reading.spans) == set(spans) - set(left_out)
    assert reading.outcome == "ok"


@pytest.mark.parametrize(("name", "marks"), [("brackets", "[]"), ("xml", "<>")])
@given(given_case=texts_with_spans())
def test_only_overlaps_are_left_out_where_the_text_has_no_marks(
    name: str, marks: str, given_case: tuple[str, list[Span]]
) -> None:
    text, spans = given_case
    assume(not set(marks) & set(text))
    _, left_out = FORMATS[name].write(text, spans)
    kept = sorted(set(spans) - set(left_out))
    assert all(before.end <= after.start for before, after in pairwise(kept))
    for one in left_out:
        assert any(one.start < other.end and other.start < one.end for other in kept)


@pytest.mark.parametrize("name", LISTED)
@given(given_case=texts_with_spans())
def test_what_a_list_writes_is_read_back_mention_by_mention(name: str, given_case: tuple[str, list[Span]]) -> None:
    text, spans = given_case
    answer, left_out = FORMATS[name].write(text, spans)
    assert left_out == ()
    reading = read(name, answer, text)
    written = Counter((span.label, text[span.start : span.end]) for span in set(spans))
    found = Counter((span.label, span.text) for span in reading.spans) + Counter(reading.ungrounded)
    assert found == written
    # Only overlapping mentions, "aa" twice in "aaa", can lack a place.
    assert all(reading_has_overlap(text, mention) for _, mention in reading.ungrounded)


def reading_has_overlap(text: str, mention: str) -> bool:
    starts = [start for start in range(len(text)) if text.startswith(mention, start)]
    return any(after - before < len(mention) for before, after in pairwise(starts))


@pytest.mark.parametrize("name", LISTED)
@given(words=st.lists(st.sampled_from(["anna", "paris", "mo", "anna lee"]), min_size=1, max_size=8))
def test_lists_are_read_back_exactly_where_each_mention_is_an_entity(name: str, words: list[str]) -> None:
    kinds = {"anna": "PER", "paris": "LOC", "mo": "PER", "anna lee": "PER"}
    text, spans = "", []
    for word in words:
        spans.append(Span(len(text), len(text) + len(word), kinds[word]))
        text += f"{word} momo "
    assert read(name, FORMATS[name].write(text, spans)[0], text) == Reading(tuple(spans), (), "ok")


@pytest.mark.parametrize("name", LISTED)
@given(given_case=texts_with_spans())
def test_python_reads_the_same_from_what_a_list_writes(name: str, given_case: tuple[str, list[Span]]) -> None:
    text, spans = given_case
    answer, _ = FORMATS[name].write(text, spans)
    as_python = repr(json.loads(answer))
    assert ast.literal_eval(as_python) == json.loads(answer)
    assert read(name, as_python, text) == read(name, answer, text)
    in_ascii = json.dumps(json.loads(answer))
    assert read(name, in_ascii, text) == read(name, answer, text)


def test_nested_and_touching_entities() -> None:
    spans = [Span(0, 8, "LOC"), Span(0, 14, "PER"), Span(14, 15, "DATE")]
    answer, left_out = FORMATS["brackets"].write("New York Times7", spans)
    assert (answer, left_out) == ("[New York Times](PER)[7](DATE)", (spans[0],))
    assert FORMATS["brackets"].write("ab", [Span(1, 5, "PER"), Span(1, 1, "PER")])[1] == (
        Span(1, 1, "PER"),
        Span(1, 5, "PER"),
    )


# --- outcomes


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_ok_or_repaired_or_truncated(name: str) -> None:
    answer = ANSWERS[name]
    assert {read(name, dressed).outcome for dressed in (answer, f" {answer}\n")} == {"ok"}
    for dressed in (f"```\n{answer}\n```", f"Sure!\n{answer}", f"{answer}\n\nAnything else?"):
        reading = read(name, dressed)
        assert (reading.outcome, len(reading.spans)) == ("repaired", 3)
    for end in range(len(answer) // 2, len(answer) - 1):
        reading = read(name, answer[:end])
        assert reading.outcome == "truncated", answer[:end]
        assert reading.ungrounded == ()
    for words in ("", "I cannot help with that.", "none"):
        assert read(name, words) == Reading((), (), "refused")


@pytest.mark.parametrize(
    ("name", "answer"), [*((name, TEXT) for name in INLINE), ("categories", "{}"), ("objects", "[]")]
)
def test_a_text_without_entities_is_an_answer(name: str, answer: str) -> None:
    assert FORMATS[name].write(TEXT, []) == (answer, ())
    assert read(name, answer) == Reading((), (), "ok")
    assert read(name, f"Here: {answer}").outcome == "repaired"


@pytest.mark.parametrize("name", INLINE)
def test_a_blank_text_needs_no_answer(name: str) -> None:
    assert read(name, "", " \n") == Reading((), (), "ok")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("brackets", "[Angela](PER) met [Carla](PER) in [Rome](LOC) and [Bert](ORG) left Paris in 1999"),
        ("xml", "<PER>Angela</PER> met <PER>Carla</PER> in <LOC>Rome</LOC> and <ORG>Bert</ORG> left Paris in 1999"),
        ("categories", '{"PER": ["Angela", "Carla"], "LOC": ["Rome"], "ORG": ["Bert"]}'),
        (
            "objects",
            '[{"text": "Angela", "label": "PER"}, {"text": "Carla", "type": "PER"}, {"name": "Rome", "type": "LOC"}, '
            '{"entity": "Bert", "type": "ORG"}]',
        ),
    ],
)
def test_what_the_text_does_not_hold_is_set_aside_and_listed(name: str, answer: str) -> None:
    ungrounded = (("PER", "Carla"), ("LOC", "Rome"), ("ORG", "Bert"))
    assert read(name, answer) == Reading((Span(0, 6, "PER"),), ungrounded, "ungrounded")


def test_a_changed_text_is_aligned_and_repeated_mentions_keep_their_places() -> None:
    answer = "Angela meets Bert in Paris, and [Bert](PER) then left [Paris](LOC) in nineteen ninety-nine."
    assert read("brackets", answer) == Reading((Span(29, 33, "PER"), Span(39, 44, "LOC")), (), "repaired")
    unclosed = "[Angela met [Bert](PER) in Paris and Bert left Paris in 1999"
    assert read("brackets", unclosed) == Reading((Span(11, 15, "PER"),), (), "repaired")
    nested = "<LOC><PER>Angela</PER> met</LOC> Bert in <LOC>Paris</LOC> and Bert left Paris in 1999"
    assert read("xml", nested) == Reading((Span(0, 6, "PER"), Span(19, 24, "LOC")), (), "repaired")


def test_a_space_inside_a_tag_is_a_slip_that_is_repaired() -> None:
    answer = "[Angela] (PER) met Bert in [Paris]\t(LOC) and [Bert](PER) left Paris in 1999"
    assert read("brackets", answer) == Reading(GOLD, (), "repaired")
    assert read("brackets", "[Bert] (PER) left", "Bert left") == Reading((Span(0, 4, "PER"),), (), "repaired")
    assert read("brackets", "[Bert] (ORG) left", "Bert left").ungrounded == (("ORG", "Bert"),)
    assert read("brackets", answer[:50]).outcome == "truncated"


def test_a_space_inside_what_looks_like_a_tag_but_stands_in_the_text_is_text() -> None:
    text = "see [1] (note) and [2] (PER), says Bert"
    assert read("brackets", text, text) == Reading((), (), "ok")
    tagged = text.replace("Bert", "[Bert](PER)")
    assert read("brackets", tagged, text) == Reading((Span(35, 39, "PER"),), (), "ok")
    slipped = text.replace("Bert", "[Bert] (LOC)")
    assert read("brackets", slipped, text) == Reading((Span(35, 39, "LOC"),), (), "repaired")


def test_what_looks_like_a_tag_but_stands_in_the_text_is_text() -> None:
    text = "see [Paris](LOC) or <PER>Bert</PER>"
    assert read("brackets", text, text) == read("xml", text, text) == Reading((), (), "ok")
    assert read("brackets", text.replace("Bert", "[Bert](PER)"), text).spans == (Span(25, 29, "PER"),)
    assert read("xml", text.replace("Paris", "<LOC>Paris</LOC>"), text).spans == (Span(5, 10, "LOC"),)


def test_a_mention_listed_twice_takes_two_places_and_whole_words_come_first() -> None:
    assert read("categories", '{"PER": ["Bert", "Bert", "Bert"]}') == Reading(
        (Span(11, 15, "PER"), Span(29, 33, "PER")), (("PER", "Bert"),), "ungrounded"
    )
    assert read("categories", '{"LOC": ["US", "US"]}', "USA and US").spans == (Span(0, 2, "LOC"), Span(8, 10, "LOC"))
    assert read("categories", '{"LOC": ["York", "New York"]}', "New York, York").spans == (
        Span(0, 8, "LOC"),
        Span(10, 14, "LOC"),
    )
    assert read("categories", '{"PER": ["Bert"], "LOC": ["Bert"]}', "Bert!").spans == (
        Span(0, 4, "LOC"),
        Span(0, 4, "PER"),
    )


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ('{"PER": "Angela", "LOC": "Paris"}', "ok"),
        ('{"PER": ("Angela"), "LOC": ("Paris",), "DATE": None}', "ok"),
        ('{"PER": ["Angela",], "LOC": ["Paris"]}', "ok"),
        ('{"entities": {"PER": ["Angela"], "LOC": ["Paris"]}}', "ok"),
        ("{'PER': [Angela], 'LOC': [Paris]}", "repaired"),
        ("I use {braces}: {'PER': ['Angela'], 'LOC': ['Paris']}", "repaired"),
        ('{"PER": ["Angela"], "LOC": ["Paris"', "truncated"),
        ('{"PER": ["Angela"], "LOC": ["Paris"], "DATE": ["19', "truncated"),
    ],
)
def test_a_dictionary_in_any_dress_is_read(answer: str, outcome: str) -> None:
    assert read("categories", answer) == Reading((Span(0, 6, "PER"), Span(19, 24, "LOC")), (), outcome)


def test_a_quote_in_a_mention_need_not_be_escaped() -> None:
    assert read("categories", "{'PER': ['O'Neill']}", "O'Neill").spans == (Span(0, 7, "PER"),)


def test_a_number_is_read_as_it_is_written() -> None:
    assert read("categories", '{"DATE": [1999]}') == Reading((Span(48, 52, "DATE"),), (), "ok")


@pytest.mark.parametrize("answer", ["no entities", '["Angela"]', "{", "{Angela}", "{'PER'}", "[" * 10])
def test_an_answer_that_is_no_dictionary_is_refused_and_not_empty(answer: str) -> None:
    assert read("categories", answer) == Reading((), (), "refused")


# --- any answer at all

NOISE = [*PIECES, *"{}[]()<>\"':,*\n \x00\\", "\\d", "\\u", "PER", "LOC", "FOO", "[", "](LOC)", "Angela", "1", "e9"]
NOISE += ["</PER>"]


def mutated(answer: str, chance: random.Random) -> str:
    """Cut, doubled, moved, replaced: one to six times."""
    for _ in range(chance.randint(1, 6)):
        start = chance.randrange(len(answer) + 1)
        end = min(len(answer), start + chance.randrange(12))
        middle = chance.choice(
            ["", chance.choice(NOISE), answer[start:end] * 2, chance.choice(NOISE) * 3, chr(chance.randrange(0x3000))]
        )
        answer = answer[:start] + middle + answer[end:]
        if chance.random() < 0.1:
            answer = answer[: chance.randrange(len(answer) + 1)]
    return answer


def fuzz(name: str, rounds: int, seed: int) -> set[str]:
    chance = random.Random(seed)
    texts = [TEXT, "see [Paris](LOC) or <PER>Bert</PER>", '{"PER": ["Bert"]}', "aaaa aaa", "", "\n🦜 Bert's\\n"]
    seen = set()
    for number in range(rounds):
        text = texts[number % len(texts)]
        spans = [Span(start, start + 4, "PER") for start in range(chance.randrange(6), len(text) - 4, 9)]
        answer = mutated(ANSWERS[name] if number % 3 else FORMATS[name].write(text, spans)[0], chance)
        reading = FORMATS[name].read(text, answer, LABELS)
        check(reading, text)
        seen.add(reading.outcome)
    return seen


@pytest.mark.parametrize("name", ANSWERS)
def test_twenty_thousand_damaged_answers_are_read(name: str) -> None:
    assert fuzz(name, 20_000, seed=0) == set(OUTCOMES) - {"failed"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_a_million_damaged_answers_are_read(name: str) -> None:
    assert fuzz(name, 250_000, seed=1) == set(OUTCOMES) - {"failed"}


@pytest.mark.parametrize("name", ANSWERS)
@given(answer=st.lists(st.sampled_from(NOISE), max_size=40).map("".join) | st.text())
def test_any_answer_is_read(name: str, answer: str) -> None:
    read(name, answer)


HUGE = 10_000_000
LONG_ANSWERS = {
    "one word": "a" * HUGE,
    "nested lists": "[" * HUGE,
    "nested dictionaries": '{"PER":' * (HUGE // 7),
    "open quotes": '{"PER": ["' + '\\"' * (HUGE // 2),
    "quotes": "{'" * (HUGE // 2),
    "closings": "](PER)" * (HUGE // 6),
    "slips": "[Bert] (PER) " * (HUGE // 13),
    "spaces after brackets": ("]" + " " * 999) * (HUGE // 1000),
    "angles": "<PER" * (HUGE // 4),
    "mentions": "[Bert](PER) " * (HUGE // 12),
    "different mentions": "".join(f"[Bert {number}](PER) " for number in range(HUGE // 20)),
    "elements": "<PER>Paris</PER>" * (HUGE // 16),
    "a long list": '{"PER": [' + '"Bert", ' * (HUGE // 8),
    "a long list of different": json.dumps({"PER": [f"Bert {number}" for number in range(HUGE // 14)]}),
    "objects": '[{"entity": "Bert", "type": "PER"}, ' * (HUGE // 36),
    "spaces": "[ {" + " " * HUGE,
    "quotes and spaces": '{"' + ('" ' * (HUGE // 2)),
    "fences": "```\n" * (HUGE // 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LONG_ANSWERS)
@pytest.mark.parametrize("name", ANSWERS)
def test_ten_megabytes_are_read_in_seconds(name: str, kind: str) -> None:
    began = time.perf_counter()
    read(name, LONG_ANSWERS[kind])
    assert time.perf_counter() - began < 60


@pytest.mark.parametrize("name", ANSWERS)
def test_a_long_text_is_read_back(name: str) -> None:
    text = "".join(f"Bert{number} met Anna in Paris, " for number in range(3000))
    spans = [Span(place, place + 4, "PER") for place in range(len(text)) if text.startswith("Anna", place)]
    assert read(name, FORMATS[name].write(text, spans)[0], text) == Reading(tuple(spans), (), "ok")


@pytest.mark.parametrize(
    "answer", ["[" * 10_000, "{" * 10_000, '{"PER": ' * 10_000, "<PER>" * 10_000, '[{"a":' * 10_000]
)
@pytest.mark.parametrize("name", ANSWERS)
def test_no_depth_is_too_deep(name: str, answer: str) -> None:
    assert read(name, answer).spans == ()
    assert len(read(name, answer + ANSWERS[name]).spans) <= 3


# --- the registry


def test_a_type_that_would_break_the_format_is_refused_before_anything_is_asked() -> None:
    for name, label in [("brackets", "a](b"), ("xml", "a>b"), ("xml", ""), ("brackets", " PER"), ("xml", "a" * 101)]:
        with pytest.raises(InvalidSettingError, match="cannot write the type"):
            FORMATS[name].instruction([label])
        with pytest.raises(InvalidSettingError, match="cannot write the type"):
            FORMATS[name].write("ab", [Span(0, 1, label)])


@pytest.mark.parametrize("name", ANSWERS)
def test_the_words_that_ask_for_a_format_name_its_parts(name: str) -> None:
    marks = {"brackets": "[mention](TYPE)", "xml": "<TYPE>mention</TYPE>", "categories": "types", "objects": '"entity"'}
    assert marks[name] in FORMATS[name].instruction(LABELS)


def test_an_unknown_format_and_an_unfit_one_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'brackets'"):
        FORMATS["bracket"]
    with pytest.raises(InvalidPluginError, match="has no name, instruction, write, read"):
        FORMATS.add("mine", Span(0, 1, "x", text="mine"))  # type: ignore[arg-type]
    with pytest.raises(InvalidPluginError, match="calls itself 'xml'"):
        FORMATS.add("html", FORMATS["xml"])
