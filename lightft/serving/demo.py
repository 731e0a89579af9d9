"""The demonstration page: static files that hold no data and ask for the key themselves."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from starlette.responses import Response

__all__ = ["DEMO_PATHS", "add_demo"]

_FILES = {
    "/demo": ("demo.html", "text/html"),
    "/demo/demo.js": ("demo.js", "text/javascript"),
    "/demo/demo.css": ("demo.css", "text/css"),
}
DEMO_PATHS = frozenset(_FILES)

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_demo(app: FastAPI) -> None:
    """Add the page to ``app``."""
    page = files("lightft.serving") / "page"
    for path, (name, kind) in _FILES.items():
        _add_file(app, path, (page / name).read_bytes(), kind)


def _add_file(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    @app.get(path, include_in_schema=False)
    async def static_file() -> Response:
        return Response(content, headers=_HEADERS, media_type=f"{kind}; charset=utf-8")
