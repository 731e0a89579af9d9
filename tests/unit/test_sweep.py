"""Sweeps: each run is what one trainer alone would make, nothing is trained twice, and the test split chooses nothing."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from lightft import AdapterSpec, LoRATrainer, ModelLoader, Prediction, Run, TaskData
from lightft.errors import (
    AdapterError,
    DataError,
    InvalidSettingError,
    MissingExtraError,
    TrainingError,
    UnknownNameError,
)
from lightft.probe import Probe
from lightft.sweeping import Budget, Candidate, Range, Search, candidates_of, grid, plan_sweep, sweep
from lightft.sweeping.choosing import choose_rate, chosen_rate, rates_to_try
from lightft.tasks import TextClassification
from tests.tiny_models import LABELS, classified_texts

ROWS = classified_texts(20)
DATA = TaskData("text-classification", "made up", LABELS, ROWS[:12], ROWS[8:16], ROWS[12:])
HEAD = TextClassification(LABELS, metrics=("accuracy",))
SETTINGS: dict[str, Any] = {"batch_size": 8, "epochs": 2}
QUICK: dict[str, Any] = {"head": HEAD, "say": lambda line: None, **SETTINGS}


@pytest.fixture
def loader(tiny_bert: Path) -> ModelLoader:
    return ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32")


@pytest.fixture
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training takes ten seconds and two gigabytes."""

    def probe(trainer: LoRATrainer, data: TaskData, *, steps: int = 3) -> Probe:
        return Probe(1.0, 10, 10.0, 0, 0, 0, 0, 2_000_000_000)

    monkeypatch.setattr("lightft.sweeping.plan.probe", probe)


