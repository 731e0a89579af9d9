"""The description of the routes as a page that needs nothing from the internet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["docs_page"]

_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "pre{overflow-x:auto;padding:.75rem;border:1px solid #8886;border-radius:.4rem}summary{cursor:pointer}"
    "td,th{text-align:left;padding:.1rem .8rem .1rem 0;vertical-align:top}h2 code{font-size:1.1rem}"
)


def docs_page(described: Mapping[str, Any]) -> str:
    """Return an HTML page of an OpenAPI description.

    Args:
        described: as ``FastAPI.openapi`` returns it.
    """
    title = f"{described['info']['title']} {described['info']['version']}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        '<p>The same for programs: <a href="openapi.json">openapi.json</a>. To try the models: <a href="demo">demo</a>.</p>'
        f"{''.join(_routes(described['paths']))}"
        f"<h2>Shapes</h2>{''.join(_shapes(described['components']['schemas']))}</html>"
    )


def _routes(paths: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, route in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(route['summary'])}.</p>"
            body = route.get("requestBody")
            if body is not None:
                yield f"<p>Body: {_named_shapes(body)}</p>"
            rows = (
                f"<tr><td>{status}<td>{escape(answer['description'])}<td>{_named_shapes(answer)}"
                for status, answer in route["responses"].items()
            )
            yield f"<table><tr><th>Status<th>Means<th>Body{''.join(rows)}</table>"


def _named_shapes(part: Mapping[str, Any]) -> str:
    """Return links to the shapes that ``part`` refers to."""
    found = dict.fromkeys(_references(part))
    return " or ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in found)


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == "$ref":
                yield value.rpartition("/")[2]
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _shapes(schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary><pre>{text}</pre></details>'
