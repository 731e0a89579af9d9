"""A recipe as YAML text; what is at its default is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import yaml

from lightft.recipe.nodes import plain_value
from lightft.recipe.parts import RecipeAdapter
from lightft.sweeping.search import Range

if TYPE_CHECKING:
    from lightft.recipe.recipe import Recipe

__all__ = ["yaml_of"]


def yaml_of(recipe: Recipe) -> str:
    """Return the text of a file that reads as an equal recipe."""
    plain = _plain_fields(recipe)
    text: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes every text that a reader could take for something else."""


def _represented(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = yaml.ScalarNode("", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if plain_value(plain) == text else "'")


_Dumper.add_representer(str, _represented)


def _plain_fields(record: Any) -> dict[str, Any]:
    plain = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if item.default is not MISSING and value == item.default:
            continue
        if item.default_factory is not MISSING and value == item.default_factory():
            continue
        plain[item.name] = _plain(value)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, RecipeAdapter):
        rest = {name: entry for name, entry in _plain_fields(value).items() if name != "params"}
        return {**rest, **{name: _alternatives(entry) for name, entry in value.params.items()}}
    if isinstance(value, Range):
        return _plain_fields(value)
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return _plain_fields(value)


def _alternatives(value: Any) -> Any:
    """Return a parameter as the file has it: a list is of alternatives, so a value of several names is a list in one."""
    if isinstance(value, list):
        return [list(entry) if isinstance(entry, tuple) else entry for entry in value]
    return [list(value)] if isinstance(value, tuple) else value
