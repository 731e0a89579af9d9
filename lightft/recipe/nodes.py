"""YAML as a tree that knows line and column, from text that may come from anyone: no tags, no anchors, no great depth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

__all__ = ["Mistake", "compose", "place_of", "plain_value"]

_MOST_CHARACTERS = 200_000
_DEEPEST = 20


@dataclass(frozen=True, order=True)
class Mistake:
    """What is wrong in a file: where, both counted from 1, and what is accepted."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


def compose(text: str) -> tuple[yaml.Node | None, list[Mistake]]:
    """Return the tree of a YAML document, None where it cannot be read, and what is wrong with its form.

    The tree is made of nodes as written; nothing is constructed, so that no text can run anything.
    """
    if len(text) > _MOST_CHARACTERS:
        return None, [
            Mistake(1, 1, f"The file has {len(text):,} characters; a recipe has at most {_MOST_CHARACTERS:,}.")
        ]
    try:
        mistakes = _mistakes_of_form(text)
        return (None, mistakes) if mistakes else (yaml.compose(text, Loader=yaml.SafeLoader), [])
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_mistake(error)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return None, [Mistake(line, column, f"The character U+{ord(text[error.position]):04X} cannot stand in YAML.")]


def place_of(node: yaml.Node) -> tuple[int, int]:
    """Return line and column of a node, both counted from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def plain_value(node: yaml.ScalarNode) -> Any:
    """Return the value of a scalar whose type nobody knows: number, true, false, null or text.

    ``no``, ``on`` and times of day are text here, which YAML 1.1 takes for other things, and ``1e-4`` is a number.
    """
    text: str = node.value
    if node.style is not None:
        return text
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        return float(text)
    return {"true": True, "false": False, "null": None, "~": None, "": None}.get(text.lower(), text)


def _mistakes_of_form(text: str) -> list[Mistake]:
    """Return what a recipe never has: tags, anchors, a second document, or lists in lists without end."""
    mistakes = []
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > _DEEPEST:
            return [Mistake(line, column, f"More than {_DEEPEST} lists and mappings stand inside each other.")]
        if documents > 1:
            return [Mistake(line, column, "A second document begins here. A file holds one recipe.")]
        if isinstance(event, yaml.AliasEvent) or (isinstance(event, yaml.NodeEvent) and event.anchor is not None):
            mistakes.append(Mistake(line, column, f"Anchors and aliases ({event.anchor}) are not read. Write it out."))
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag is not None:
            mistakes.append(Mistake(line, column, f"Tags are not read ({event.tag}). Write the value without one."))
    return mistakes


def _syntax_mistake(error: yaml.MarkedYAMLError) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    problem = error.problem or "This is no YAML"
    if "'\\t'" in problem:
        return Mistake(line, column, "A tab stands here. Indent with spaces.")
    context = f" {error.context}" if error.context else ""
    hints = {
        "mapping values are not allowed here": "Put text with a colon in quotes, and check the indent of this line.",
        "expected <block end>": "The indent of this line fits no line above.",
        "could not find expected ':'": "A colon is missing after a key, or the indent is off.",
    }
    hint = next((hint for words, hint in hints.items() if words in problem), "Check the line and the one above it.")
    return Mistake(line, column, f"This is no YAML:{context} {problem}. {hint}".replace(":  ", ": "))
