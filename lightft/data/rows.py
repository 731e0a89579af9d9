"""What rows mean: the shapes that data sets come in, each turned into text and gold answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightft.data.readers import Row
from lightft.data.task_data import TASKS
from lightft.errors import DataError
from lightft.records import Message, Span

__all__ = ["Parsed", "Shape", "Unusable", "parse", "recognise"]


@dataclass(frozen=True)
class Parsed:
    """One row understood: a text with its answer, or words with their tags.

    Attributes:
        place: file and line, for messages.
        text: what is read; empty where ``tokens`` holds the words.
        answer: the class, the answer to write, or the spans.
        tokens: the words, where the row comes in words.
        tags: one tag per word.
        context: earlier messages of a conversation.
    """

    place: str
    text: str = ""
    answer: str | tuple[Span, ...] = ""
    tokens: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    context: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Unusable:
    """A row that is well formed but holds nothing to learn from or to score, and why."""

    reason: str


@dataclass(frozen=True)
class Shape:
    """How the rows of a data set are laid out.

    Attributes:
        task: the task that this shape is for.
        columns: the columns it reads, by role.
        read: turns the fields of one row into what it means.
    """

    task: str
    columns: Mapping[str, str]
    read: Callable[[Row, Mapping[str, str], Mapping[str, tuple[str, ...]]], Parsed | Unusable]


def recognise(row: Row, task: str | None, text_column: str | None, label_column: str | None) -> Shape:
    """Return the shape that a data set's first row shows.

    Args:
        row: the first row.
        task: only shapes for this task; None for any.
        text_column: the column with text, words or prompt, where it has an unusual name.
        label_column: the column with class, tags, spans or answer, where it has an unusual name.

    Raises:
        DataError: the columns fit no shape; the message lists them and what is understood.
    """
    for column in (text_column, label_column):
        if column is not None and column not in row.fields:
            raise DataError(f"{row.place}: there is no column {column!r}. The columns are {', '.join(row.fields)}.")
    for shape in _shapes_of(row.fields, text_column, label_column):
        if task in (None, shape.task):
            return shape
    wanted = [task] if task else TASKS
    raise DataError(
        f"{row.place}: the columns {', '.join(row.fields) or '(none)'} do not tell how to read a row"
        + (f" for {task}" if task else "")
        + f". Understood are {'; '.join(_UNDERSTOOD[name] for name in wanted)}. Rename the columns, or name yours with "
        "text_column= and label_column=."
    )


def parse(row: Row, shape: Shape, class_names: Mapping[str, tuple[str, ...]]) -> Parsed | Unusable:
    """Return what one row means.

    Raises:
        DataError: a field is missing or of the wrong kind.
    """
    return shape.read(row, shape.columns, class_names)


# --- recognising

_TOKENS = ("tokens", "words")
_TAGS = ("ner_tags", "tags", "labels")
_TEXTS = ("text", "sentence", "content", "review")
_SPANS = ("entities", "spans")
_CLASSES = ("label", "labels", "intent", "category", "class")
_CHATS = ("messages", "conversations")
_PROMPTS = ("instruction", "prompt", "question")
_ANSWERS = ("output", "response", "completion", "answer")
_INPUTS = ("input", "context")
_SYSTEMS = ("system", "system_prompt")

_UNDERSTOOD = {
    "token-classification": "tokens + ner_tags, or text + entities of start, end and label (token-classification)",
    "text-classification": "text + label (text-classification)",
    "causal-lm": (
        "messages of role and content, instruction (+ input) + output, prompt + completion, question + answer, "
        "or text alone (causal-lm)"
    ),
}


def _shapes_of(fields: Mapping[str, Any], text_column: str | None, label_column: str | None) -> Iterator[Shape]:
    def find(names: Sequence[str], kind: type | tuple[type, ...], asked_for: str | None = None) -> str | None:
        candidates = (asked_for,) if asked_for else names
        return next((name for name in candidates if name in fields and isinstance(fields[name], kind)), None)

    anything = (str, int, float, type(None))
    chat = find(_CHATS, list, text_column)
    if chat and label_column is None:
        yield Shape("causal-lm", {"messages": chat}, _read_chat)
    tokens, tags = find(_TOKENS, list, text_column), find(_TAGS, list, label_column)
    if tokens and tags:
        yield Shape("token-classification", {"tokens": tokens, "tags": tags}, _read_tagged)
    text = find(_TEXTS, str, text_column)
    spans = find(_SPANS, list, label_column)
    if text and spans:
        yield Shape("token-classification", {"text": text, "spans": spans}, _read_spans)
    label = find(_CLASSES, anything, label_column)
    if text and label:
        yield Shape("text-classification", {"text": text, "label": label}, _read_classified)
    prompt, answer = find(_PROMPTS, (str, list), text_column), find(_ANSWERS, (*anything, list, dict), label_column)
    if prompt and answer:
        yield Shape("causal-lm", {"prompt": prompt, "answer": answer}, _read_instruction)
    if text and label_column is None:
        yield Shape("causal-lm", {"text": text}, _read_ready_text)


# --- reading


def _field(row: Row, column: str, kind: type | tuple[type, ...], expected: str) -> Any:
    if column not in row.fields:
        raise DataError(f"{row.place}: the field {column!r} is missing. The fields are {', '.join(row.fields)}.")
    value = row.fields[column]
    if not isinstance(value, kind):
        raise DataError(f"{row.place}: {column!r} is of type {type(value).__name__}, where {expected} is expected.")
    return value


def _name_of(row: Row, column: str, value: Any, names: tuple[str, ...] | None) -> str:
    """Return the class or tag name that a value stands for."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(
            f"{row.place}: {column!r} is of type {type(value).__name__}, where a name or number is expected."
        )
    if names is None:
        return str(value)
    if not 0 <= value < len(names):
        raise DataError(f"{row.place}: {column!r} holds {value}, but the classes are numbered 0 to {len(names) - 1}.")
    return names[value]


