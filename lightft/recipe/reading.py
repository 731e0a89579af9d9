"""Reads a recipe from YAML, and names every mistake in the file at once, each with its line and column."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lightft.adapters import ADAPTERS, AdapterSpec
from lightft.errors import InvalidSettingError, LightFTError, suggest
from lightft.recipe.nodes import Mistake, compose, place_of, plain_value
from lightft.recipe.parts import RecipeAdapter, RecipeComparison, RecipeData, RecipeModel
from lightft.recipe.recipe import Recipe, mistakes_in
from lightft.sweeping.budget import Budget
from lightft.sweeping.search import Range, Search
from lightft.train_config import TrainConfig

__all__ = ["read_recipe", "recipe_of_text"]

Made = TypeVar("Made")
Reader = Callable[[yaml.Node], Any]


_TRUE_OR_FALSE = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _NotRead(Exception):  # noqa: N818 (a way out of a value, not an error anyone sees)
    """The value has a mistake, which has been noted."""


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a file.

    Raises:
        InvalidSettingError: there is no such file, or it is no recipe; every mistake is named with its line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as cause:
        raise InvalidSettingError(f"There is no recipe {str(path)!r}. Give the path of a YAML file.") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidSettingError(f"The recipe {str(path)!r} cannot be read: {cause}") from cause
    return recipe_of_text(text, str(path))


def recipe_of_text(text: str, name: str = "The recipe") -> Recipe:
    """Return the recipe in a YAML text; ``name`` is what messages call it.

    Raises:
        InvalidSettingError: it is no recipe; every mistake is named with its line and column.
    """
    tree, mistakes = compose(text)
    if not mistakes:
        reading = _Reading()
        parts = reading.recipe(tree)
        mistakes = reading.mistakes
    if mistakes:
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise InvalidSettingError("\n".join([f"{name} has {count}:", *(f"  {each}" for each in sorted(mistakes))]))
    return Recipe(**parts)


class _Reading:
    """One walk through a tree; mistakes are noted and the walk goes on."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def recipe(self, tree: yaml.Node | None) -> dict[str, Any]:
        """Return the fields of a recipe, as far as they can be read."""
        if tree is None:
            self.mistakes.append(Mistake(1, 1, "The file is empty. A recipe has at least model, data and adapters."))
            return {}
        known: dict[str, Reader] = {
            "model": self._model,
            "data": self._data,
            "adapters": self._adapters,
            "training": self._training,
            "seeds": self._seeds,
            "budget": lambda node: self._made(Budget, node, {"steps": self._whole, "seconds": self._number}),
            "learning_rates": self._text,
            "search": self._search,
            "compare": lambda node: self._made(
                RecipeComparison, node, {"baseline": self._or_null(self._text), "metric": self._or_null(self._text)}
            ),
            "report": self._texts,
            "track": self._texts,
            "output_dir": self._text,
        }
        try:
            parts = self._mapping(tree, known, needed=("model", "data", "adapters"))
        except _NotRead:
            return {}
        for name, message in mistakes_in(parts):
            self._note(self._nearest(name, tree), message)
        return parts

    # --- the parts

    def _model(self, node: yaml.Node) -> RecipeModel:
        if isinstance(node, yaml.ScalarNode):
            return RecipeModel(self._text(node))
        optional = self._or_null(self._text)
        known: dict[str, Reader] = {
            "name": self._text,
            "revision": optional,
            "dtype": self._text,
            "quantization": optional,
            "device": self._text,
        }
        return self._made(RecipeModel, node, known, needed=("name",))

    def _data(self, node: yaml.Node) -> RecipeData:
        if isinstance(node, yaml.ScalarNode):
            return RecipeData(self._text(node))
        optional = self._or_null(self._text)
        known: dict[str, Reader] = {
            "source": self._source,
            "task": optional,
            "labels": self._or_null(self._texts),
            "text_column": optional,
            "label_column": optional,
            "revision": optional,
            "validation": self._number,
            "test_from": optional,
            "rows": lambda rows: self._mapping(
                rows, {"train": self._whole, "validation": self._whole, "test": self._whole}
            ),
        }
        return self._made(RecipeData, node, known, needed=("source",))

    def _source(self, node: yaml.Node) -> str | dict[str, str]:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, {"train": self._text, "validation": self._text, "test": self._text})
        return self._text(node)

    def _adapters(self, node: yaml.Node) -> tuple[RecipeAdapter, ...]:
        return tuple(self._list(node, self._adapter, "an adapter's kind, or a mapping with kind and parameters"))

    def _adapter(self, node: yaml.Node) -> RecipeAdapter:
        if isinstance(node, yaml.ScalarNode):
            return RecipeAdapter(self._kind(node))
        kind_node = self._entries(node).get("kind")
        if kind_node is None:
            raise self._refusal(node, f"An adapter needs its kind. {suggest('', ADAPTERS)}")
        kind = self._kind(kind_node)
        own: dict[str, Reader] = {
            "kind": self._text,
            "name": self._text,
            "quantization": self._alternatives(self._or_null(self._text)),
        }
        params: dict[str, Reader] = {name: self._parameter(kind, name) for name in AdapterSpec(kind).params}
        read = self._mapping(node, {**params, **own})
        given = {name: value for name, value in read.items() if name not in own}
        rest = {name: value for name, value in read.items() if name in ("name", "quantization")}
        return self._checked(lambda: RecipeAdapter(kind, given, **rest), node)

    def _kind(self, node: yaml.Node) -> str:
        kind = self._text(node)
        self._checked(lambda: AdapterSpec(kind), node)
        return kind

    def _parameter(self, kind: str, name: str) -> Reader:
        """Return the reader of an adapter's parameter, which asks the kind about every alternative."""

        def one(node: yaml.Node) -> Any:
            value = self._anything(node)
            self._checked(lambda: AdapterSpec(kind, {name: value}), node)
            return value

        return self._alternatives(one)

    def _anything(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {name: self._anything(value) for name, value in self._entries(node).items()}
        return tuple(self._list(node, self._anything, "a value")) if _is_list(node) else self._plain(node)

    def _training(self, node: yaml.Node) -> dict[str, Any]:
        hints = typing.get_type_hints(TrainConfig)
        known = {name: self._setting(name, hints[name]) for name in TrainConfig.__dataclass_fields__}
        return self._mapping(node, known)

    def _setting(self, name: str, hint: Any) -> Reader:
        members = typing.get_args(hint) or (hint,)
        readers: dict[Any, Reader] = {
            bool: self._boolean,
            int: self._whole,
            float: self._number,
            str: self._text,
        }
        reader = next(readers[plain] for plain in readers if plain in members)
        reader = self._or_null(reader) if type(None) in members else reader

        def read(node: yaml.Node) -> Any:
            value = reader(node)
            return self._checked(lambda: (TrainConfig.from_settings({name: value}), value)[1], node)

        return read

    def _seeds(self, node: yaml.Node) -> int | tuple[int, ...]:
        return tuple(self._list(node, self._whole, "a whole number")) if _is_list(node) else self._whole(node)

    def _search(self, node: yaml.Node) -> Search:
        known: dict[str, Reader] = {
            "space": self._space,
            "trials": self._whole,
            "pruner": self._text,
            "seed": self._whole,
        }
        return self._made(Search, node, known, needed=("space",))

    def _space(self, node: yaml.Node) -> dict[str, Any]:
        def one(name: str) -> Reader:
            def read(values: yaml.Node) -> Any:
                if _is_list(values):
                    found: Any = self._list(values, self._plain, "a value")
                else:
                    ends: dict[str, Reader] = {"low": self._number, "high": self._number, "log": self._boolean}
                    found = self._made(Range, values, ends, needed=("low", "high"))
                self._checked(lambda: Search({name: found}), values)
                return found

            return read

        return self._mapping(node, {name: one(name) for name in self._entries(node)})

    # --- values

    def _text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or (node.style is None and node.value in ("", "~", "null")):
            raise self._refusal(node, f"{_shown(node)} stands where a text belongs.")
        return str(node.value)

    def _texts(self, node: yaml.Node) -> tuple[str, ...]:
        return tuple(self._list(node, self._text, "a text")) if _is_list(node) else (self._text(node),)

    def _whole(self, node: yaml.Node) -> int:
        value = self._number(node, "a whole number")
        if value != int(value):
            raise self._refusal(node, f"{_shown(node)} stands where a whole number belongs.")
        return int(value)

    def _number(self, node: yaml.Node, what: str = "a number") -> float:
        value = self._plain(node)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._refusal(node, f"{_shown(node)} stands where {what} belongs.")
        return value

    def _boolean(self, node: yaml.Node) -> bool:
        value = str(self._plain(node)).lower()
        if value not in _TRUE_OR_FALSE:
            raise self._refusal(node, f"{_shown(node)} stands where true or false belongs.")
        return _TRUE_OR_FALSE[value]

    def _plain(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._refusal(node, f"{_shown(node)} stands where a single value belongs.")
        return plain_value(node)

    def _or_null(self, reader: Reader) -> Reader:
        def read(node: yaml.Node) -> Any:
            is_null = isinstance(node, yaml.ScalarNode) and plain_value(node) is None
            return None if is_null else reader(node)

        return read

    def _alternatives(self, reader: Reader) -> Reader:
        """Return a reader of one value, or of a list of values of which each is one after the other."""
        return lambda node: self._list(node, reader, "a value") if _is_list(node) else reader(node)

    def _list(self, node: yaml.Node, reader: Reader, of: str) -> list[Any]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._refusal(node, f"{_shown(node)} stands where a list belongs.")
        if not node.value:
            raise self._refusal(node, f"The list is empty. Give at least {of}.")
        read = []
        for entry in node.value:
            try:
                read.append(reader(entry))
            except _NotRead:
                continue
        if len(read) < len(node.value):
            raise _NotRead
        return read

    def _mapping(self, node: yaml.Node, known: Mapping[str, Reader], needed: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return what the readers make of the keys of ``node``; those with mistakes are left out."""
        entries = self._entries(node)
        for name in needed:
            if name not in entries:
                self._note(node, f"{name!r} is missing.")
        read = {}
        for name, value in entries.items():
            if name not in known:
                self._note(self._key(node, name), f"There is no field {name!r} here. {suggest(name, known)}")
                continue
            try:
                read[name] = known[name](value)
            except _NotRead:
                continue
        return read

    def _made(
        self, kind: Callable[..., Made], node: yaml.Node, known: Mapping[str, Reader], needed: tuple[str, ...] = ()
    ) -> Made:
        """Return a record of the fields of ``node``; what is wrong within or between them is noted."""
        before = len(self.mistakes)
        read = self._mapping(node, known, needed)
        if len(self.mistakes) > before:
            raise _NotRead
        return self._checked(lambda: kind(**read), node)

    def _entries(self, node: yaml.Node) -> dict[str, yaml.Node]:
        """Return the values of a mapping by key; a key that stands there twice is noted once."""
        if not isinstance(node, yaml.MappingNode):
            raise self._refusal(node, f"{_shown(node)} stands where fields belong, each as 'name: value'.")
        entries: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refusal(key, f"{_shown(key)} stands where the name of a field belongs.")
            name = key.value
            if name in entries:
                self._note(key, f"{name!r} stands here a second time. Keep one of the two.")
            entries.setdefault(name, value)
        return entries

    # --- mistakes

    def _checked(self, make: Callable[[], Made], node: yaml.Node) -> Made:
        try:
            return make()
        except LightFTError as error:
            raise self._refusal(node, str(error)) from error

    def _refusal(self, node: yaml.Node, message: str) -> _NotRead:
        self._note(node, message)
        return _NotRead()

    def _note(self, node: yaml.Node, message: str) -> None:
        mistake = Mistake(*place_of(node), message)
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)

    def _key(self, node: yaml.Node, name: str) -> yaml.Node:
        return next(key for key, _ in node.value if key.value == name)

    def _nearest(self, name: str, tree: yaml.Node) -> yaml.Node:
        """Return the node of a dotted name such as ``training.epochs`` or ``report[1]``, or of what it would stand in."""
        node = tree
        for part in re.findall(r"[^.\[\]]+", name):
            if isinstance(node, yaml.SequenceNode) and part.isdigit():
                node = node.value[int(part)]
            elif isinstance(node, yaml.MappingNode) and part in self._entries(node):
                node = self._entries(node)[part]
        return node


def _is_list(node: yaml.Node) -> bool:
    return isinstance(node, yaml.SequenceNode)


def _shown(node: yaml.Node) -> str:
    """Return a node as a message names it."""
    if isinstance(node, yaml.MappingNode):
        return "A mapping"
    if isinstance(node, yaml.SequenceNode):
        return "A list"
    if node.style is None and plain_value(node) is None:
        return "Nothing"
    text = str(node.value)
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
