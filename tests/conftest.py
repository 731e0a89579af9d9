"""Tiny models in folders of their own, made once per session, and a browser; nothing is read from the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import HOW_TO_INSTALL, Browser, find_chromium

# Tokenizers warn when a process that used their threads is forked.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep converted models out of the user's cache."""
    monkeypatch.setenv("LIGHTFT_HOME", str(tmp_path / "lightft-home"))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT without dropout or head, with a WordPiece tokenizer."""
    from tests.tiny_models import save_bert

    return save_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def other_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of the same shape with other weights."""
    from tests.tiny_models import save_bert

    return save_bert(tmp_path_factory.mktemp("models") / "other-bert", seed=1)


@pytest.fixture(scope="session")
def dropout_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with dropout."""
    from tests.tiny_models import save_bert

    return save_bert(tmp_path_factory.mktemp("models") / "dropout-bert", dropout=0.1)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA with a chat template and no padding token."""
    from tests.tiny_models import save_llama

    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def plain_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA without a chat template."""
    from tests.tiny_models import save_llama

    return save_llama(tmp_path_factory.mktemp("models") / "plain-llama", chat=False)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; tests are skipped where there is none."""
    binary = find_chromium()
    if binary is None:
        pytest.skip(HOW_TO_INSTALL)
    with Browser(binary, tmp_path_factory.mktemp("chromium")) as started:
        yield started
