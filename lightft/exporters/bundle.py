"""Export to a deployable bundle: one archive with the model, a server for it, its requirements and a Dockerfile."""

from __future__ import annotations

import gzip
import json
import os
import platform
import re
import tarfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import jinja2
from peft import PeftConfig

from lightft.checkpoint import MANIFEST_NAME, Manifest
from lightft.errors import InvalidSettingError
from lightft.exporters.bundle_packages import requirements, write_own_wheel
from lightft.exporters.exporter import EXPORTERS, register

__all__ = ["bundle", "pack"]

_ENDING = ".tar.gz"
_MOMENT = 315_532_800  # 1980-01-01, the first date that a zip file knows
_REQUESTS = {"causal-lm": ("/generate", {"prompt": "A question."}), "other": ("/predict", {"text": "A text."})}


@register("bundle")
def bundle(
    adapter: Path,
    out: Path,
    *,
    model: Literal["merged", "onnx-int8"] = "merged",
    probe: Sequence[str] | None = None,
) -> Path:
    """Write ``OUT.tar.gz``: unpack it anywhere, ``docker build``, ``docker run``, and the model answers on port 8000.

    The archive holds one folder: ``model/`` with its certificate and its model card, ``app/`` that starts
    ``lightft serve`` on it, ``requirements.txt`` with the versions that the certificate was made with, lightft itself as a
    wheel, a ``Dockerfile`` for the CPU, and a ``README.md`` with the commands. The same files make the same bytes.

    Args:
        adapter: the adapter folder.
        out: the archive's name, with or without ``.tar.gz``; what it unpacks to is called likewise.
        model: the exporter that writes the model: ``"merged"``, or ``"onnx-int8"`` for one
            that is smaller, and needs no torch.
        probe: texts to compare the model on, such as it will read.

    Returns:
        The archive.

    Raises:
        InvalidSettingError: the archive exists.
        AdapterError: the adapter cannot be exported to ``model``.
    """
    archive = out.with_name(f"{out.name.removesuffix(_ENDING)}{_ENDING}")
    if archive.exists():
        raise InvalidSettingError(f"{archive} exists already. Choose another name, or delete it.")
    name = _service_name(out.name.removesuffix(_ENDING))
    given = {"probe": probe} if probe is not None else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    # Whatever happens inside, the hidden folder is gone afterwards; the archive leaves it only when it is whole.
    with TemporaryDirectory(dir=out.parent, prefix=f".{archive.name}.unfinished-") as unfinished:
        layout = Path(unfinished) / name
        layout.mkdir()
        EXPORTERS[model](adapter, layout / "model", **given)
        write_own_wheel(layout / "wheels")
        pinned = requirements(with_torch=model != "onnx-int8")
        (layout / "requirements.txt").write_text(pinned, encoding="utf-8")
        _write_service(layout, name, _task_of(adapter))
        os.replace(pack(layout, Path(unfinished) / archive.name), archive)
    return archive


def _service_name(given: str) -> str:
    """Return a name that a folder, a Docker image and a model can have."""
    return re.sub(r"[^a-z0-9]+", "-", given.lower()).strip("-") or "model"


def _task_of(adapter: Path) -> str:
    if (adapter / MANIFEST_NAME).is_file():
        return Manifest.read(adapter).task
    is_language_model = PeftConfig.from_pretrained(str(adapter)).task_type == "CAUSAL_LM"
    return "causal-lm" if is_language_model else "other"


def _write_service(layout: Path, name: str, task: str) -> None:
    path, body = _REQUESTS.get(task, _REQUESTS["other"])
    told = {
        "name": name,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "version": version("lightft"),
        "path": path,
        "body": json.dumps(body),
    }
    (layout / "app").mkdir()
    for template, file in {
        "Dockerfile.jinja": "Dockerfile",
        "main.py.jinja": "app/main.py",
        "README.md.jinja": "README.md",
    }.items():
        (layout / file).write_text(_rendered(template, told), encoding="utf-8")


def _rendered(template: str, told: dict[str, Any]) -> str:
    source = files("lightft.exporters").joinpath("bundle_files", template).read_text(encoding="utf-8")
    # What is written is code, a Dockerfile and Markdown, and the names in it were made safe.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    return environment.from_string(source).render(told)


def pack(folder: Path, archive: Path) -> Path:
    """Write a folder as an archive whose bytes depend on names and contents alone, and return it."""
    with (
        archive.open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=_MOMENT) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in [folder, *sorted(folder.rglob("*"))]:
            entry = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
            entry.mtime = _MOMENT
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            else:
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as content:
                    tar.addfile(entry, content)
    return archive
