"""What ``import lightft`` offers: sorted, complete, documented, and loaded at first use."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lightft

PACKAGE = Path(lightft.__file__).parent
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "lightft."))


def test_all_is_sorted_and_without_repetition() -> None:
    assert lightft.__all__ == sorted(set(lightft.__all__))


def test_everything_in_all_can_be_had_and_is_shown_by_dir() -> None:
    for name in lightft.__all__:
        assert getattr(lightft, name).__name__.rpartition(".")[2] == name
    assert set(lightft.__all__) <= set(dir(lightft))
    assert lightft.__version__


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {name.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert set(seen) - {"adapters"} == set(lightft.__all__) - {"adapters"}
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), str(name)) is getattr(lightft, str(name))


def test_the_words_of_the_quick_start_are_public() -> None:
    promised = {
        "ModelLoader",
        "LoRATrainer",
        "QLoRATrainer",
        "ModelComparator",
        "LLMNERExtractor",
        "AdapterSpec",
        "load",
        "load_data",
    }
    assert promised <= set(lightft.__all__)


def test_adapters_are_there_to_register_more() -> None:
    assert callable(lightft.adapters.register)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lightft' has no attribute 'LoraTrainer'"):
        _ = lightft.LoraTrainer


@pytest.mark.parametrize("name", lightft.__all__)
def test_every_public_name_and_its_public_methods_are_documented(name: str) -> None:
    thing = getattr(lightft, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for method, function in vars(thing).items():
            if not method.startswith("_") and callable(getattr(thing, method)):
                assert inspect.getdoc(getattr(thing, method)), f"{name}.{method}"
                assert inspect.signature(getattr(thing, method)).return_annotation is not inspect.Signature.empty
            del function


@pytest.mark.parametrize("name", MODULES)
def test_every_module_opens_with_a_sentence_and_lists_what_it_has(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in vars(module).get("__all__", ()):
        assert hasattr(module, public)
    assert list(vars(module).get("__all__", ())) == sorted(vars(module).get("__all__", ()), key=_constants_first)


def _constants_first(name: str) -> tuple[int, str]:
    """Order names as ruff does: CONSTANTS, Classes, functions."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name


def test_importing_loads_no_deep_learning_stack() -> None:
    code = (
        "import sys, lightft\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'bitsandbytes', 'accelerate', 'numpy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert finished.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "records",
        "spans",
        "registry",
        "metrics",
        "significance",
        "comparison",
        "reports",
        "comparator",
        "errors",
        "wording",
    ],
)
def test_what_compares_runs_loads_no_deep_learning_stack(module: str) -> None:
    code = (
        f"import sys, lightft.{module}\n"
        "print(sorted({'torch', 'transformers', 'peft', 'datasets', 'bitsandbytes', 'accelerate'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout.strip() == "[]"


def test_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_every_error_is_a_lightft_error_and_a_built_in_one() -> None:
    from lightft import errors

    for name in errors.__all__:
        kind = getattr(errors, name)
        if inspect.isclass(kind) and kind is not lightft.LightFTError:
            assert issubclass(kind, lightft.LightFTError)
            assert len(kind.__mro__) > 4, f"{name} is also a built-in error"
