"""The contract kit itself: whom it tries, and that what breaks a contract does not pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightft.adapters import ADAPTERS
from lightft.contracts.selection import chosen_plugins, describe_choice
from lightft.errors import UnknownNameError
from lightft.metrics import METRICS

BROKEN = '''
import torch
from lightft import adapters
from lightft.adapters import AdapterHooks
from lightft.adapters.lora import lora_config
from lightft.errors import AdapterError
from lightft.tasks import TextClassification


class AddsAnIdleParameter(AdapterHooks):
    def after_attach(self, model):
        model.idle = torch.nn.Parameter(torch.zeros(3))


class SpoilsTheBase(AdapterHooks):
    def after_step(self, model, step):
        model.get_input_embeddings().weight.data.add_(1)


@adapters.register("idle", hooks=AddsAnIdleParameter)
def idle(site):
    """A parameter of this kind never gets a gradient."""
    return lora_config(site, r=2, alpha=2, dropout=0.0, targets="all")


@adapters.register("spoiling", hooks=SpoilsTheBase)
def spoiling(site):
    """This kind changes weights of the base in place."""
    return lora_config(site, r=2, alpha=2, dropout=0.0, targets="all")


@adapters.register("late")
def late(site):
    """This kind refuses once the weights are there."""
    if site.model.device.type != "meta":
        raise AdapterError("Not on this model. Use 'lora'.")
    return lora_config(site, r=2, alpha=2, dropout=0.0, targets="all")


class MeanOfMeans:
    """A share of right answers whose totals do not add up."""

    name = "mean_of_means"
    unit = "fraction"
    higher_is_better = True

    def counts(self, prediction):
        return (float(prediction.gold == prediction.predicted), 1.0)

    def score(self, totals):
        return totals[..., 0] / max(1.0, totals[..., 1].max())


class Averaging(TextClassification):
    """A head whose loss is a mean."""

    name = "averaging"

    def load_model(self, loader):
        return TextClassification(self.labels).load_model(loader)

    def loss(self, logits, labels, model):
        return super().loss(logits, labels, model) / len(labels)


def forgetful(comparison):
    """A report that leaves out all runs but the first."""
    return f"{comparison.rows[0].name}\\n"


def intrusive(adapter, out):
    """An exporter that writes into the folder of the adapter."""
    out.mkdir()
    (adapter / "exported").touch()
    return out
'''
ENTRY_POINTS = """
[lightft.adapters]
idle = broken_plugins
spoiling = broken_plugins
late = broken_plugins
[lightft.tasks]
averaging = broken_plugins:Averaging
[lightft.metrics]
mean_of_means = broken_plugins:MeanOfMeans
[lightft.reports]
short = broken_plugins:forgetful
[lightft.exporters]
intrusive = broken_plugins:intrusive
"""


def run_pytest(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What the kit says of a distribution in which everything is broken; of training, on one head and precision."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "broken_plugins.py").write_text(BROKEN)
    info = folder / "broken_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken_plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    others = "bfloat16 or nf4 or int8 or token or causal"
    return run_pytest(
        "--pyargs", "lightft.contracts", "--plugin", "Broken.Plugins", "-k", f"not ({others})", cwd=folder
    )


def failed(outcome: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"^FAILED \S+::(\S+)", outcome.stdout, re.MULTILINE))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        ("test_trains_every_parameter_or_refuses_before_weights_are_read[idle-text-float32]", "['idle'] == []"),
        ("test_trains_every_parameter_or_refuses_before_weights_are_read[spoiling-text-float32]", "word_embeddings"),
        ("test_trains_every_parameter_or_refuses_before_weights_are_read[late-text-float32]", "Refused only after"),
        ("test_loss_is_a_sum_over_rows_whatever_they_are_batched_with[averaging]", ""),
        ("test_many_totals_are_scored_at_once[mean_of_means]", ""),
        ("test_every_run_and_metric_name_appears[short-comparison_of_tags]", "'tags-2'"),
        ("test_writes_what_it_returns_or_refuses_and_leaves_nothing[intrusive-text-classification]", "exported"),
    ],
)
def test_what_breaks_a_contract_fails(contract: str, reason: str, outcome: subprocess.CompletedProcess[str]) -> None:
    assert outcome.returncode == 1
    assert contract in failed(outcome), outcome.stdout[-3000:]
    assert reason in outcome.stdout


def test_by_default_it_tries_what_lightft_brings_along() -> None:
    chosen = chosen_plugins(["lightft"])
    assert set(chosen["adapters"]) == {
        name for name in ADAPTERS if ADAPTERS[name].build.__module__.startswith("lightft.")
    }
    assert set(chosen) == {"adapters", "tasks", "metrics", "reports", "exporters"}
    assert all(chosen.values())


def test_a_name_chooses_one_plug_in_of_one_family() -> None:
    chosen = chosen_plugins(["dora", "md"])
    assert describe_choice(chosen) == "adapters dora; reports md; no tasks, no metrics, no exporters"


def test_all_chooses_everything_that_is_installed() -> None:
    assert chosen_plugins(["all"])["metrics"] == tuple(sorted(METRICS))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match="No plug-in and no distribution .* 'lora-plsu'. Did you mean 'lora-plus'"
    ):
        chosen_plugins(["lora-plsu"])


def test_other_test_runs_have_no_option_of_ours_and_import_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\ndef test_nothing():\n    assert not {'torch', 'lightft.contracts.conftest'} & set(sys.modules)\n"
    )
    assert run_pytest(cwd=tmp_path).returncode == 0
    refused = run_pytest("--plugin", "lora", cwd=tmp_path)
    assert refused.returncode == 4
    assert "unrecognized arguments: --plugin" in refused.stderr
