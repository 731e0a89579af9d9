"""A service that answers as the HTTP contract says, by rule instead of by model, so that a page can be tried against it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

__all__ = ["POLICY", "Service", "classifier", "serve", "tagger", "writer"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Seconds after which a test that forgot to go on fails, and does not hang.
_PATIENCE = 30
_PAGE = {
    "/demo": ("demo.html", "text/html; charset=utf-8"),
    "/demo/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
    "/demo/demo.css": ("demo.css", "text/css; charset=utf-8"),
}


def tagger(name: str, words: Mapping[str, str], **facts: Any) -> dict[str, Any]:
    """Return a model that gives each word its type wherever it stands."""
    return _described(name, "token-classification", sorted(set(words.values())), words=words, **facts)


def classifier(name: str, probabilities: Mapping[str, float], **facts: Any) -> dict[str, Any]:
    """Return a model that gives every text the same probabilities."""
    return _described(name, "text-classification", list(probabilities), probabilities=probabilities, **facts)


def writer(name: str, pieces: Sequence[str], **facts: Any) -> dict[str, Any]:
    """Return a model that writes the same pieces whatever it is asked."""
    return _described(name, "causal-lm", [], pieces=pieces, **facts)


def _described(name: str, task: str, labels: list[str], **facts: Any) -> dict[str, Any]:
    model = {"name": name, "task": task, "labels": labels, "base": "bert-base-cased", "adapter": "lora"}
    return model | {"parameters": 108_310_272, "max_length": 512, "runtime": "torch", "precision": "float32"} | facts


@dataclass
class Service:
    """What the service has, and what goes wrong with it.

    Attributes:
        models: made by ``tagger``, ``classifier`` and ``writer``.
        key: that it asks for, if any.
        refusals: answers given in place of the next ones: status, headers and body.
        goes_on: while it is not set, no answer is given, and none that is being written goes on.
        breaks_off: whether a written answer ends in the middle.
        asked: the bodies of all questions so far.
    """

    models: list[dict[str, Any]]
    key: str | None = None
    refusals: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    goes_on: threading.Event = field(default_factory=threading.Event)
    breaks_off: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.goes_on.set()

    def describe(self) -> dict[str, Any]:
        """Return what ``/`` says."""
        rules = ("words", "probabilities", "pieces")
        models = [{key: value for key, value in model.items() if key not in rules} for model in self.models]
        return {"name": "lightft", "version": "1.2.3", "default_model": self.models[0]["name"], "models": models}

    def model(self, name: str | None) -> dict[str, Any]:
        """Return a model by its name, the first unless a name is given."""
        return next(model for model in self.models if name in (None, model["name"]))

    def predict(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of a tagger or classifier."""
        model = self.model(question.get("model"))
        if model["task"] == "text-classification":
            label, score = max(model["probabilities"].items(), key=lambda pair: pair[1])
            answer = {"label": label, "score": score, "probabilities": model["probabilities"]}
        else:
            answer = {"entities": list(_entities(question["text"], model["words"]))}
        return {"model": model["name"], **answer}


def _entities(text: str, words: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for number, (word, label) in enumerate(words.items()):
        for found in re.finditer(re.escape(word), text):
            start, end = found.span()
            yield {"text": word, "label": label, "start": start, "end": end, "score": 0.98 - 0.07 * (number % 5)}


@contextmanager
def serve(service: Service) -> Iterator[Service]:
    """Run a service on a free port until the block ends; ``service.url`` says where."""

    class Handler(_Handler):
        its = service

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        service.goes_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    its: Service

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path in _PAGE:
            name, kind = _PAGE[self.path]
            content = files("lightft").joinpath("serving", "page", name).read_bytes()
            return self._send(200, content, {"Content-Type": kind, "Content-Security-Policy": POLICY})
        if self.path != "/":
            return self._refuse(404, f"There is no {self.path}.")
        return self._answer(self.its.describe) if self._may() else None

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._may():
            return None
        self.its.asked.append({"path": self.path, **question})
        if self.path == "/generate":
            return self._stream(self.its.model(question["model"])["pieces"])
        self.its.goes_on.wait(_PATIENCE)
        return self._answer(lambda: self.its.predict(question))

    def _answer(self, answer: Callable[[], Any]) -> None:
        if self.its.refusals:
            status, headers, body = self.its.refusals.pop(0)
            return self._send(status, body, headers)
        return self._send(200, answer())

    def _may(self) -> bool:
        if self.its.key in (None, self.headers.get("Authorization", "").removeprefix("Bearer ")):
            return True
        self._refuse(401, "Send the key in the header Authorization: Bearer KEY.")
        return False

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {"detail": [{"loc": [], "msg": message, "type": "refused"}]})

    def _send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        try:
            self._send_to_end(status, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            # The page stopped listening.
            return

    def _send_to_end(self, status: int, body: Any, headers: Mapping[str, str] | None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, pieces: Sequence[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for piece in pieces:
                self._event({"text": piece})
                self.its.goes_on.wait(_PATIENCE)
            if not self.its.breaks_off:
                self._event({"done": True, "new_tokens": len(pieces), "finish": "end"})
        except (BrokenPipeError, ConnectionResetError):
            # The page stopped listening.
            return

    def _event(self, data: Any) -> None:
        content = f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
        # In two parts, which may divide a letter.
        self.wfile.write(content[:13])
        self.wfile.flush()
        self.wfile.write(content[13:])
        self.wfile.flush()
