"""A small stand-in for the Hugging Face Hub on this machine, for tests of what is downloaded from it.

It answers what ``huggingface_hub`` and ``transformers`` ask when they read: repository facts, file lists, and files
at a branch, tag or commit, for models and data sets. Nothing can be written to it, and there are no accounts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

__all__ = ["HubDouble", "no_hub", "serve_hub"]


@dataclass
class Repository:
    """The revisions of one model or data set: branch or commit to folder."""

    commits: dict[str, str] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)


@dataclass
class HubDouble:
    """A Hub whose repositories are folders of this machine.

    Attributes:
        url: what ``HF_ENDPOINT`` is set to.
        requests: the method and path of every request so far.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    _repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)

    def add_model(self, repo: str, folder: Path, revision: str = "main") -> str:
        """Serve ``folder`` as a revision of the model ``owner/name``; returns its commit."""
        return self._add("models", repo, folder, revision)

    def add_dataset(self, repo: str, folder: Path, revision: str = "main") -> str:
        """Serve ``folder`` as a revision of the data set ``owner/name``; returns its commit."""
        return self._add("datasets", repo, folder, revision)

    def _add(self, kind: str, repo: str, folder: Path, revision: str) -> str:
        digest = hashlib.sha1(f"{kind} {repo}".encode(), usedforsecurity=False)
        for name in _names(folder):
            digest.update(name.encode() + (folder / name).read_bytes())
        commit = digest.hexdigest()
        repository = self._repositories.setdefault((kind, repo), Repository())
        repository.commits.update({revision: commit, commit: commit})
        repository.folders[commit] = folder
        return commit

    def answer(self, path: str) -> Answer:
        """Return the answer to a GET of ``path``."""
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        if parts[0] == "api":
            return self._facts(parts[1], "/".join(parts[2:4]), parts[4:])
        kind = "datasets" if parts[0] == "datasets" else "models"
        owner, name, verb, revision, *file = parts[1:] if kind == "datasets" else parts
        if verb != "resolve":
            return Answer.missing("EntryNotFound")
        return self._file(kind, f"{owner}/{name}", revision, "/".join(file))

    def _facts(self, kind: str, repo: str, rest: list[str]) -> Answer:
        verb, revision, *inner = (*rest, "main") if len(rest) == 1 else rest or ("revision", "main")
        found = self._find(kind, repo, revision)
        if isinstance(found, Answer):
            return found
        commit, folder = found
        if verb == "tree":
            if inner and not (folder / "/".join(inner)).is_dir():
                return Answer.missing("EntryNotFound")
            files = [name for name in _names(folder) if name.startswith("".join(f"{part}/" for part in inner))]
            return Answer.of_json([{"type": "file", "path": name, **_blob(folder / name)} for name in files])
        siblings = [{"rfilename": name} for name in _names(folder)]
        return Answer.of_json({"id": repo, "sha": commit, "siblings": siblings, "tags": [], "private": False})

    def _file(self, kind: str, repo: str, revision: str, name: str) -> Answer:
        found = self._find(kind, repo, revision)
        if isinstance(found, Answer):
            return found
        commit, folder = found
        headers = {"X-Repo-Commit": commit}
        if name not in _names(folder):
            return Answer(404, headers={**headers, "X-Error-Code": "EntryNotFound"})
        etag = _blob(folder / name)["oid"]
        return Answer(200, (folder / name).read_bytes(), {**headers, "ETag": f'"{etag}"'})

    def _find(self, kind: str, repo: str, revision: str) -> tuple[str, Path] | Answer:
        repository = self._repositories.get((kind, repo))
        if repository is None:
            return Answer.missing("RepoNotFound")
        commit = repository.commits.get(revision)
        return (commit, repository.folders[commit]) if commit else Answer.missing("RevisionNotFound")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def missing(cls, code: str) -> Answer:
        """Return the Hub's 404 with the code by which its client tells what is missing."""
        return cls(404, headers={"X-Error-Code": code})

    @classmethod
    def of_json(cls, content: Any) -> Answer:
        """Return content as JSON."""
        return cls(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


@contextmanager
def serve_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[HubDouble]:
    """Serve an empty Hub on 127.0.0.1, and let huggingface_hub and transformers in this process use it.

    ``HF_ENDPOINT`` is read when huggingface_hub is imported, so what it set then is changed as well; the
    environment variables are for processes that a test starts.

    Args:
        monkeypatch: undoes all of it after the test.
        cache: an empty folder for what is downloaded.
    """
    double = HubDouble()

    class Handler(BaseHTTPRequestHandler):
        # HTTP/1.0 closes the connection after each answer: none outlives the server.
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._reply(with_body=True)

        def do_HEAD(self) -> None:
            self._reply(with_body=False)

        def _reply(self, *, with_body: bool) -> None:
            double.requests.append(f"{self.command} {self.path}")
            answer = double.answer(self.path)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if with_body:
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output to the test."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_port}"
    try:
        _use_endpoint(monkeypatch, double.url, cache)
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def no_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> str:
    """Let huggingface_hub use an address of this machine where nothing listens; returns it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
    _use_endpoint(monkeypatch, url, cache)
    return url


def _use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    from huggingface_hub import constants, hf_api

    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", url)
    # The clients of both libraries keep the address of the time they were made.
    monkeypatch.setattr(hf_api.api, "endpoint", url)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _blob(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"oid": hashlib.sha1(content, usedforsecurity=False).hexdigest(), "size": len(content)}
