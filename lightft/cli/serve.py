"""The ``serve`` verb of the ``lightft`` command: models behind HTTP."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from typing import Any

from lightft.garbage import collected_later

__all__ = ["add_arguments"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lightft serve``, and what runs it."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="adapter folders, merged models, checkpoints or ONNX folders; NAME=MODEL gives one another name",
    )
    parser.add_argument("--base", help="where the base model of the adapters is now, when it moved since training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--threads", type=int, help="how many threads compute; by default one for each core")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free (8000)")
    parser.add_argument("--api-key", help="ask for this key; better given as the environment variable LIGHTFT_API_KEY")
    parser.add_argument("--latency-budget-ms", type=float, help="how long one batch may compute (50)")
    parser.add_argument("--queue-texts", type=int, help="as many texts may always wait (32)")
    parser.add_argument("--queue-ms", type=float, help="how long a request may wait behind more texts than that (50)")
    parser.add_argument("--deadline-seconds", type=float, help="within which /predict answers (30)")
    parser.add_argument("--generation-seconds", type=float, help="within which /generate answers (120)")
    parser.add_argument("--stop-seconds", type=float, help="how long accepted work may take after SIGTERM (30)")
    parser.add_argument("--max-body-bytes", type=int, help="of a request (1000000)")
    parser.add_argument("--max-texts", type=int, help="in a request (64)")
    parser.add_argument("--max-characters", type=int, help="in a request (100000)")
    parser.add_argument("--log-text", action="store_true", default=None, help="write the texts into the log as well")
    parser.set_defaults(run=_serve)


def _serve(asked: argparse.Namespace) -> int:
    with collected_later():
        # Reading the help of another verb needs no deep-learning stack, and no web framework.
        from lightft.serving import ServedModels, ServeSettings, serve

        key = asked.api_key if asked.api_key is not None else os.environ.get("LIGHTFT_API_KEY")
        given: dict[str, Any] = {setting.name: getattr(asked, setting.name, None) for setting in fields(ServeSettings)}
        given["api_key"] = key
        settings = ServeSettings(**{name: value for name, value in given.items() if value is not None})
        models = ServedModels.open(asked.models, base=asked.base, device=asked.device, threads=asked.threads)
    if asked.host not in _LOOPBACK and key is None:
        print(f"lightft: {asked.host} can be reached from other machines, and no key is asked for.", file=sys.stderr)
    serve(models, settings, host=asked.host, port=asked.port)
    return 0
