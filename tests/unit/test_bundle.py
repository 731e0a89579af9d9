"""A bundle, unpacked anywhere, holds a model that opens, a server that starts on it, and a Dockerfile that finds both."""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
import tarfile
import threading
import time
import venv
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from packaging.requirements import Requirement
from transformers import pipeline

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.cli import main, serve
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base
from lightft.errors import AdapterError, InvalidSettingError, LightFTError
from lightft.exporters.bundle import pack
from lightft.exporters.bundle_packages import requirements, write_own_wheel
from lightft.serving.app import _NEEDS_NO_KEY

TASK = "token-classification"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small tagger's adapter."""
    folder = tmp_path_factory.mktemp("trained")
    save_base(Pair("bert", TASK), folder / "base", with_head=False)
    loader = ModelLoader(str(folder / "base"), task=TASK, labels=LABELS[TASK], dtype="float32")
    trainer = LoRATrainer(loader, epochs=3, learning_rate=1e-2, progress=False)
    return trainer.save(trainer.train(examples(TASK)), folder / "adapter")


@pytest.fixture(scope="module")
def archive(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter as a bundle."""
    return lightft.export(adapter, to="bundle", out=tmp_path_factory.mktemp("bundled") / "Tagger of News")


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the archive holds, elsewhere."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "tagger-of-news"


# --- the archive


def test_the_archive_alone_is_written(archive: Path) -> None:
    assert [path.name for path in archive.parent.iterdir()] == ["Tagger of News.tar.gz"]


def test_the_archive_holds_the_layout(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == {
        "Dockerfile",
        "README.md",
        "app",
        "model",
        "requirements.txt",
        "wheels",
    }
    assert {"config.json", "model.safetensors", "README.md", "merge_certificate.json", "lightft.json"} <= {
        path.name for path in (unpacked / "model").iterdir()
    }


def test_owner_and_time_of_the_files_are_the_same_everywhere(archive: Path) -> None:
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {(0, 0, "", 315_532_800)}
    assert [member.name for member in members[1:]] == sorted(member.name for member in members[1:])


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    for place, moment in {"one": 1_000_000_000, "other": 1_500_000_000}.items():
        folder = tmp_path / place / "service"
        (folder / "app").mkdir(parents=True)
        for name in ("app/main.py", "Dockerfile") if place == "one" else ("Dockerfile", "app/main.py"):
            (folder / name).write_text(name, encoding="utf-8")
            os.utime(folder / name, (moment, moment))
        (folder / "Dockerfile").chmod(0o600 if place == "one" else 0o664)
        pack(folder, tmp_path / f"{place}.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "other.tar.gz").read_bytes()


def test_an_archive_that_exists_is_never_overwritten(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "service.tar.gz").write_bytes(b"mine")
    for out in ("service", "service.tar.gz"):
        with pytest.raises(InvalidSettingError, match="exists already"):
            lightft.export(adapter, to="bundle", out=tmp_path / out)
    assert (tmp_path / "service.tar.gz").read_bytes() == b"mine"


def test_a_bundle_that_breaks_off_leaves_nothing(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(folder: Path, archive: Path) -> Path:
        archive.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(sys.modules["lightft.exporters.bundle"], "pack", no_room)
    with pytest.raises(LightFTError, match="service was not written: No space left"):
        lightft.export(adapter, to="bundle", out=tmp_path / "service")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_cannot_be_merged_is_refused_and_leaves_nothing(adapter: Path, tmp_path: Path) -> None:
    told = json.loads((adapter / "lightft.json").read_text())
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "lightft.json").write_text(
        json.dumps({**told, "base": {**told["base"], "quantization": "int8"}}), encoding="utf-8"
    )
    with pytest.raises(AdapterError, match="cannot be merged"):
        lightft.export(tmp_path / "adapter", to="bundle", out=tmp_path / "out" / "service")
    assert list((tmp_path / "out").iterdir()) == []


# --- what is in it works


def test_the_model_opens_in_a_pipeline_and_answers_as_the_adapter(adapter: Path, unpacked: Path) -> None:
    text = "anna met bert in rome"
    found = pipeline("ner", model=str(unpacked / "model"), aggregation_strategy="simple")(text)
    assert [(span["start"], span["end"], span["entity_group"]) for span in found] == [
        (span.start, span.end, span.label) for span in lightft.load(adapter)(text)
    ]


def test_the_verb_tells_of_the_certificate_in_the_archive(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(adapter), "--to", "bundle", "--out", str(tmp_path / "service.tar.gz")]) == 0
    where, certified = capsys.readouterr().out.splitlines()
    assert where == f"Wrote {tmp_path / 'service.tar.gz'}"
    assert certified.endswith("(merge_certificate.json)")


def test_what_the_dockerfile_copies_and_starts_is_there(unpacked: Path) -> None:
    dockerfile = (unpacked / "Dockerfile").read_text(encoding="utf-8")
    copied = [
        line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY ") and "--from" not in line
    ]
    assert copied == [["requirements.txt"], ["wheels/"], ["app/"], ["model/"]]
    assert all((unpacked / name).exists() for (name,) in copied)
    (started,) = re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)
    program, script = json.loads(started)
    assert (program, (unpacked / script).is_file()) == ("python", True)
    assert "USER 10001" in dockerfile
    assert "EXPOSE 8000" in dockerfile
    assert f"FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim" in dockerfile


def test_what_is_started_is_what_serve_takes(unpacked: Path) -> None:
    started = runpy.run_path(str(unpacked / "app" / "main.py"))["ARGUMENTS"]
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser.add_subparsers().add_parser("serve"))
    asked = parser.parse_args(started)
    assert (asked.host, asked.port) == ("0.0.0.0", 8000)
    name, _, model = asked.models[0].partition("=")
    assert (name, Path(model)) == ("tagger-of-news", unpacked / "model")


def health_check(unpacked: Path, port: int) -> str:
    """The Python code of the Dockerfile's health check, for a service on another port."""
    dockerfile = (unpacked / "Dockerfile").read_text(encoding="utf-8")
    (check,) = re.findall(r"^    CMD (\[.*\])$", dockerfile, re.MULTILINE)
    program, flag, code = json.loads(check)
    assert (program, flag) == ("python", "-c")
    assert "http://127.0.0.1:8000/health" in code
    return str(code.replace(":8000", f":{port}"))


def test_the_health_check_fails_where_nobody_answers(unpacked: Path) -> None:
    with pytest.raises(URLError):
        exec(health_check(unpacked, 9))


def test_the_health_check_asks_the_service_itself_and_no_proxy(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Alive(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with HTTPServer(("127.0.0.1", 0), Alive) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        exec(health_check(unpacked, server.server_port))
        answering.join()
    assert asked == ["/health"]


def test_the_readme_names_all_that_needs_no_key(unpacked: Path) -> None:
    readme = (unpacked / "README.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"every request but those for (.*?) must bring", readme, re.DOTALL)
    # What the page itself fetches goes without saying.
    pages = {path for path in _NEEDS_NO_KEY if path.count("/") == 1}
    assert set(re.findall(r"`(/\w+)`", named)) == pages


def test_requirements_are_those_installed_here_and_without_a_gpu() -> None:
    lines = requirements(with_torch=True).splitlines()
    assert lines[0] == "--extra-index-url https://download.pytorch.org/whl/cpu"
    pins = {required.name: str(required.specifier) for required in map(Requirement, lines[1:])}
    assert pins["transformers"] == f"=={version('transformers')}"
    assert pins["torch"] == f"=={version('torch').partition('+')[0]}+cpu"
    assert {"fastapi", "uvicorn", "peft", "tokenizers", "starlette"} <= set(pins)
    assert not {"lightft", "pytest", "onnxruntime", "triton"} & set(pins)
    assert not [name for name in pins if name.startswith("nvidia")]


SERVES_WITH_PINS_ALONE = """
import sys
from importlib.metadata import packages_distributions

model, pins = sys.argv[1], set(sys.argv[2].split())
held_back = {
    module
    for module, packages in packages_distributions().items()
    if module != "lightft" and not {package.lower().replace("_", "-") for package in packages} & pins
}


class HeldBack:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in held_back:
            raise ModuleNotFoundError(f"{name} is not pinned", name=name)


sys.meta_path.insert(0, HeldBack())
from lightft.serving import ServedModels, app

models = ServedModels.open([f"tagger={model}"], base=None, device="auto", threads=1)
assert "torch" in held_back and "torch" not in sys.modules
"""


def test_an_onnx_bundle_is_served_by_its_requirements_alone_and_without_torch(adapter: Path, tmp_path: Path) -> None:
    made = lightft.export(adapter, to="bundle", out=tmp_path / "small", model="onnx-int8")
    with tarfile.open(made) as packed:
        packed.extractall(tmp_path, filter="data")
    assert {"model.onnx", "onnx_certificate.json", "README.md"} <= {
        path.name for path in (tmp_path / "small" / "model").iterdir()
    }
    lines = (tmp_path / "small" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line).name for line in lines]
    finished = subprocess.run(
        [sys.executable, "-c", SERVES_WITH_PINS_ALONE, tmp_path / "small" / "model", " ".join(pins)],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]


def test_lightft_itself_is_a_wheel_with_everything_it_holds(tmp_path: Path) -> None:
    wheel = write_own_wheel(tmp_path / "wheels")
    again = write_own_wheel(tmp_path / "again")
    assert wheel.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        record = file.read(f"lightft-{version('lightft')}.dist-info/RECORD").decode().splitlines()
    assert {line.partition(",")[0] for line in record} == names
    assert {"lightft/__init__.py", "lightft/py.typed", "lightft/exporters/bundle_files/Dockerfile.jinja"} <= names
    assert f"lightft-{version('lightft')}.dist-info/METADATA" in names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.slow
def test_the_bundle_serves_from_an_environment_of_its_own(unpacked: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=True)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = (unpacked / "wheels").glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    # The packages of this environment stand in for those of requirements.txt, which would be downloaded.
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    server = subprocess.Popen(
        [python, "app/main.py"], cwd=unpacked, env={**os.environ, "PYTHONPATH": packages, "HF_HUB_OFFLINE": "1"}
    )
    try:
        wait_until_healthy()
        asked = Request(
            "http://127.0.0.1:8000/predict",
            data=json.dumps({"text": "anna met bert in rome"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(asked, timeout=30) as answer:
            assert "entities" in json.load(answer)
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_until_healthy() -> None:
    for _ in range(240):
        try:
            with urlopen("http://127.0.0.1:8000/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError("The server did not come up.")
