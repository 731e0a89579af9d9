"""The comparator: runs from anywhere, models in memory, and reports of what was compared last."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import lightft
from lightft import LoRATrainer, ModelComparator, ModelLoader, Run
from lightft.comparison import compare_runs
from lightft.contracts.made_up_runs import classification_run, tagging_run
from lightft.data import examples_fingerprint
from lightft.errors import IncomparableRunsError, InvalidSettingError
from lightft.models import count_parameters
from tests.tiny_models import LABELS, classified_texts, save_bert

ROWS = classified_texts(24)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def trained(base: Path) -> tuple[LoRATrainer, Any]:
    loader = ModelLoader(str(base), labels=LABELS, dtype="float32")
    trainer = LoRATrainer(loader, epochs=6, learning_rate=1e-2, progress=False)
    return trainer, trainer.train(ROWS[:12], ROWS[:12])


def quick() -> ModelComparator:
    return ModelComparator(resamples=200)


def test_folders_and_runs_compare_alike(tmp_path: Path) -> None:
    weak, strong = tagging_run("weak", skill=0.6), tagging_run("strong", skill=0.9)
    folders = [run.save(tmp_path / run.name) for run in (weak, strong)]
    expected = compare_runs([weak, strong], resamples=200)
    assert quick().compare(folders).to_json() == quick().compare([str(folder) for folder in folders]).to_json()
    comparison = quick().compare([folders[0], strong])
    assert comparison.differences == expected.differences
    assert [row.scores for row in comparison.rows] == [row.scores for row in expected.rows]


def test_level_resamples_and_seed_are_passed_on() -> None:
    runs = [tagging_run("weak", skill=0.6), tagging_run("strong", skill=0.9)]
    ours = ModelComparator(level=0.8, resamples=300, seed=5).compare(runs, baseline="strong", metric="span_recall")
    theirs = compare_runs(runs, baseline="strong", metric="span_recall", level=0.8, resamples=300, seed=5)
    assert ours.to_json() == theirs.to_json()
    other = ModelComparator(level=0.8, resamples=300, seed=6).compare(runs, baseline="strong", metric="span_recall")
    assert ours.to_json() != other.to_json()


def test_a_mapping_gives_runs_other_names(tmp_path: Path) -> None:
    folders = [tagging_run("adapter", skill=skill).save(tmp_path / str(skill)) for skill in (0.6, 0.9)]
    with pytest.raises(InvalidSettingError, match="Two runs are named 'adapter'"):
        quick().compare(folders)
    comparison = quick().compare({"weak": folders[0], "strong": folders[1]})
    assert [row.name for row in comparison.rows] == ["weak", "strong"]


def test_runs_on_other_examples_are_refused_unless_the_common_ones_are_asked_for() -> None:
    whole, part = classification_run("whole", skill=0.8), classification_run("part", skill=0.8)
    part = Run(**{**vars(part), "predictions": part.predictions[:100]})
    with pytest.raises(IncomparableRunsError):
        quick().compare([whole, part])
    assert quick().compare([whole, part], on="common").rows


def test_models_in_memory_are_written_as_runs_and_compared(
    trained: tuple[LoRATrainer, Any], base: Path, tmp_path: Path
) -> None:
    trainer, model = trained
    untrained, _ = ModelLoader(str(base), labels=LABELS, dtype="float32").load_model()
    comparator = quick()
    comparison = comparator.compare_models({"tuned": model, "untuned": untrained}, ROWS, output_dir=tmp_path / "runs")
    assert {row.name for row in comparison.rows} == {"tuned", "untuned"}
    tuned, untuned = Run.load(tmp_path / "runs" / "tuned"), Run.load(tmp_path / "runs" / "untuned")
    assert list(tuned.predictions) == trainer.predict(model, ROWS)
    assert tuned.metrics == ("accuracy", "macro_f1", "weighted_f1", "roc_auc")
    assert tuned.labels == LABELS
    assert tuned.data["test_fingerprint"] == untuned.data["test_fingerprint"] == examples_fingerprint(ROWS)
    assert tuned.cost["total_parameters"] == count_parameters(model)[1]
    assert tuned.cost["predictions_per_second"] > 0
    assert comparator.comparison is comparison


def test_predictors_loaded_adapters_and_trained_models_are_all_models(
    trained: tuple[LoRATrainer, Any], tmp_path: Path
) -> None:
    trainer, model = trained
    loaded = lightft.load(trainer.save(model, tmp_path / "adapter"))
    comparison = quick().compare_models([model, trainer.predictor(model), loaded], ROWS, output_dir=tmp_path / "runs")
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["model-1", "model-2", "model-3"]
    assert [difference.difference for difference in comparison.differences] == [0, 0, 0]


def test_a_model_that_does_not_say_what_it_is_is_refused(base: Path, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    foreign = BertForSequenceClassification.from_pretrained(base, num_labels=2)
    unlabelled, _ = ModelLoader(str(base), dtype="float32").load_model()
    for model in (foreign, unlabelled, "runs/lora"):
        with pytest.raises(InvalidSettingError, match="does not say what its tokenizer and labels are"):
            quick().compare_models([model], ROWS, output_dir=tmp_path / "runs")


def test_a_folder_is_never_written_over(trained: tuple[LoRATrainer, Any], tmp_path: Path) -> None:
    (tmp_path / "model-1").mkdir()
    with pytest.raises(InvalidSettingError, match=r"model-1 exists already. Choose another output_dir"):
        quick().compare_models([trained[1]], ROWS, output_dir=tmp_path)


@pytest.mark.parametrize("suffix", ["html", "md", "csv", "json"])
def test_the_last_comparison_can_be_reported(tmp_path: Path, suffix: str) -> None:
    comparator = quick()
    with pytest.raises(InvalidSettingError, match="nothing to report yet"):
        comparator.generate_report(tmp_path / f"report.{suffix}")
    comparator.compare([tagging_run("weak", skill=0.6), tagging_run("strong", skill=0.9)])
    path = comparator.generate_report(tmp_path / f"report.{suffix}")
    assert path == tmp_path / f"report.{suffix}"
    text = path.read_text(encoding="utf-8")
    assert "weak" in text
    assert "strong" in text
    if suffix == "json":
        json.loads(text)


def test_comparing_saved_runs_needs_no_torch(tmp_path: Path) -> None:
    for run in (tagging_run("weak", skill=0.6), tagging_run("strong", skill=0.9)):
        run.save(tmp_path / run.name)
    code = """
        import sys
        from lightft import ModelComparator
        comparator = ModelComparator(resamples=200)
        print(comparator.compare([f"{sys.argv[1]}/weak", f"{sys.argv[1]}/strong"]))
        comparator.generate_report(f"{sys.argv[1]}/report.html")
        loaded = {"torch", "transformers", "peft", "datasets", "bitsandbytes", "accelerate"} & set(sys.modules)
        assert not loaded, loaded
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "strong" in finished.stdout
