"""Tagging schemes, words and spans: read as seqeval reads them, and nothing lost on the way."""

from __future__ import annotations

import random
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities

from lightft.errors import DataError, InvalidSettingError
from lightft.records import Span
from lightft.spans import (
    allowed_starts,
    allowed_transitions,
    bio_labels,
    detect_scheme,
    join_words,
    repair_bio,
    spans_to_tags,
    split_tag,
    split_words,
    tags_to_spans,
    tags_to_word_spans,
)

TYPES = ("PER", "creative-work", "event-attack/battle/war/militaryconflict")


def random_sentences(prefixes: str, seed: int, count: int = 4000) -> list[list[str]]:
    tags = ["O", "O", *(f"{prefix}-{label}" for prefix in prefixes for label in TYPES)]
    dice = random.Random(seed)
    return [dice.choices(tags, k=dice.randint(0, 9)) for _ in range(count)]


def strict_entities(sentences: list[list[str]], scheme: type) -> list[list[tuple[int, int, str]]]:
    return [[(e.start, e.end, e.tag) for e in found] for found in Entities(sentences, scheme).entities]


def default_entities(tags: list[str]) -> list[tuple[int, int, str]]:
    return [(first, last + 1, label) for label, first, last in get_entities(tags)]


# --- tags to words


@pytest.mark.parametrize(
    ("prefixes", "scheme", "theirs"), [("BI", "BIO", IOB2), ("BIES", "BIOES", IOBES), ("BILU", "BIOES", BILOU)]
)
def test_strict_reading_equals_seqeval_strict_on_random_tags(prefixes, scheme, theirs):
    sentences = random_sentences(prefixes, seed=1)
    assert [tags_to_word_spans(tags, scheme) for tags in sentences] == strict_entities(sentences, theirs)


@pytest.mark.parametrize(("prefixes", "scheme"), [("BI", "BIO"), ("BI", "IOB1"), ("BIES", "BIOES"), ("I", "IO")])
def test_lenient_reading_equals_seqeval_default_on_random_tags(prefixes, scheme):
    for tags in random_sentences(prefixes, seed=2):
        assert tags_to_word_spans(tags, scheme, lenient=True) == default_entities(tags)


def test_valid_iob1_is_read_as_seqeval_reads_it():
    # seqeval's IOB1 has no reading for B- away from an entity of its type, which valid IOB1 never holds.
    sentences = [entities_to_iob1(tags) for tags in random_sentences("BI", seed=3)]
    assert any(tag.startswith("B-") for tags in sentences for tag in tags)
    assert [tags_to_word_spans(tags, "IOB1") for tags in sentences] == strict_entities(sentences, IOB1)


def entities_to_iob1(tags: list[str]) -> list[str]:
    rewritten = ["O"] * len(tags)
    end_before, label_before = -1, ""
    for start, end, label in default_entities(tags):
        rewritten[start:end] = [f"I-{label}"] * (end - start)
        if start == end_before and label == label_before:
            rewritten[start] = f"B-{label}"
        end_before, label_before = end, label
    return rewritten


def test_inside_tag_without_begin_is_no_entity_unless_reading_is_lenient():
    tags = ["I-PER", "I-PER", "O", "B-LOC", "I-PER"]
    assert tags_to_word_spans(tags) == [(3, 4, "LOC")]
    assert tags_to_word_spans(tags, lenient=True) == [(0, 2, "PER"), (3, 4, "LOC"), (4, 5, "PER")]


def test_io_reads_types_without_prefix_and_keeps_their_hyphens():
    tags = ["person-actor", "person-actor", "O", "art-film", "person-actor"]
    assert tags_to_word_spans(tags, "IO") == [(0, 2, "person-actor"), (3, 4, "art-film"), (4, 5, "person-actor")]


def test_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(InvalidSettingError, match="'BIOSE'. Did you mean 'BIOES'"):
        tags_to_word_spans(["O"], "BIOSE")


# --- one tag


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("O", ("O", "")),
        ("B-creative-work", ("B", "creative-work")),
        ("I-a-b-c", ("I", "a-b-c")),
        ("L-PER", ("E", "PER")),
        ("U-PER", ("S", "PER")),
        ("M-PER", ("I", "PER")),
        ("B", ("B", "_")),
        ("person-actor", ("I", "person-actor")),
        ("LOC", ("I", "LOC")),
    ],
)
def test_tag_is_split_at_the_first_hyphen_after_a_prefix(tag, parts):
    assert split_tag(tag) == parts


# --- detecting a scheme


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["O", "O"]], "BIO"),
        ([], "BIO"),
        ([["B-PER", "O"], ["O", "B-LOC"]], "BIO"),
        ([["B-PER", "I-PER", "O"]], "BIO"),
        ([["O", "I-PER", "O"], ["B-PER", "I-PER"]], "BIO"),
        ([["I-PER", "I-PER", "B-PER"], ["O", "I-LOC"]], "IOB1"),
        ([["I-PER", "I-PER"], ["O", "I-LOC"]], "IO"),
        ([["person-actor", "person-actor", "O"]], "IO"),
        ([["B-PER", "E-PER", "S-LOC"]], "BIOES"),
        ([["O", "S-LOC"]], "BIOES"),
        ([["B-PER", "L-PER", "U-LOC"]], "BIOES"),
        ([["B-PER", "M-PER", "E-PER", "S-LOC"]], "BIOES"),
        ([["B", "I", "O"]], "BIO"),
    ],
)
def test_scheme_is_detected_over_the_whole_data_set(sentences, scheme):
    assert detect_scheme(sentences) == scheme


