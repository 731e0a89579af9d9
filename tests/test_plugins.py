"""Plug-ins of another package, found by entry point in a fresh process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

PLUGIN = """
from peft import IA3Config
from lightft import adapters
from lightft.metrics import METRICS


@adapters.register("my-ia3")
def my_ia3(site, *, feedforward=()):
    return IA3Config(task_type=site.task_type, target_modules=site.targets("all"),
                     feedforward_modules=list(feedforward), modules_to_save=list(site.head))


class AlwaysHalf:
    name = "always_half"
    unit = "fraction"
    higher_is_better = True

    def score(self, predictions):
        return 0.5
"""


def _install(folder: Path, entry_points: str) -> None:
    (folder / "my_plugin.py").write_text(PLUGIN)
    info = folder / "my_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))


def _run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{textwrap.dedent(code)}"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120, check=False
    )


def test_an_adapter_and_a_metric_of_another_package_are_found_by_name(tmp_path: Path) -> None:
    _install(
        tmp_path,
        """
        [lightft.adapters]
        my-ia3 = my_plugin
        [lightft.metrics]
        always_half = my_plugin:AlwaysHalf
        """,
    )
    finished = _run(
        tmp_path,
        """
        from lightft import AdapterSpec
        from lightft.metrics import build_metric
        print(AdapterSpec("my-ia3"), build_metric("always_half").score([]))
        """,
    )
    assert finished.stdout.strip() == "my-ia3(feedforward=()) 0.5", finished.stderr


def test_a_plugin_that_cannot_be_imported_is_an_error_with_its_cause(tmp_path: Path) -> None:
    _install(tmp_path, "[lightft.adapters]\nbroken = my_missing_module\n")
    finished = _run(tmp_path, "from lightft import AdapterSpec; AdapterSpec('broken')")
    assert finished.returncode != 0
    assert "'broken' (my_missing_module) of entry-point group 'lightft.adapters' cannot be imported" in finished.stderr
    assert "No module named 'my_missing_module'" in finished.stderr


def test_a_plugin_that_keeps_no_contract_is_refused_when_it_registers(tmp_path: Path) -> None:
    _install(tmp_path, "[lightft.adapters]\nunfit = my_plugin:AlwaysHalf\n")
    finished = _run(tmp_path, "from lightft import AdapterSpec; AdapterSpec('unfit')")
    assert finished.returncode != 0
    assert "Register a builder with @lightft.adapters.register('unfit')" in finished.stderr