def _read_tagged(row: Row, columns: Mapping[str, str], class_names: Mapping[str, tuple[str, ...]]) -> Parsed | Unusable:
    column = columns["tags"]
    tokens = _field(row, columns["tokens"], list, "a list of words")
    values = _field(row, column, list, "a list with one tag per word")
    if len(tokens) != len(values):
        raise DataError(
            f"{row.place}: {len(tokens)} words but {len(values)} tags in {column!r}; there is one for each word."
        )
    if any(not isinstance(token, str) for token in tokens):
        raise DataError(f"{row.place}: {columns['tokens']!r} holds something that is no string; a word is a string.")
    names = class_names.get(column)
    if names is None and any(not isinstance(value, str) for value in values):
        raise DataError(
            f"{row.place}: {column!r} holds numbers, and nothing tells the tags they stand for. Write tags as names "
            '("B-PER"), or use Parquet files with ClassLabel features.'
        )
    if not tokens:
        return Unusable("without words")
    return Parsed(row.place, tokens=tuple(tokens), tags=tuple(_name_of(row, column, value, names) for value in values))


def _read_spans(row: Row, columns: Mapping[str, str], _: Mapping[str, tuple[str, ...]]) -> Parsed:
    text = _field(row, columns["text"], str, "a text")
    entities = _field(row, columns["spans"], list, "a list of entities")
    spans = {_span(f"{row.place}, entity {number}", entity, text) for number, entity in enumerate(entities, start=1)}
    return Parsed(row.place, text=text, answer=tuple(sorted(spans)))