@pytest.mark.parametrize(
    ("sentences", "seen"),
    [
        ([["B-PER"], ["O", "location"]], "'B-PER' and 'location'"),
        ([["B-PER", "I"]], "'B-PER' and 'I'"),
        ([["B-PER", "L-PER", "S-PER"]], "B, L, S"),
    ],
)
def test_mixed_schemes_are_refused_and_named(sentences, seen):
    with pytest.raises(DataError, match=f"mix schemes.*{seen}"):
        detect_scheme(sentences)


# --- tags, words and spans


def test_span_carries_its_text():
    text, words = join_words(["New", "York", "is", "big"])
    assert tags_to_spans(["B-LOC", "I-LOC", "O", "O"], words, text) == (Span(0, 8, "LOC"),)
    assert tags_to_spans(["B-LOC", "I-LOC", "O", "O"], words, text)[0].text == "New York"


def test_unequal_numbers_of_tags_and_words_are_refused():
    with pytest.raises(DataError, match="2 tags for 1 words"):
        tags_to_spans(["O", "O"], [(0, 1)], "a")


@given(st.lists(st.tuples(st.text(max_size=4), st.sampled_from(["O", *bio_labels(TYPES)])), max_size=12))
def test_tags_survive_the_way_to_spans_and_back(rows):
    tokens = [token for token, _ in rows]
    tags, _ = repair_bio([tag for _, tag in rows])
    text, words = join_words(tokens)
    spans = tags_to_spans(tags, words, text)
    assert spans_to_tags(spans, words) == (tuple(tags), ())


@given(st.data())
def test_every_span_is_either_tagged_or_returned(data):
    text = data.draw(st.text(alphabet="ab .-é", max_size=20))
    offsets = st.integers(0, len(text))
    spans = data.draw(st.lists(st.builds(Span, offsets, offsets, st.sampled_from(TYPES)), max_size=6))
    words = split_words(text)
    tags, left_out = spans_to_tags(spans, words)
    assert sorted([*tags_to_spans(tags, words, text), *left_out]) == sorted(set(spans))


def test_span_off_word_boundaries_and_overlapping_span_are_returned():
    _, words = join_words(["New", "York", "City"])
    inside_word, across, nested = Span(1, 3, "LOC"), Span(0, 8, "LOC"), Span(4, 13, "ORG")
    assert spans_to_tags([inside_word, nested, across], words) == (("B-LOC", "I-LOC", "O"), (inside_word, nested))


def test_touching_spans_of_one_type_stay_two():
    text, words = join_words(["Paris", "Rome"])
    spans = (Span(0, 5, "LOC"), Span(6, 10, "LOC"))
    tags, left_out = spans_to_tags(spans, words)
    assert (tags, left_out) == (("B-LOC", "B-LOC"), ())
    assert tags_to_spans(tags, words, text) == spans


# --- words


@given(st.lists(st.text(max_size=5)))
def test_joined_words_are_found_at_their_offsets(tokens):
    text, words = join_words(tokens)
    assert [text[start:end] for start, end in words] == tokens
    assert text == " ".join(tokens)


@given(st.text())
def test_split_words_hold_every_character_that_is_not_white_space_once(text):
    words = split_words(text)
    assert [character for start, end in words for character in text[start:end]] == [c for c in text if not c.isspace()]
    assert all(start < end for start, end in words)
    assert list(words) == sorted(words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith's 3.5-litre", ["Dr", ".", "Smith", "'", "s", "3", ".", "5", "-", "litre"]),
        ("Zoe\u0308s cafe\u0301", ["Zoe\u0308s", "cafe\u0301"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("user_name", ["user", "_", "name"]),
        ("北京 abc東京", ["北", "京", "abc", "東", "京"]),
        ("ok👍\u200d.", ["ok", "👍\u200d", "."]),
        ("", []),
    ],
)
def test_words_of_running_text(text, expected):
    assert [text[start:end] for start, end in split_words(text)] == expected


@given(st.text(alphabet="aé.-1 _\n"))
def test_composed_and_decomposed_text_split_into_the_same_words(text):
    def words(form):
        normal = unicodedata.normalize(form, text)
        return [unicodedata.normalize("NFC", normal[start:end]) for start, end in split_words(normal)]

    assert words("NFC") == words("NFD")


# --- BIO label sets and transitions


def test_bio_labels_keep_the_order_of_types():
    assert bio_labels(["PER", "LOC"]) == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def test_allowed_transitions_accept_exactly_the_sequences_that_need_no_repair():
    tags = bio_labels(TYPES)
    matrix, starts = allowed_transitions(tags), allowed_starts(tags)
    for sentence in random_sentences("BI", seed=4):
        positions = [tags.index(tag) for tag in sentence]
        allowed = all(matrix[i][j] for i, j in pairwise(positions))
        allowed = allowed and all(starts[position] for position in positions[:1])
        assert allowed == (repair_bio(sentence)[1] == 0)


def test_repair_makes_strict_reading_find_what_lenient_reading_found():
    for tags in random_sentences("BI", seed=5):
        repaired, count = repair_bio(tags)
        assert tags_to_word_spans(repaired) == tags_to_word_spans(tags, lenient=True)
        assert count == sum(old != new for old, new in zip(tags, repaired, strict=True))
        assert repair_bio(repaired) == (repaired, 0)
