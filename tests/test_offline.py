"""Nothing of lightft opens a socket unless a Hub name asks for it, and what is too old is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lightft.contracts.tiny_models import LABELS, Pair, save_base

NO_NETWORK = """
import socket
def refuse(*arguments, **keywords):
    raise AssertionError("a socket was opened")
class NoSocket(socket.socket):
    connect = connect_ex = bind = sendto = refuse
socket.socket = NoSocket
socket.getaddrinfo = socket.create_connection = refuse
"""


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_importing_everything_opens_no_socket() -> None:
    finished = _run(
        NO_NETWORK
        + """
import importlib, pkgutil
import lightft
for module in pkgutil.walk_packages(lightft.__path__, "lightft."):
    importlib.import_module(module.name)
print("imported")
"""
    )
    assert finished.stdout.strip() == "imported", finished.stderr[-2000:]


def test_training_saving_and_loading_open_no_socket(tmp_path: Path) -> None:
    pair = Pair("bert", "text-classification")
    base = save_base(pair, tmp_path / "base", with_head=False)
    finished = _run(
        NO_NETWORK
        + """
import sys
from lightft import LoRATrainer, ModelComparator, ModelLoader, load
from lightft.data import TaskData
from lightft.contracts.tiny_models import LABELS, examples
rows = examples("text-classification")
data = TaskData("text-classification", "made up", LABELS["text-classification"], rows, rows, rows)
loader = ModelLoader(sys.argv[1], labels=data.labels)
run = LoRATrainer(loader, output_dir=sys.argv[2], epochs=1, progress=False).fit(data)
ModelComparator().compare([sys.argv[2]]).save(sys.argv[2] + "/report.html")
print(load(sys.argv[2] + "/adapter")("anna met bert").label)
""",
        str(base),
        str(tmp_path / "run"),
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.strip() in LABELS["text-classification"]


def test_importing_lightft_alone_loads_no_deep_learning_stack() -> None:
    finished = _run(
        "import sys, lightft; print([name for name in ('torch', 'transformers', 'peft', 'numpy') if name in sys.modules])"
    )
    assert finished.stdout.strip() == "[]", finished.stderr


@pytest.mark.parametrize("name", ["LoRATrainer", "ModelLoader", "load", "export", "ModelComparator", "load_data"])
def test_importing_a_public_name_prints_nothing(name: str) -> None:
    finished = _run(f"import lightft; lightft.{name}")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


@pytest.mark.parametrize(("package", "floor"), [("torch", "2.10"), ("transformers", "5.3")])
def test_training_code_refuses_old_versions(package: str, floor: str) -> None:
    finished = _run(
        f"""
        from importlib import metadata
        installed = metadata.version
        metadata.version = lambda name: "1.0" if name == {package!r} else installed(name)
        import lightft.training
        """
    )
    assert finished.returncode != 0
    assert f"lightft trains with {package} {floor} or later" in finished.stderr
    assert f"pip install --upgrade '{package}>={floor}'" in finished.stderr
