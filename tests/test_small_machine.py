"""A machine with one gigabyte of memory serves a model of the size of RoBERTa-base."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import lightft
from tests.roberta_size import save_tagger_of_roberta_size

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own figures are read"),
]
MEGABYTE = 10**6
LIGHTFT = [sys.executable, "-c", "import sys; from lightft.cli import main; sys.exit(main())"]
WORDS = "anna met bert in new york "


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tagger_of_roberta_size(tmp_path_factory.mktemp("roberta"))


def _ask(url: str, texts: list[str]) -> int:
    body = json.dumps({"texts": texts}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return len(json.load(reply)["results"])


@pytest.mark.parametrize(
    ("form", "options", "most", "limit"),
    # torch maps its file of weights and more that is never touched, so that it is given more than is resident.
    [("merged", {"dtype": "bfloat16"}, 800, 1000), ("onnx-int8", {}, 400, 400)],
    ids=["merged", "onnx"],
)
def test_the_service_answers_within_its_memory(
    adapter: Path,
    tmp_path: Path,
    form: str,
    options: dict[str, str],
    most: int,
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # How alike an untrained model's answers are is beside the point here: none of them is sure.
    for certificate in ("certificate", "onnx_certificate"):
        monkeypatch.setattr(f"lightft.exporters.{certificate}._SMALLEST_AGREEMENT", 0.5)
    folder = lightft.export(adapter, to=form, out=tmp_path / "model", **options)
    resource = pytest.importorskip("resource")
    limit *= MEGABYTE
    started = time.monotonic()
    with subprocess.Popen(
        [*LIGHTFT, "serve", str(folder), "--port", "0", "--threads", "1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    ) as service:
        try:
            assert service.stderr is not None
            said = ""
            while '"serving"' not in said:
                said = service.stderr.readline()
                assert said, "the service ended before it was ready"
            seconds = time.monotonic() - started
            url = "http://127.0.0.1:{}".format(urlsplit(json.loads(said)["url"]).port)
            for texts in (["Anna"], [WORDS * 5] * 16, [WORDS * 100], [WORDS * 20] * 4):
                assert _ask(url, texts) == len(texts)
            status = dict(line.split(":", 1) for line in Path(f"/proc/{service.pid}/status").read_text().splitlines())
        finally:
            service.terminate()
    peak = 1024 * int(status["VmHWM"].split()[0])
    with capsys.disabled():
        sys.stdout.write(f"\n{form}: at most {peak / MEGABYTE:.0f} MB resident, ready after {seconds:.1f} s\n")
    assert service.returncode == 0
    assert peak <= most * MEGABYTE
