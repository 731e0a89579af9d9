"""The example package of plug-ins: installed offline, it keeps every contract and passes its own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "examples" / "plugin_package"
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed into, from its sources and without an index."""
    folder = tmp_path_factory.mktemp("site-packages")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", folder, PACKAGE], check=True)
    return folder


def run_pytest(installed: Path, *arguments: str, cwd: Path) -> str:
    """Return what pytest prints; it must pass."""
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    return finished.stdout


def test_it_keeps_every_contract(installed: Path, tmp_path: Path) -> None:
    said = run_pytest(installed, "--pyargs", "lightft.contracts", "--plugin", "lightft-example-plugin", cwd=tmp_path)
    assert "contracts of: adapters lokr; tasks multi-label; metrics micro_f1; reports rst; no exporters" in said
    assert int(re.search(r"(\d+) passed", said)[1]) > 70
    assert not re.search(r"\d+ (skipped|failed|deselected)", said)


def test_its_own_tests_pass(installed: Path) -> None:
    assert re.search(r"^\d+ passed", run_pytest(installed, "tests", cwd=PACKAGE), re.MULTILINE)