class Trainings:
    """Stands in for trainers: writes a run whose validation score the test decides, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.score = lambda trainer: 0.5
        self.epochs = 1

    def __call__(self, loader: ModelLoader, **given: Any) -> Any:
        trainer = LoRATrainer(loader, **given)
        return SimpleNamespace(fit=lambda data: self._fit(trainer, data), config=trainer.config)

    def _fit(self, trainer: Any, data: TaskData) -> Run:
        self.asked.append(SimpleNamespace(trainer=trainer, data=data, name=trainer.name))
        score = self.score(trainer)
        rows = []
        for epoch in range(1, self.epochs + 1):
            rows.append({"step": epoch, "epoch": epoch, "validation_accuracy": score * epoch / self.epochs})
            for callback in trainer.callbacks:
                callback(rows[-1])
        run = Run(
            name=trainer.name,
            task="text-classification",
            metrics=("accuracy",),
            labels=LABELS,
            model={"name": "tiny", "quantization": trainer.base.quantization, "seed": trainer.base.seed},
            adapter=trainer.adapter.to_json(),
            training=trainer.config.to_json(),
            seed=trainer.config.seed,
            history=rows,
            predictions=tuple(
                Prediction(row.id, row.target, LABELS[(number + trainer.config.seed) % 2])
                for number, row in enumerate(data.test or data.validation)
            ),
            path=trainer.output_dir,
        )
        run.save(trainer.output_dir)
        return run

    @property
    def names(self) -> list[str]:
        return [asked.name for asked in self.asked]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, quick_probe: None) -> Trainings:
    made = Trainings()
    monkeypatch.setattr("lightft.sweeping.jobs.LoRATrainer", made)
    return made


# --- what is trained


def test_a_grid_is_named_after_what_varies() -> None:
    made = grid("lora", r=[4, 16], targets=["query-value", ("query", "key")], dropout=0.3)
    assert [candidate.name for candidate in made] == [
        "lora r=4 targets=query-value",
        "lora r=4 targets=query+key",
        "lora r=16 targets=query-value",
        "lora r=16 targets=query+key",
    ]
    assert made[3].adapter == AdapterSpec("lora", r=16, targets=("query", "key"), dropout=0.3)


def test_a_grid_may_vary_what_the_base_is_held_in() -> None:
    made = grid("lora", r=[4], quantization=[None, "nf4"])
    assert [(candidate.name, candidate.quantization) for candidate in made] == [("lora", None), ("lora nf4", "nf4")]


def test_a_grid_refuses_what_its_kind_does_not_have() -> None:
    with pytest.raises(InvalidSettingError, match="no parameter 'rank'"):
        grid("lora", rank=[4, 8])
    with pytest.raises(InvalidSettingError, match="at least one value"):
        grid("lora", r=[])
    with pytest.raises(InvalidSettingError, match="Did you mean 'nf4'"):
        grid("lora", quantization="nf3")


def test_specs_without_names_are_named_after_their_departures_from_the_default() -> None:
    made = candidates_of(["full", "lora", AdapterSpec("lora", r=4), AdapterSpec("lora", bias="all", dropout=0.0)])
    assert [candidate.name for candidate in made] == ["full", "lora", "lora r=4", "lora dropout=0.0 bias=all"]


def test_quantizations_cross_every_candidate_that_does_not_say() -> None:
    made = candidates_of({"mine": AdapterSpec("lora")}, (None, "int8"))
    assert [(candidate.name, candidate.quantization) for candidate in made] == [("mine", None), ("mine int8", "int8")]
    named = Candidate("q", AdapterSpec("lora"), "nf4")
    assert candidates_of([named], (None, "int8")) == (named,)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "nothing to train"),
        (["lora", "lora"], "called 'lora'"),
        ({"a": "lora", "b": AdapterSpec("lora", r=16)}, "'a' and 'b' are the same"),
        ({"a b": "lora", "a:b": "full"}, "same as a folder"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(specs: Any, message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        candidates_of(specs)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lora'"):
        candidates_of(["lorra"])


# --- the same as alone


def weights_of(run: Run) -> dict[str, Any]:
    assert run.path is not None
    return {file.name: load_file(file) for file in sorted((run.path / "adapter").glob("*.safetensors"))}


def assert_same_as_alone(runs: tuple[Run, ...], loader: ModelLoader, folder: Path) -> None:
    for number, run in enumerate(runs):
        alone = LoRATrainer(
            loader.replace(seed=run.seed, quantization=run.model["quantization"]),
            adapter=AdapterSpec.of(run.adapter),
            progress=False,
            head=HEAD,
            output_dir=folder / str(number),
            **SETTINGS,
            seed=run.seed,
        ).fit(DATA)
        assert run.predictions == alone.predictions
        assert run.history == alone.history
        there, here = weights_of(run), weights_of(alone)
        assert there.keys() == here.keys()
        for name, tensors in here.items():
            assert tensors.keys() == there[name].keys()
            for key, tensor in tensors.items():
                assert tensor.equal(there[name][key]), (run.name, key)


def test_every_run_is_what_a_trainer_alone_would_make_to_the_last_bit(
    dropout_bert: Path, quick_probe: None, tmp_path: Path
) -> None:
    loader = ModelLoader(str(dropout_bert), labels=LABELS, dtype="float32")
    # Those that write into the base come first.
    result = sweep(loader, ["full", "pissa", "lora"], DATA, seeds=[5], output_dir=tmp_path / "runs", **QUICK)
    assert [run.name for run in result.runs] == ["full-seed-5", "pissa-seed-5", "lora-seed-5"]
    assert_same_as_alone(result.runs, loader, tmp_path / "alone")


def test_every_run_on_a_quantised_base_is_what_a_trainer_alone_would_make(
    loader: ModelLoader, quick_probe: None, tmp_path: Path
) -> None:
    specs = grid("lora", r=[2, 4], quantization=["nf4", "int8"])
    result = sweep(loader, specs, DATA, seeds=1, output_dir=tmp_path / "runs", **QUICK)
    later = result.runs[2:]
    assert [run.name for run in later] == ["lora r=4 nf4-seed-0", "lora r=4 int8-seed-0"]
    assert_same_as_alone(later, loader, tmp_path / "alone")


def test_bases_are_loaded_once_for_each_seed_and_texts_encoded_once(
    loader: ModelLoader, quick_probe: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: Counter[int] = Counter()
    encoded: Counter[Any] = Counter()
    load, encode = ModelLoader.load_model, TextClassification.encode

    def counted_load(self: ModelLoader, auto_class: str | None = None) -> Any:
        loaded[self.seed] += 1
        return load(self, auto_class)

    def counted_encode(self: TextClassification, examples: Any, *others: Any) -> Any:
        encoded[tuple(examples)] += 1
        return encode(self, examples, *others)

    monkeypatch.setattr(ModelLoader, "load_model", counted_load)
    monkeypatch.setattr(TextClassification, "encode", counted_encode)
    sweep(loader, ["lora", "ia3"], DATA, seeds=2, output_dir=tmp_path, **{**QUICK, "epochs": 1})
    assert loaded == {0: 1, 1: 1}
    assert encoded[DATA.train] == 1
    assert set(encoded.values()) == {1}


# --- what is done is done


def test_a_finished_run_is_not_trained_again_and_what_is_new_is(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    first = sweep(loader, ["lora", "ia3"], DATA, seeds=2, output_dir=tmp_path, **QUICK)
    assert trainings.names == ["lora-seed-0", "ia3-seed-0", "lora-seed-1", "ia3-seed-1"]
    again = sweep(loader, ["lora", "ia3", "full"], DATA, seeds=3, output_dir=tmp_path, **QUICK)
    missing = ["lora-seed-2", "ia3-seed-2", "full-seed-0", "full-seed-1", "full-seed-2"]
    assert Counter(trainings.names[4:]) == Counter(missing)
    assert again.plan.finished == 4
    assert [run.to_json() for run in again.runs[:2]] == [run.to_json() for run in first.runs[:2]]


@pytest.mark.parametrize("change", ["settings", "data", "model", "head"])
def test_a_run_of_other_content_is_not_taken_for_finished(
    loader: ModelLoader, other_bert: Path, trainings: Trainings, tmp_path: Path, change: str
) -> None:
    sweep(loader, ["lora"], DATA, seeds=1, output_dir=tmp_path, **QUICK)
    options = {**QUICK, **({"weight_decay": 0.1} if change == "settings" else {})}
    options |= {"head": replace(HEAD, label_smoothing=0.1)} if change == "head" else {}
    data = DATA.head(train=11) if change == "data" else DATA
    base = loader.replace(name=str(other_bert)) if change == "model" else loader
    sweep(base, ["lora"], data, seeds=1, output_dir=tmp_path, **options)
    assert len(trainings.asked) == 2


def test_what_only_changes_the_words_on_the_way_is_no_other_content(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    sweep(loader, ["lora"], DATA, seeds=1, output_dir=tmp_path, **QUICK)
    result = sweep(loader, {"lora": "lora"}, DATA, seeds=1, output_dir=tmp_path, progress=True, **QUICK)
    assert len(trainings.asked) == 1
    assert len(result.runs) == 1


def test_a_failed_run_leaves_the_others_and_is_tried_again(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    def fails(trainer: Any) -> float:
        if trainer.adapter.kind == "ia3" and trainer.config.seed == 0:
            raise RuntimeError("the machine is on fire")
        return 0.5

    trainings.score = fails
    result = sweep(loader, ["ia3", "lora"], DATA, seeds=2, output_dir=tmp_path, **QUICK)
    assert [run.name for run in result.runs] == ["ia3-seed-1", "lora-seed-0", "lora-seed-1"]
    assert [(failed.name, failed.message) for failed in result.failed] == [
        ("ia3-seed-0", "RuntimeError: the machine is on fire")
    ]
    assert "ia3-seed-0: failed: RuntimeError: the machine is on fire" in str(result)
    assert "3 of 4 runs finished, 1 failed" in str(result)
    (account,) = tmp_path.glob("*/error.txt")
    assert "the machine is on fire" in account.read_text()

    trainings.score = lambda trainer: 0.5
    mended = sweep(loader, ["ia3", "lora"], DATA, seeds=2, output_dir=tmp_path, **QUICK)
    assert len(mended.runs) == 4
    assert not mended.failed
    assert not list(tmp_path.glob("*/error.txt"))
    assert trainings.names[4:] == ["ia3-seed-0"]


def test_an_interruption_gives_what_is_finished_and_names_the_rest(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    def stopped(trainer: Any) -> float:
        if len(trainings.asked) == 3:
            raise KeyboardInterrupt
        return 0.5

    trainings.score = stopped
    result = sweep(loader, ["ia3", "lora"], DATA, seeds=2, output_dir=tmp_path, **QUICK)
    # One seed of every method comes before the next seed, so that what is there can be compared.
    assert [run.name for run in result.runs] == ["ia3-seed-0", "lora-seed-0"]
    assert result.unfinished == ("ia3-seed-1", "lora-seed-1")
    assert "interrupted with 2 to go" in str(result)
    trainings.score = lambda trainer: 0.5
    assert len(sweep(loader, ["ia3", "lora"], DATA, seeds=2, output_dir=tmp_path, **QUICK).runs) == 4
    assert len(trainings.asked) == 5


# --- before it starts


def test_the_plan_says_what_is_left_and_trains_nothing(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    said: list[str] = []
    options = {**QUICK, "say": said.append}
    sweep(loader, ["lora"], DATA, seeds=2, output_dir=tmp_path, **options)
    assert said[0] == "2 runs, about 20 s and 2.0 GB"
    plan = plan_sweep(loader, ["lora", "ia3"], DATA, seeds=3, output_dir=tmp_path, **options)
    assert len(trainings.asked) == 2
    assert (plan.runs, plan.finished, plan.seconds, plan.peak_bytes) == (6, 2, 40.0, 2_000_000_000)
    assert plan.summary == "6 runs, about 40 s and 2.0 GB; 2 already finished"
    assert str(plan).splitlines()[2].split() == ["ia3", "as", "loaded", "0.005", "3", "0", "0", "30", "s", "2.0", "GB"]
    assert sweep(loader, ["lora", "ia3"], DATA, seeds=3, output_dir=tmp_path, dry_run=True, **options) == plan


def test_the_plan_rests_on_steps_that_were_taken(loader: ModelLoader, tmp_path: Path) -> None:
    plan = plan_sweep(loader, ["lora"], DATA, seeds=2, output_dir=tmp_path, **QUICK)
    assert plan.seconds > 0
    assert plan.peak_bytes > 10**7
    by_time = plan_sweep(
        loader, ["lora"], DATA, seeds=2, budget=Budget(seconds=100), output_dir=tmp_path, **without_epochs()
    )
    assert 200 < by_time.seconds < 300
    assert not list(tmp_path.iterdir())


def without_epochs() -> dict[str, Any]:
    return {name: value for name, value in QUICK.items() if name != "epochs"}


def test_a_candidate_that_cannot_be_tried_does_not_stop_the_plan(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(trainer: LoRATrainer, data: TaskData) -> Probe:
        raise TrainingError("not today")

    monkeypatch.setattr("lightft.sweeping.plan.probe", probe)
    plan = plan_sweep(loader, ["lora"], DATA, seeds=1, output_dir=tmp_path, **QUICK)
    assert plan.candidates[0].seconds is None
    assert plan.summary == "1 run; not known of lora"
    assert "lora: TrainingError: not today" in str(plan)


def test_adapters_that_do_not_fit_are_all_named_before_anything_is_trained(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    specs = [AdapterSpec("lora", r=500), Candidate("full nf4", AdapterSpec("full"), "nf4"), "ia3"]
    with pytest.raises(AdapterError) as refusal:
        sweep(loader, specs, DATA, output_dir=tmp_path, **QUICK)
    assert "r=500 is larger" in str(refusal.value)
    assert "full nf4:" in str(refusal.value)
    assert not trainings.asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": [1, 1]}, "list of different ones"),
        ({"seed": 3}, r"Use seeds=\[3\]"),
        ({"epochz": 3}, "Did you mean 'epochs'"),
        ({"learning_rates": "chosn"}, "Did you mean 'chosen'"),
        ({"learning_rates": "chosen", "learning_rate": 1e-3}, "Leave one of the two out"),
        ({"learning_rates": "chosen", "search": Search({"batch_size": [4, 8]})}, "leave one out"),
        ({"budget": Budget(steps=3)}, "epochs=2 cannot"),
    ],
)
def test_what_contradicts_itself_is_refused(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        sweep(loader, ["lora"], DATA, output_dir=tmp_path, **{**QUICK, **options})
    assert not trainings.asked


# --- budgets


def test_a_budget_of_steps_gives_every_run_so_many(loader: ModelLoader, quick_probe: None, tmp_path: Path) -> None:
    result = sweep(
        loader, ["lora", "head-only"], DATA, seeds=1, budget=Budget(steps=5), output_dir=tmp_path, **without_epochs()
    )
    assert [run.training["steps"] for run in result.runs] == [5, 5]
    assert result.runs[0].history[-1]["epoch"] == 3


def test_a_budget_of_seconds_ends_at_the_first_step_after_it(
    loader: ModelLoader, quick_probe: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    # Every look at the clock finds it a second later, so that a step takes one.
    monkeypatch.setattr("lightft.pace.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    result = sweep(loader, ["lora"], DATA, seeds=1, budget=Budget(seconds=4.5), output_dir=tmp_path, **without_epochs())
    assert not result.failed
    (run,) = result.runs
    assert run.training["steps"] == 5
    rates = [row["learning_rate"] for row in run.history if "learning_rate" in row]
    # Steps are written at the ends of epochs: after 2, 4 and 5 seconds of 4.5, of which a tenth is warm-up.
    assert rates == pytest.approx([5e-4 * (1 - (done / 4.5 - 0.1) / 0.9) for done in (2, 4)] + [0.0])


def test_adalora_refuses_a_training_without_a_known_number_of_steps(
    loader: ModelLoader, quick_probe: None, tmp_path: Path
) -> None:
    result = sweep(
        loader, ["adalora"], DATA, seeds=1, budget=Budget(seconds=1), output_dir=tmp_path, **without_epochs()
    )
    assert "schedule of steps" in result.failed[0].message


@pytest.mark.parametrize("given", [{}, {"steps": 3, "seconds": 3.0}, {"steps": 0}, {"seconds": 0.0}])
def test_a_budget_is_of_one_thing(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettingError):
        Budget(**given)


# --- learning rates


@pytest.mark.parametrize(
    ("best", "tried"),
    [(1e-3, 3), (2e-3, 4), (4e-3, 5), (2.5e-4, 5), (1.0, 7)],
)
def test_the_best_rate_is_moved_to_while_it_is_at_the_edge(best: float, tried: int) -> None:
    asked: list[float] = []

    def score(trial: Any) -> float:
        asked.append(trial.config.learning_rate)
        return -abs(math.log2(trial.config.learning_rate / best))

    rate, scores = choose_rate(_job(), 1e-3, score)
    assert len(asked) == len(scores) == tried
    assert rate == pytest.approx(min(best, 3.2e-2))


def _job() -> Any:
    from lightft.sweeping.jobs import Job
    from lightft.train_config import TrainConfig

    return Job("trial", Candidate("lora", AdapterSpec("lora")), TrainConfig(), DATA, Path("nowhere"))


def test_a_rate_counts_half_by_its_own_score_and_a_quarter_by_each_neighbour() -> None:
    # By hand: 1: 0.6, 2: 0.6 + 0.1/4, 4: 0.7 - 0.7/4, 8: 0.175: the peak at 4 stands beside a failure.
    assert chosen_rate({1.0: 0.6, 2.0: 0.6, 4.0: 0.7, 8.0: 0.0}) == 2.0


def test_of_equal_rates_the_higher_is_taken() -> None:
    assert chosen_rate({0.1: 0.5, 0.2: 0.5, 0.4: 0.5}) == 0.4


def test_a_rate_that_failed_is_not_chosen() -> None:
    assert chosen_rate({0.1: 0.5, 0.2: 0.5, 0.4: math.nan}) == 0.2
    with pytest.raises(TrainingError, match="every learning rate"):
        chosen_rate({0.1: math.nan})


def test_no_rate_of_one_or_more_is_tried() -> None:
    assert rates_to_try(0.6, {}) == [0.3, 0.6]
    assert rates_to_try(0.6, {0.3: 0.1, 0.6: 0.9}) == []


def test_the_rate_of_each_method_is_chosen_without_the_test_split_or_a_seed_of_the_runs(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    wanted = {"lora": 1e-3, "ia3": 5e-3}
    trainings.score = lambda trainer: (
        1 / (1 + abs(math.log2(trainer.config.learning_rate / wanted[trainer.adapter.kind])))
    )
    result = sweep(
        loader, ["lora", "ia3"], DATA, seeds=[1000, 1], learning_rates="chosen", output_dir=tmp_path, **QUICK
    )
    trials = [asked for asked in trainings.asked if asked.trainer.output_dir.parent.name == "trials"]
    # LoRA's default for texts is half of what is best here, so that a fourth rate is tried.
    assert len(trials) == 4 + 3
    assert {trial.trainer.config.seed for trial in trials} == {1001}
    assert {trial.data.test for trial in trials} == {()}
    assert [run.training["learning_rate"] for run in result.runs] == [1e-3, 1e-3, 5e-3, 5e-3]
    note = result.runs[0].training["rate_chosen_from"]
    assert note["metric"] == "validation_accuracy"
    assert note["seed"] == 1001
    assert note["tried"] == [[2.5e-4, pytest.approx(1 / 3)], [5e-4, 0.5], [1e-3, 1.0], [2e-3, 0.5]]
    stored = json.loads((result.runs[0].path / "run.json").read_text())  # type: ignore[operator]
    assert stored["training"]["rate_chosen_from"] == note
    assert result.plan.runs == 4
    assert {run.name for run in result.runs} == {"lora-seed-1000", "lora-seed-1", "ia3-seed-1000", "ia3-seed-1"}

    again = sweep(loader, ["lora", "ia3"], DATA, seeds=[1000, 1], learning_rates="chosen", output_dir=tmp_path, **QUICK)
    assert len(trainings.asked) == 7 + 4
    assert again.plan.finished == 4
    assert again.plan.candidates[0].learning_rate == 1e-3


def test_a_method_of_which_every_trial_fails_fails_alone(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    def fails(trainer: Any) -> float:
        if trainer.adapter.kind == "ia3":
            raise TrainingError("The loss became nan.")
        return 0.5

    trainings.score = fails
    result = sweep(loader, ["lora", "ia3"], DATA, seeds=1, learning_rates="chosen", output_dir=tmp_path, **QUICK)
    assert [run.name for run in result.runs] == ["lora-seed-0"]
    assert "every learning rate that was tried" in result.failed[0].message


@pytest.mark.parametrize("options", [{"learning_rates": "chosen"}, {"search": Search({"batch_size": [4, 8]})}], ids=str)
def test_trials_are_refused_without_a_validation_split(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="never by the test split"):
        sweep(loader, ["lora"], replace(DATA, validation=()), output_dir=tmp_path, **QUICK, **options)


def test_trials_keep_their_scores_and_not_their_weights(loader: ModelLoader, quick_probe: None, tmp_path: Path) -> None:
    options = {**QUICK, "epochs": 1}
    result = sweep(loader, ["head-only"], DATA, seeds=1, learning_rates="chosen", output_dir=tmp_path, **options)
    assert (result.runs[0].path / "adapter").is_dir()  # type: ignore[operator]
    assert list((tmp_path / "trials").glob("*/run.json"))
    assert not list((tmp_path / "trials").glob("*/adapter"))


# --- search


SPACE = {"learning_rate": Range(1e-4, 1e-1, log=True), "adapter.r": [2, 4, 8], "batch_size": Range(4, 8)}


def searched(loader: ModelLoader, folder: Path, **search: Any) -> Any:
    return sweep(loader, ["lora"], DATA, seeds=1, output_dir=folder, search=Search(SPACE, **search), **QUICK)


def by_rate(trainer: Any) -> float:
    return 1 / (1 + abs(math.log10(trainer.config.learning_rate / 1e-2)))


def test_a_search_trains_with_the_best_settings_it_found(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    trainings.score = by_rate
    result = searched(loader, tmp_path, trials=8)
    trials = trainings.asked[:-1]
    best = max(trials, key=lambda asked: by_rate(asked.trainer)).trainer
    (run,) = result.runs
    assert run.training["learning_rate"] == best.config.learning_rate
    assert run.training["batch_size"] == best.config.batch_size
    assert run.adapter["params"]["r"] == best.adapter.params["r"]
    account = run.training["search"]
    assert account["trials"] + account["cut_short"] == len(trials) == 8
    assert account["best"] == pytest.approx(by_rate(best))
    assert account["seed"] == 1000
    assert {asked.trainer.config.seed for asked in trials} == {1000}
    assert {asked.data.test for asked in trials} == {()}


def test_an_interrupted_search_goes_on_to_what_it_would_have_found(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    def stopped(trainer: Any) -> float:
        if len(trainings.asked) == 5:
            raise KeyboardInterrupt
        return by_rate(trainer)

    trainings.score = by_rate
    whole = searched(loader, tmp_path / "whole", trials=8)
    asked = [one.trainer.config.learning_rate for one in trainings.asked]
    trainings.asked.clear()
    trainings.score = stopped
    assert searched(loader, tmp_path / "parts", trials=8).unfinished == ("lora-seed-0",)
    trainings.score = by_rate
    resumed = searched(loader, tmp_path / "parts", trials=8)
    # The trial that was cut off is asked for again.
    assert [one.trainer.config.learning_rate for one in trainings.asked] == [*asked[:5], *asked[4:]]
    assert resumed.runs[0].training["search"] == whole.runs[0].training["search"]
    trainings.asked.clear()
    again = searched(loader, tmp_path / "parts", trials=8)
    assert again.runs[0].to_json() == resumed.runs[0].to_json()
    assert again.plan.summary == "1 run; 1 already finished"
    assert not trainings.asked


def test_poor_trials_are_cut_short(loader: ModelLoader, trainings: Trainings, tmp_path: Path) -> None:
    trainings.score = by_rate
    trainings.epochs = 4
    account = searched(loader, tmp_path / "a", trials=12, pruner="median").runs[0].training["search"]
    assert account["cut_short"] > 0
    whole = searched(loader, tmp_path / "b", trials=12, pruner="none").runs[0].training["search"]
    assert (whole["trials"], whole["cut_short"]) == (12, 0)


def test_a_failed_trial_is_counted_and_the_search_goes_on(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    def fails(trainer: Any) -> float:
        if trainer.config.learning_rate > 1e-2:
            raise TrainingError("The loss became nan.")
        return by_rate(trainer)

    trainings.score = fails
    account = searched(loader, tmp_path / "some", trials=8).runs[0].training["search"]
    assert account["failed"] > 0
    assert account["trials"] > 0

    def all_fail(trainer: Any) -> float:
        raise TrainingError("The loss became nan.")

    trainings.score = all_fail
    failed = searched(loader, tmp_path / "all", trials=2).failed
    assert "None of 2 trials of the search succeeded. The last error: TrainingError: The loss" in failed[0].message


def test_a_search_trains_for_real(loader: ModelLoader, quick_probe: None, tmp_path: Path) -> None:
    result = searched(loader, tmp_path, trials=2)
    assert result.runs[0].training["search"]["trials"] == 2


def test_a_search_without_optuna_names_the_extra(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"lightft\[sweep\]"):
        searched(loader, tmp_path)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "no space"),
        ({"learning_rat": Range(0.1, 0.2)}, "Did you mean 'learning_rate'"),
        ({"seed": [1, 2]}, "cannot set 'seed'"),
        ({"batch_size": []}, "one or more choices|to choose from"),
        ({"batch_size": [[1], [2]]}, "to choose from"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(space: Any, message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        Search(space)


def test_a_space_is_checked_against_every_adapter_before_training(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    search = Search({"adapter.r": [4, 8]})
    with pytest.raises(InvalidSettingError, match="'ia3' has no parameter 'r'"):
        sweep(loader, ["lora", "ia3"], DATA, search=search, output_dir=tmp_path, **QUICK)
    assert not trainings.asked


@pytest.mark.parametrize(
    ("given", "message"),
    [({"low": 1, "high": 1}, "is empty"), ({"low": 0.0, "high": 1.0, "log": True}, "no logarithms")],
)
def test_a_range_has_numbers(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        Range(**given)


# --- what it brought


def test_the_best_run_is_chosen_by_validation_and_never_by_test(
    loader: ModelLoader, trainings: Trainings, tmp_path: Path
) -> None:
    trainings.score = lambda trainer: {"lora": 0.7, "ia3": 0.9}[trainer.adapter.kind] - trainer.config.seed / 100
    result = sweep(loader, ["lora", "ia3"], DATA, seeds=2, output_dir=tmp_path, **QUICK)
    assert result.best.name == "ia3-seed-0"


def test_the_runs_of_a_sweep_are_compared_by_method(loader: ModelLoader, trainings: Trainings, tmp_path: Path) -> None:
    result = sweep(loader, grid("lora", r=[2, 4]), DATA, seeds=2, output_dir=tmp_path, **QUICK)
    comparison = result.compare(baseline="lora r=2")
    assert [method.name for method in comparison.methods] == ["lora r=2", "lora r=4"]
    assert comparison.baseline == "lora r=2"
    one_seed = sweep(loader, grid("lora", r=[2, 4]), DATA, seeds=1, output_dir=tmp_path, **QUICK)
    assert one_seed.compare(baseline="lora r=4").baseline == "lora r=4-seed-0"


def test_nothing_finished_is_nothing_to_compare(loader: ModelLoader, trainings: Trainings, tmp_path: Path) -> None:
    def fails(trainer: Any) -> float:
        raise RuntimeError("no")

    trainings.score = fails
    result = sweep(loader, ["lora"], DATA, seeds=1, output_dir=tmp_path, **QUICK)
    with pytest.raises(TrainingError, match="lora-seed-0: failed: RuntimeError: no"):
        result.compare()
    with pytest.raises(TrainingError, match="No run"):
        _ = result.best
