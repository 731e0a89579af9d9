"""What every exporter must keep: it writes the whole of what it was asked for, or nothing and says why."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import lightft
from lightft.contracts.adapter_cells import HEADS, Bench, Cell
from lightft.errors import AdapterError
from lightft.exporters import EXPORTERS


def adapter_folder(head: str, bench: Bench) -> Path:
    """Return the folder of a LoRA adapter with that head."""
    seen = bench.seen(Cell("lora", "lora", (), head, "float32"))
    assert seen.refusal is None
    assert seen.error is None
    return seen.folder / "adapter"


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refusal_of(exporter_name: str, adapter: Path, out: Path) -> tuple[str | None, Path]:
    """Export, and return why not, or None, and what was written."""
    try:
        return None, lightft.export(adapter, to=exporter_name, out=out)
    except AdapterError as refusal:
        return str(refusal), out


@pytest.mark.parametrize("head", HEADS)
def test_writes_what_it_returns_or_refuses_and_leaves_nothing(
    exporter_name: str, head: str, bench: Bench, tmp_path: Path
) -> None:
    adapter = adapter_folder(head, bench)
    before = contents(adapter)
    refusal, written = refusal_of(exporter_name, adapter, tmp_path / "out")
    if refusal is not None:
        assert list(tmp_path.iterdir()) == [], refusal
    else:
        assert written.exists()
        assert tmp_path in written.parents
        # Nothing unfinished is left beside it.
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert contents(adapter) == before


def test_exports_an_adapter_of_some_head(exporter_name: str, bench: Bench, tmp_path: Path) -> None:
    refusals = {head: refusal_of(exporter_name, adapter_folder(head, bench), tmp_path / head)[0] for head in HEADS}
    assert None in refusals.values(), refusals


def test_a_folder_that_holds_no_adapter_is_refused(exporter_name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterError):
        lightft.export(tmp_path / "empty", to=exporter_name, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_exporter_is_explained(exporter_name: str) -> None:
    assert len(EXPORTERS[exporter_name].__doc__ or "") > 40
