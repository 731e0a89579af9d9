"""Registries: a name leads to a plug-in, whether it is ours or another package's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from lightft.errors import InvalidPluginError, UnknownNameError, suggest

__all__ = ["Registry"]

Plugin = TypeVar("Plugin")


class Registry(Generic[Plugin], Mapping[str, Plugin]):
    """Plug-ins of one family by name.

    Built-in plug-ins register when the family's package is imported, other packages' when a name is first looked
    up, through the entry-point group ``lightft.<family>``. An entry point names either a module that registers by
    decorator or the plug-in itself.

    Args:
        family: the entry-point group without ``lightft.``, e.g. ``"adapters"``.
        noun: what one plug-in is called in messages, e.g. ``"adapter"``.
        validate: called as ``validate(name, plugin)`` at registration; raises InvalidPluginError for an unfit one
            and returns what is stored.
    """

    def __init__(self, family: str, noun: str, validate: Callable[[str, Plugin], Plugin]) -> None:
        self.group = f"lightft.{family}"
        self._builtin_package = f"lightft.{family}"
        self._noun = noun
        self._validate = validate
        self._plugins: dict[str, Plugin] = {}
        self._loading = False
        self._loaded = False

    def register(self, name: str) -> Callable[[Plugin], Plugin]:
        """Return a decorator that registers a plug-in under ``name``.

        Raises:
            InvalidPluginError: the name is taken, or the plug-in does not keep the family's contract.
        """

        def decorate(plugin: Plugin) -> Plugin:
            self.add(name, plugin)
            return plugin

        return decorate

    def add(self, name: str, plugin: Plugin) -> None:
        """Register ``plugin`` under ``name``; the same checks as the decorator."""
        if not name or name != name.strip() or any(letter.isspace() for letter in name):
            raise InvalidPluginError(f"{name!r} is no {self._noun} name: use letters, digits, '-' and '_'.")
        if name in self._plugins:
            raise InvalidPluginError(
                f"There is already {_article(self._noun)} named {name!r} ({self._plugins[name]!r}). Choose another name."
            )
        self._plugins[name] = self._validate(name, plugin)

    def remove(self, name: str) -> None:
        """Forget a plug-in, e.g. one that a test registered."""
        del self._plugins[name]

    def __getitem__(self, name: str) -> Plugin:
        """Return the plug-in called ``name``.

        Raises:
            UnknownNameError: nothing has that name; the message lists what has.
        """
        self._load()
        try:
            return self._plugins[name]
        except KeyError:
            raise UnknownNameError(f"No {self._noun} named {name!r}. {suggest(name, self._plugins)}") from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._plugins

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._plugins))

    def __len__(self) -> int:
        self._load()
        return len(self._plugins)

    def _load(self) -> None:
        if self._loaded or self._loading:
            return
        self._loading = True
        try:
            import_module(self._builtin_package)
            for entry in entry_points(group=self.group):
                self._load_entry_point(entry)
            self._loaded = True
        finally:
            self._loading = False

    def _load_entry_point(self, entry: object) -> None:
        name, value, load = entry.name, entry.value, entry.load  # type: ignore[attr-defined]
        try:
            plugin = load()
        except Exception as cause:  # another package's code runs here, and may raise anything
            raise InvalidPluginError(
                f"The {self._noun} {name!r} ({value}) of entry-point group {self.group!r} cannot be imported: {cause}. "
                "Fix or uninstall the package that declares it."
            ) from cause
        if name not in self._plugins:
            self.add(name, plugin)


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