def _span(place: str, entity: Any, text: str) -> Span:
    if isinstance(entity, list | tuple) and len(entity) == 3:
        entity = dict(zip(("start", "end", "label"), entity, strict=True))
    if not isinstance(entity, dict):
        raise DataError(
            f"{place}: an object with start, end and label is expected, this is of type {type(entity).__name__}."
        )
    start, end, label = entity.get("start"), entity.get("end"), entity.get("label", entity.get("type"))
    if not isinstance(start, int) or not isinstance(end, int) or not isinstance(label, str):
        raise DataError(
            f"{place}: start and end are characters counted from 0, label (or type) is a name; the fields are "
            f"{', '.join(map(str, entity))}."
        )
    if not 0 <= start < end <= len(text):
        raise DataError(f"{place}: characters [{start}, {end}) do not lie in the text of {len(text)} characters.")
    if isinstance(entity.get("text"), str) and entity["text"] != text[start:end]:
        raise DataError(
            f"{place}: its text is not what stands at characters [{start}, {end}). Offsets count characters (not "
            "bytes), and end is one past the last."
        )
    return Span(start, end, label, text=text[start:end])


def _read_classified(
    row: Row, columns: Mapping[str, str], class_names: Mapping[str, tuple[str, ...]]
) -> Parsed | Unusable:
    text = _field(row, columns["text"], str, "a text")
    column = columns["label"]
    value = _field(row, column, (str, int, float, type(None)), "one class")
    # -1 is how the datasets library writes "gold label not published".
    if value is None or value == "" or (value == -1 and column in class_names):
        return Unusable("without a gold label")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return Parsed(row.place, text=text, answer=_name_of(row, column, value, class_names.get(column)))


def _read_instruction(row: Row, columns: Mapping[str, str], _: Mapping[str, tuple[str, ...]]) -> Parsed | Unusable:
    prompt = _field(row, columns["prompt"], (str, list), "a text")
    answer = _field(row, columns["answer"], (str, int, float, list, dict, type(None)), "an answer")
    if isinstance(prompt, list):
        turns = answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
        return _conversation(row.place, [*prompt, *turns])
    if answer is None or answer == "":
        return Unusable("without an answer")
    if not isinstance(answer, str):
        answer = json.dumps(answer, ensure_ascii=False)
    more, system = _first_text(row, _INPUTS), _first_text(row, _SYSTEMS)
    return Parsed(
        row.place,
        text=f"{prompt}\n\n{more}" if more else prompt,
        answer=answer,
        context=(Message("system", system),) if system else (),
    )


def _first_text(row: Row, columns: Sequence[str]) -> str | None:
    """Return the text of the first of these columns that holds any; rows may leave them out."""
    texts = (row.fields.get(column) for column in columns)
    return next((text for text in texts if isinstance(text, str) and text.strip()), None)


def _read_chat(row: Row, columns: Mapping[str, str], _: Mapping[str, tuple[str, ...]]) -> Parsed | Unusable:
    return _conversation(row.place, _field(row, columns["messages"], list, "a list of messages"))


_ROLES = {
    "assistant": "assistant", "bot": "assistant", "chatgpt": "assistant", "gpt": "assistant", "model": "assistant",
    "human": "user", "user": "user", "system": "system",
}  # fmt: skip


def _conversation(place: str, turns: Sequence[Any]) -> Parsed | Unusable:
    messages = [_message(f"{place}, message {number}", turn) for number, turn in enumerate(turns, start=1)]
    if not messages or messages[-1].role != "assistant" or not messages[-1].content:
        return Unusable("without a final answer")
    if len(messages) < 2 or messages[-2].role != "user":
        raise DataError(f"{place}: the final answer follows no user message. A conversation ends user, assistant.")
    return Parsed(place, text=messages[-2].content, answer=messages[-1].content, context=tuple(messages[:-2]))


def _message(place: str, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f"{place}: an object with role and content is expected, this is of type {type(turn).__name__}.")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(f"{place}: the role is {role!r}; system, user (or human) and assistant (or gpt) are known.")
    if not isinstance(content, str):
        raise DataError(f"{place}: the content is of type {type(content).__name__}; a text is expected.")
    return Message(_ROLES[role], content)


def _read_ready_text(row: Row, columns: Mapping[str, str], _: Mapping[str, tuple[str, ...]]) -> Parsed | Unusable:
    text = _field(row, columns["text"], str, "a text")
    return Parsed(row.place, answer=text) if text.strip() else Unusable("without text")
