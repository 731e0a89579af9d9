"""Registries: a name leads to a plug-in, and an unfit or unknown one is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lightft import registry
from lightft.errors import InvalidPluginError, LightFTError, UnknownNameError, suggest
from lightft.registry import Registry


def only_functions(name: str, plugin: Any) -> Any:
    if not callable(plugin):
        raise InvalidPluginError(f"The shape {name!r} is no function.")
    return plugin


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Registry[Callable[[], str]]:
    made: Registry[Callable[[], str]] = Registry("shapes", "shape", only_functions)
    monkeypatch.setattr(registry, "import_module", lambda name: None)
    return made


def entry(name: str, load: Callable[[], Any]) -> Any:
    return SimpleNamespace(name=name, value=f"package:{name}", load=load)


def test_a_registered_plug_in_is_found_by_name(shapes: Registry[Any]) -> None:
    @shapes.register("circle")
    def circle() -> str:
        return "round"

    assert shapes["circle"] is circle
    assert circle() == "round"
    assert "circle" in shapes
    assert "square" not in shapes
    assert shapes.get("square") is None


def test_names_come_sorted(shapes: Registry[Any]) -> None:
    for name in ("square", "circle", "oval"):
        shapes.add(name, lambda: "")
    assert list(shapes) == ["circle", "oval", "square"]
    assert len(shapes) == 3
    shapes.remove("oval")
    assert list(shapes) == ["circle", "square"]


def test_an_unknown_name_suggests_the_nearest(shapes: Registry[Any]) -> None:
    shapes.add("circle", lambda: "")
    shapes.add("square", lambda: "")
    with pytest.raises(UnknownNameError) as caught:
        shapes["sqare"]
    assert str(caught.value) == "No shape named 'sqare'. Did you mean 'square'? Known: circle, square."
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, LightFTError)


def test_a_name_is_taken_once(shapes: Registry[Any]) -> None:
    shapes.add("circle", lambda: "")
    with pytest.raises(InvalidPluginError, match="There is already a shape named 'circle'"):
        shapes.add("circle", lambda: "other")


@pytest.mark.parametrize("name", ["", " ", "two words", " circle", "circle\n"])
def test_a_name_is_one_word(shapes: Registry[Any], name: str) -> None:
    with pytest.raises(InvalidPluginError, match="is no shape name"):
        shapes.add(name, lambda: "")


def test_an_unfit_plug_in_is_refused_and_not_kept(shapes: Registry[Any]) -> None:
    with pytest.raises(InvalidPluginError, match="The shape 'circle' is no function"):
        shapes.register("circle")("round")  # type: ignore[arg-type]
    assert "circle" not in shapes


def test_another_packages_plug_ins_are_found_at_first_use(
    shapes: Registry[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def by_itself() -> str:
        return "a plug-in"

    def by_decorator() -> Any:
        shapes.add("oval", lambda: "from a module")
        return SimpleNamespace()

    def installed(group: str) -> list[Any]:
        asked.append(group)
        return [entry("hexagon", lambda: by_itself), entry("oval", by_decorator)]

    monkeypatch.setattr(registry, "entry_points", installed)
    shapes.add("circle", lambda: "")
    assert asked == []
    assert list(shapes) == ["circle", "hexagon", "oval"]
    assert shapes["hexagon"] is by_itself
    assert shapes["oval"]() == "from a module"
    assert asked == ["lightft.shapes"]


def test_a_package_that_cannot_be_imported_is_named(shapes: Registry[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ImportError("no module named 'numpi'")

    monkeypatch.setattr(registry, "entry_points", lambda group: [entry("hexagon", broken)])
    with pytest.raises(InvalidPluginError) as caught:
        shapes["circle"]
    assert str(caught.value) == (
        "The shape 'hexagon' (package:hexagon) of entry-point group 'lightft.shapes' cannot be imported: no module named "
        "'numpi'. Fix or uninstall the package that declares it."
    )


def test_a_built_in_name_is_not_taken_over_by_a_package(shapes: Registry[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def ours() -> str:
        return "ours"

    shapes.add("circle", ours)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry("circle", lambda: lambda: "theirs")])
    assert shapes["circle"] is ours


def test_suggestions_list_what_is_known() -> None:
    assert suggest("xyz", ["b", "a"]) == "Known: a, b."
    assert suggest("lroa", ["ia3", "lora"]) == "Did you mean 'lora'? Known: ia3, lora."
    assert suggest("x", []) == "Known: none."
