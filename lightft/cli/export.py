"""The ``export`` verb of the ``lightft`` command: an adapter as something that works without lightft."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightft.errors import InvalidSettingError

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lightft export``, and what runs it."""
    parser.add_argument("adapter", type=Path, help="an adapter folder, such as runs/NAME/adapter")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT", help="merged, onnx, gguf, bundle, adapter, or the name of a plug-in"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; it must not exist")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the format, such as dtype=bfloat16; may be given several times",
    )
    parser.add_argument(
        "--probe",
        type=Path,
        metavar="FILE",
        help="texts such as the model will read, one a line in UTF-8: what is written is compared with the adapter on them",
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload it to this repository of the Hugging Face Hub")
    parser.add_argument(
        "--public", action="store_true", help="make the repository public, if it does not exist; else it is private"
    )
    parser.set_defaults(run=_export)


def _export(asked: argparse.Namespace) -> int:
    with _unwound_by_sigterm():
        return _write_and_upload(asked)


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, as Slurm, systemd and Docker send it, end the block like Ctrl-C: what is half written is removed."""

    def leave(number: int, frame: FrameType | None) -> None:
        # A second signal must not interrupt the removal.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_and_upload(asked: argparse.Namespace) -> int:
    # Reading the help of another verb needs no deep-learning stack.
    from lightft.exporters import export, push_to_hub
    from lightft.exporters.certified import certificate_line
    from lightft.exporters.hub import check_repository_name

    if asked.push is not None:
        # Refused now rather than after the model was written.
        check_repository_name(asked.push)
    options = _options(asked.option)
    if asked.probe is not None:
        options["probe"] = _texts(asked.probe)
    written = export(asked.adapter, to=asked.to, out=asked.out, **options)
    print(f"Wrote {written}")
    certified = certificate_line(written)
    if certified is not None:
        print(certified)
    if asked.push is not None:
        print(f"Uploaded to {push_to_hub(written, asked.push, private=not asked.public)}")
    return 0


def _options(given: Sequence[str]) -> dict[str, Any]:
    """Return the options of ``NAME=VALUE`` arguments; a value that is JSON, such as a number or a list, is read as such."""
    options: dict[str, Any] = {}
    for argument in given:
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise InvalidSettingError(f"--option takes NAME=VALUE, such as dtype=bfloat16; {argument!r} is not that.")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def _texts(path: Path) -> list[str]:
    """Return the lines of a file that hold more than white space.

    Raises:
        InvalidSettingError: it cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidSettingError(f"--probe names {path}, which cannot be read as text in UTF-8: {cause}") from cause
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise InvalidSettingError(f"--probe names {path}, which holds no text. Write one text on each line.")
    return texts
