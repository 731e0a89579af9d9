"""Tagging schemes, words and character spans: how one becomes another without losing anything.

This is the only module that knows tagging schemes. Everywhere else an entity is a ``Span`` of characters.

====== ==================================================================== =======================
scheme tags of ``New York`` (LOC) next to ``Paris`` (LOC)                    also read as this scheme
====== ==================================================================== =======================
BIO    ``B-LOC I-LOC B-LOC``                                                IOB2
BIOES  ``B-LOC E-LOC S-LOC``                                                BILOU, BMES
IOB1   ``I-LOC I-LOC B-LOC`` (B- only where two entities of a type touch)
IO     ``I-LOC I-LOC I-LOC`` (one entity: IO cannot part them)              types without prefix: ``LOC``
====== ==================================================================== =======================
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from lightft.errors import DataError, InvalidSettingError, suggest
from lightft.records import Span

__all__ = [
    "SCHEMES",
    "allowed_starts",
    "allowed_transitions",
    "bio_labels",
    "bio_tags_of_outputs",
    "detect_scheme",
    "join_words",
    "repair_bio",
    "spans_to_tags",
    "split_tag",
    "split_words",
    "tags_to_spans",
    "tags_to_word_spans",
]

SCHEMES = ("BIO", "BIOES", "IO", "IOB1")
"""The schemes that tags can be read in."""


def split_tag(tag: str) -> tuple[str, str]:
    """Return ``(prefix, type)`` of a tag; ``("O", "")`` for a word outside any entity.

    The prefix is one of B, I, E, S, with the L, U of BILOU and the M of BMES given as E, S and I. Only the first
    hyphen parts prefix and type, for types hold hyphens too: ``"B-creative-work"`` is ``("B", "creative-work")``.
    A tag without a prefix is a type of its own, ``"person-actor"`` is ``("I", "person-actor")``, and a prefix
    without a type has the type ``"_"``, as in seqeval.
    """
    if tag == "O":
        return "O", ""
    prefix, _, label = tag.partition("-")
    if prefix in _PREFIXES:
        return _PREFIXES[prefix], label or _NO_TYPE
    return "I", tag


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """Return the scheme of a whole data set: one of ``SCHEMES``.

    BIO and IOB1 use the same tags. IOB1 is reported only where the data prove it: some I- starts an entity, and
    every B- stands directly after a word of the same type. Anything else with B- and I- is BIO, perhaps with
    invalid tags (see ``repair_bio``).

    Args:
        sentences: the tags of each sentence, of as many sentences as there are.

    Raises:
        DataError: the tags mix schemes, such as ``B-PER`` next to ``person``.
    """
    prefixes: set[str] = set()
    first_of_kind: dict[str, str] = {}
    entity_starts_with_inside = begin_stands_apart = False
    for tags in sentences:
        before = ("O", "")
        for tag in tags:
            here = split_tag(tag)
            if here != ("O", ""):
                kind, prefix = _kind_of_tag(tag)
                first_of_kind.setdefault(kind, tag)
                prefixes.add(prefix)
                touches = here[1] == before[1]
                entity_starts_with_inside |= here[0] == "I" and not touches
                begin_stands_apart |= here[0] == "B" and not touches
            before = here
    if len(first_of_kind) > 1:
        seen = " and ".join(repr(tag) for tag in first_of_kind.values())
        raise DataError(
            f"The tags mix schemes: {seen} stand in the same data. Tags are all of the form 'B-TYPE' (BIO, IOB1, "
            "BIOES, BILOU, BMES or IO prefixes), or all bare types, or all bare prefixes; rename those that differ."
        )
    if "plain" in first_of_kind or prefixes == {"I"}:
        return "IO"
    if not any(prefixes <= family for family in _PREFIX_FAMILIES):
        raise DataError(
            f"The tags mix schemes: the prefixes {', '.join(sorted(prefixes))} belong to no single one. Accepted are "
            "those of BIO or IOB1 (B, I), BIOES (B, I, E, S), BILOU (B, I, L, U) and BMES (B, M, E, S)."
        )
    if not prefixes <= {"B", "I"}:
        return "BIOES"
    return "IOB1" if entity_starts_with_inside and not begin_stands_apart else "BIO"


def tags_to_word_spans(
    tags: Sequence[str], scheme: str = "BIO", *, lenient: bool = False
) -> list[tuple[int, int, str]]:
    """Return the entities as ``(first word, one past the last word, type)``, in order.

    Strict reading wants every entity complete: in BIO it begins with B-, so that a lone ``I-PER`` is no entity
    (seqeval's ``mode="strict"``); in BIOES it is one S- or runs from B- to E-. Lenient reading also starts an
    entity at any tag that continues none (seqeval's default mode). IO and IOB1 have one reading.

    Raises:
        InvalidSettingError: ``scheme`` is none of ``SCHEMES``.
    """
    if scheme not in SCHEMES:
        raise InvalidSettingError(f"There is no tagging scheme {scheme!r}. {suggest(scheme, SCHEMES)}")
    complete = None if lenient else _COMPLETE_ENTITY.get(scheme)
    entities = []
    for start, end, prefixes, label in _runs(tags):
        if complete is None or complete.fullmatch(prefixes):
            entities.append((start, end, label))
    return entities


def tags_to_spans(
    tags: Sequence[str],
    words: Sequence[tuple[int, int]],
    text: str,
    scheme: str = "BIO",
    lenient: bool = False,
) -> tuple[Span, ...]:
    """Return the entities as spans of ``text``, in order, each with its text.

    Args:
        tags: one per word.
        words: ``(start, end)`` of each word in ``text``.
        text: what the offsets count in.
        scheme: one of ``SCHEMES``.
        lenient: as in ``tags_to_word_spans``.

    Raises:
        DataError: the numbers of tags and words differ.
    """
    if len(tags) != len(words):
        raise DataError(f"There are {len(tags)} tags for {len(words)} words. Give one tag for each word.")
    spans = []
    for first, beyond, label in tags_to_word_spans(tags, scheme, lenient=lenient):
        start, end = words[first][0], words[beyond - 1][1]
        spans.append(Span(start, end, label, text=text[start:end]))
    return tuple(spans)


def spans_to_tags(spans: Iterable[Span], words: Sequence[tuple[int, int]]) -> tuple[tuple[str, ...], tuple[Span, ...]]:
    """Return one BIO tag per word, and the spans that BIO tags of these words cannot hold.

    A span is left out when it does not start and end where words do, or when it overlaps one that starts earlier
    (of two with the same start the longer is kept). The same span given twice counts once.
    """
    first_word = {start: number for number, (start, _) in enumerate(words)}
    last_word = {end: number for number, (_, end) in enumerate(words)}
    tags = ["O"] * len(words)
    left_out = []
    for span in sorted(set(spans), key=lambda span: (span.start, -span.end, span.label)):
        first, last = first_word.get(span.start), last_word.get(span.end)
        if first is None or last is None or last < first or any(tag != "O" for tag in tags[first : last + 1]):
            left_out.append(span)
            continue
        tags[first] = f"B-{span.label}"
        tags[first + 1 : last + 1] = [f"I-{span.label}"] * (last - first)
    return tuple(tags), tuple(left_out)


def split_words(text: str) -> tuple[tuple[int, int], ...]:
    """Return ``(start, end)`` of each word of running text.

    Letters and digits stay together with the combining marks on them; every punctuation mark or symbol is a word of
    its own, and so is every character of scripts written without spaces (Chinese, Japanese, Thai, Lao, Burmese,
    Khmer). Every character that is not white space belongs to exactly one word.
    """
    words: list[tuple[int, int]] = []
    open_word = False  # whether letters directly after the last word continue it, as after "e" + combining accent
    for match in _WORD_PIECE.finditer(text):
        start, end = match.span()
        follows = bool(words) and words[-1][1] == start
        mark_on_word = match["mark"] and _attaches(text[start])
        run_after_mark = match["run"] and open_word and _attaches(text[start - 1])
        if follows and (mark_on_word or run_after_mark):
            words[-1] = (words[-1][0], end)
        else:
            words.append((start, end))
            open_word = bool(match["run"] or mark_on_word)
    return tuple(words)


def join_words(tokens: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the tokens joined by single spaces, and ``(start, end)`` of each in that text.

    Tokens are kept as they are, empty ones and ones with spaces in them too: ``text[start:end]`` is the token.
    """
    words = []
    start = 0
    for token in tokens:
        words.append((start, start + len(token)))
        start += len(token) + 1
    return " ".join(tokens), tuple(words)


def bio_labels(types: Sequence[str]) -> tuple[str, ...]:
    """Return the BIO tags of entity types: ``("O", "B-LOC", "I-LOC", "B-PER", …)``, types in the order given."""
    return ("O", *(f"{prefix}-{label}" for label in types for prefix in "BI"))


def bio_tags_of_outputs(tags: Sequence[str]) -> tuple[str, ...]:
    """Return for each tag of a model, in whatever scheme, the BIO tag that says most nearly the same.

    What begins an entity (B, S, U) becomes B-, what goes on with one (I, M, E, L) becomes I-. A bare type becomes I-,
    since IO cannot part neighbours. Tags without ``"O"`` and prefixes are of words, such as parts of speech: each becomes
    B-, so that every word stands alone. The models of IO and IOB1 begin entities with I-: see ``repair_bio``.

    Args:
        tags: all tags there are, for they tell how one of them is to be read.
    """
    kinds = {_kind_of_tag(tag)[0] for tag in tags if tag != "O"}
    if "plain" in kinds and "typed" not in kinds:
        # Each is a name, even one that looks like a bare prefix, as S for a noun does.
        prefix = "I" if "O" in tags else "B"
        return tuple(tag if tag == "O" else f"{prefix}-{tag}" for tag in tags)
    parts = [split_tag(tag) for tag in tags]
    return tuple("O" if prefix == "O" else f"{_NEAREST_IN_BIO[prefix]}-{label}" for prefix, label in parts)


def allowed_transitions(tags: Sequence[str]) -> list[list[bool]]:
    """Return a matrix whose ``[i][j]`` says whether BIO tag ``tags[j]`` may directly follow ``tags[i]``.

    Only I- is bound: it follows B- or I- of its own type.
    """
    types_inside = [label for _, label in map(split_tag, tags)]
    return [
        [not tag.startswith("I-") or type_before == label for tag, label in zip(tags, types_inside, strict=True)]
        for type_before in types_inside
    ]


def allowed_starts(tags: Sequence[str]) -> list[bool]:
    """Return for each BIO tag whether a sentence may begin with it: all but I-."""
    return [not tag.startswith("I-") for tag in tags]


def repair_bio(tags: Sequence[str]) -> tuple[list[str], int]:
    """Return valid BIO tags, and how many were changed: an I- that continues no entity of its type becomes B-."""
    repaired = []
    changed = 0
    type_before = ""
    for tag in tags:
        prefix, label = split_tag(tag)
        if prefix == "I" and label != type_before:
            tag = "B" if label == _NO_TYPE else f"B-{label}"
            changed += 1
        repaired.append(tag)
        type_before = label
    return repaired, changed


_NO_TYPE = "_"

_PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I"}

_NEAREST_IN_BIO = {"B": "B", "S": "B", "I": "I", "E": "I"}

_PREFIX_FAMILIES = (frozenset("BIES"), frozenset("BILU"), frozenset("BMES"))

_COMPLETE_ENTITY = {"BIO": re.compile("BI*"), "BIOES": re.compile("S|BI*E")}

# Scripts without spaces between words: Thai and Lao, Burmese, Khmer, kana, Han with its extensions.
_SPACELESS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)

_WORD_PIECE = re.compile(rf"(?P<run>[^\W_{_SPACELESS}]+)|(?P<mark>\S)")

# Soft hyphen, zero-width non-joiner and joiner are written inside words.
_JOINERS = "\u00ad\u200c\u200d"


def _kind_of_tag(tag: str) -> tuple[str, str]:
    """Return how an entity's tag is written (``typed``, ``bare`` or ``plain``) and its prefix as written."""
    prefix, hyphen, _ = tag.partition("-")
    if prefix not in _PREFIXES:
        return "plain", "I"
    return ("typed" if hyphen else "bare"), prefix


def _runs(tags: Sequence[str]) -> Iterable[tuple[int, int, str, str]]:
    """Yield ``(start, end, prefixes, type)`` of each longest run in which every tag continues the one before."""
    start, prefixes, label = 0, "", ""
    for position, tag in enumerate(tags):
        prefix, tag_label = split_tag(tag)
        if prefixes and tag_label == label and prefix in "IE" and prefixes[-1] in "BI":
            prefixes += prefix
            continue
        if prefixes:
            yield start, position, prefixes, label
        start, prefixes, label = position, "" if prefix == "O" else prefix, tag_label
    if prefixes:
        yield start, len(tags), prefixes, label


def _attaches(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character).startswith("M")
