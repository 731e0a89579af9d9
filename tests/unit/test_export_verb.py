"""``lightft export`` writes and says what it wrote, refuses in one sentence, and uploads when asked."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.cli import main
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base
from lightft.errors import InvalidSettingError, LightFTError
from lightft.exporters import push_to_hub
from tests.hub_double import _use_endpoint, no_hub

TOKEN = "hf_a-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small tagger's adapter."""
    folder = tmp_path_factory.mktemp("trained")
    task = "token-classification"
    save_base(Pair("bert", task), folder / "base", with_head=False)
    loader = ModelLoader(str(folder / "base"), task=task, labels=LABELS[task], dtype="float32")
    trainer = LoRATrainer(loader, epochs=1, learning_rate=1e-2, progress=False)
    return trainer.save(trainer.train(examples(task)), folder / "adapter")


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "adapter"))


def refusal(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused, and return its one line on standard error."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("lightft: ")]
    assert (len(lines), printed.out) == (1, "")
    assert "Traceback" not in printed.err
    return lines[0]


# --- what it writes and says


def test_texts_to_compare_on_come_from_a_file(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("Anna met Bert.\n\nShe lives in Zürich.\n", encoding="utf-8")
    out = tmp_path / "model"
    arguments = ["export", adapter, "--to", "merged", "--out", out, "--probe", texts]
    assert main([str(argument) for argument in arguments]) == 0
    assert json.loads((out / "merge_certificate.json").read_text())["probe"]["texts"] == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read as text in UTF-8"), (b"\xff\xfe", "cannot be read"), (b"\n \n", "holds no text")],
    ids=["missing", "no-text", "empty"],
)
def test_a_file_without_texts_is_refused(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    texts = tmp_path / "texts.txt"
    if content is not None:
        texts.write_bytes(content)
    arguments = ["export", adapter, "--to", "merged", "--out", tmp_path / "model", "--probe", texts]
    assert said in refusal(arguments, capsys)
    assert not (tmp_path / "model").exists()


def test_says_where_and_how_alike_the_answers_are(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    arguments = [
        "export",
        adapter,
        "--to",
        "merged",
        "--out",
        out,
        "--option",
        "dtype=bfloat16",
        "--option",
        "probe=[]",
    ]
    assert main([str(argument) for argument in arguments]) == 0
    where, certified = capsys.readouterr().out.splitlines()
    assert where == f"Wrote {out}"
    agreement = json.loads((out / "merge_certificate.json").read_text())["agreement"]
    assert certified.startswith(f"Certified on 256 rows: {100 * agreement['argmax_agreement']:.3g} % of ")
    assert certified.endswith("apart (merge_certificate.json)")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_export_that_is_not_compared_claims_nothing(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shared"
    assert main(["export", str(adapter), "--to", "adapter", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"Wrote {out}\n"


# --- what it refuses


def damage_weights(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def cut_weights(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def damage_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("{", encoding="utf-8")


def empty_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("[]", encoding="utf-8")


def damage_manifest(adapter: Path) -> None:
    (adapter / "lightft.json").write_bytes(b"\xff\xfe{}")


def take_from_manifest(adapter: Path) -> None:
    told = json.loads((adapter / "lightft.json").read_text())
    (adapter / "lightft.json").write_text(json.dumps({**told, "base": {"name": "x"}}), encoding="utf-8")


def lose_weights(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_weights, "adapter_model.safetensors is damaged"),
        (cut_weights, "adapter_model.safetensors is damaged"),
        (damage_config, "adapter_config.json is damaged"),
        (empty_config, "adapter_config.json is damaged"),
        (damage_manifest, "lightft.json is damaged"),
        (take_from_manifest, "lightft.json is damaged (of the base it does not say: digest, dtype"),
        (lose_weights, "the adapter's weights are missing"),
    ],
)
def test_a_damaged_adapter_is_refused_in_one_sentence_and_leaves_nothing(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, said: str
) -> None:
    damage(adapter)
    assert said in refusal(["export", adapter, "--to", "merged", "--out", tmp_path / "new" / "model"], capsys)
    assert [path.name for path in tmp_path.rglob("*model*")] in ([], ["adapter_model.safetensors"])


def test_an_unknown_format_is_answered_with_the_known_ones(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["export", adapter, "--to", "gguff", "--out", tmp_path / "out"], capsys)
    assert "No exporter named 'gguff'. Did you mean 'gguf'? Known: adapter, bundle, gguf, merged" in said


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("dtype", "--option takes NAME=VALUE"),
        ("=float32", "--option takes NAME=VALUE"),
        ("dtyp=float32", "'merged' has no option 'dtyp'. Did you mean 'dtype'"),
        ("dtype=32", "'merged' cannot have dtype=32"),
    ],
)
def test_an_option_that_cannot_be_is_refused(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    assert said in refusal(["export", adapter, "--to", "merged", "--out", tmp_path / "out", "--option", option], capsys)


def test_a_folder_that_exists_is_never_written_into(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert "exists already" in refusal(["export", adapter, "--to", "merged", "--out", tmp_path / "out"], capsys)


def test_a_name_of_no_repository_is_refused_before_anything_is_written(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("alone", "a/b/c", "owner/na me"):
        arguments = ["export", adapter, "--to", "adapter", "--out", tmp_path / "out", "--push", name]
        assert "give owner/name" in refusal(arguments, capsys)
    assert not (tmp_path / "out").exists()


# --- what stops it


@pytest.mark.parametrize("format", ["adapter", "merged", "bundle"])
@pytest.mark.parametrize("place", ["file/out", "/proc/nowhere/out", "o" * 300])
def test_a_place_that_cannot_be_written_is_refused_in_one_sentence(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str, place: str
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    out = tmp_path / place
    said = refusal(["export", adapter, "--to", format, "--out", out], capsys)
    assert said.startswith(f"lightft: {out} was not written: [Errno ")
    assert said.endswith("Mend that, or name a place that can be written to and has room.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "file"]


@pytest.mark.parametrize("format", ["adapter", "merged", "bundle"])
def test_a_file_that_finds_no_room_is_told_in_one_sentence_and_leaves_nothing(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Less than the weights, more than what is written before them.
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        said = refusal(["export", adapter, "--to", format, "--out", tmp_path / "out"], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said.startswith(f"lightft: {tmp_path / 'out'} was not written: ")
    assert "File too large" in said
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_sigterm_leaves_nothing_and_is_treated_as_before_afterwards(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(adapter: Path, unfinished: Path, form: str) -> None:
        (unfinished / "README.md").write_text("half", encoding="utf-8")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("lightft.exporters.adapter.write_model_card", stopped)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["export", str(adapter), "--to", "adapter", "--out", str(tmp_path / "out")])
        assert ended.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


WAITS_IN_THE_MIDDLE = """
import signal
import sys
from lightft.cli import main
from lightft.exporters import adapter

def wait(folder, unfinished, form):
    (unfinished / "README.md").write_text("half")
    print(unfinished, flush=True)
    signal.pause()

adapter.write_model_card = wait
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_process_that_is_told_to_end_leaves_nothing(adapter: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", WAITS_IN_THE_MIDDLE]
    command += ["export", str(adapter), "--to", "adapter", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        unfinished = Path(process.stdout.readline().rstrip("\n"))
        assert (unfinished / "README.md").is_file()
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


# --- uploading


@dataclass
class Uploads:
    """A Hub that takes uploads, and what it was sent.

    Attributes:
        url: where it is.
        status: what it answers a commit with.
        created: what it was asked to create.
        files: content of each file by repository and path.
        messages: of the commits.
        tokens: that came with a commit.
    """

    url: str = ""
    status: int = 200
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def answer(self, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        """Return status and content of the answer to a POST."""
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            asked = self.created[-1]
            return 200, {"url": f"{self.url}/{asked['organization']}/{asked['name']}"}
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        if "/preupload/" in path:
            files = [{**asked, "uploadMode": "regular", "shouldIgnore": False} for asked in json.loads(body)["files"]]
            return 200, {"files": files}
        self.tokens.append(token)
        if self.status != 200:
            return self.status, {"error": f"refused, and the token was {token}"}
        repository = path.removeprefix("/api/models/").partition("/commit/")[0]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.messages.append(line["value"]["summary"])
            else:
                self.files[f"{repository}/{line['value']['path']}"] = base64.b64decode(line["value"]["content"])
        return 200, {"commitUrl": f"{self.url}/{repository}/commit/abc", "commitOid": "abc"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Uploads]:
    """Serve a Hub that takes uploads, and let huggingface_hub in this process use it."""
    uploads = Uploads()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = uploads.answer(self.path, body, self.headers.get("Authorization"))
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output to the test."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    uploads.url = f"http://127.0.0.1:{server.server_port}"
    _use_endpoint(monkeypatch, uploads.url, tmp_path / "hub-cache")
    yield uploads
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_was_exported_is_uploaded_whole_into_a_private_repository(
    adapter: Path, tmp_path: Path, hub: Uploads, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    out = tmp_path / "shared"
    assert main(["export", str(adapter), "--to", "adapter", "--out", str(out), "--push", "me/tagger"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Uploaded to {hub.url}/me/tagger/commit/abc"
    assert hub.files == {f"me/tagger/{path.name}": path.read_bytes() for path in out.iterdir()}
    assert [(asked["name"], asked["visibility"]) for asked in hub.created] == [("tagger", "private")]
    assert hub.tokens == [f"Bearer {TOKEN}"]


def test_a_file_is_uploaded_alone_with_the_message_given(tmp_path: Path, hub: Uploads) -> None:
    (tmp_path / "service.tar.gz").write_bytes(b"packed")
    address = push_to_hub(tmp_path / "service.tar.gz", "me/service", private=False, token=TOKEN, message="The first")
    assert address == f"{hub.url}/me/service/commit/abc"
    assert hub.files == {"me/service/service.tar.gz": b"packed"}
    assert hub.messages == ["The first"]
    assert hub.created[0]["visibility"] == "public"


@pytest.mark.parametrize(
    ("status", "said"), [(401, "hf auth login"), (403, "may not write there"), (409, "try again later")]
)
def test_a_refused_upload_says_why_and_holds_no_token(tmp_path: Path, hub: Uploads, status: int, said: str) -> None:
    hub.status = status
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(LightFTError, match=rf"not uploaded to 'me/model' \(HTTP status {status}\)") as refused:
        push_to_hub(tmp_path / "model.bin", "me/model", token=TOKEN)
    assert said in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert refused.value.__cause__ is None


def test_what_was_exported_stays_when_the_hub_cannot_be_reached(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_hub(monkeypatch, tmp_path / "hub-cache")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    out = tmp_path / "shared"
    assert main(["export", str(adapter), "--to", "adapter", "--out", str(out), "--push", "me/tagger"]) == 2
    error = capsys.readouterr().err
    assert "the Hub cannot be reached" in error
    assert TOKEN not in error
    assert lightft.load(out)("anna met bert") == lightft.load(adapter)("anna met bert")


def test_nothing_to_upload_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="There is nothing at"):
        push_to_hub(tmp_path / "none", "me/model")
