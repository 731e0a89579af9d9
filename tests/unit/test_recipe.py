"""Recipes: a file is either an analysis that can be carried out, or a list of every mistake in it with its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightft.cli import main
from lightft.errors import DataError, InvalidSettingError, TrainingError
from lightft.probe import Probe
from lightft.recipe import Recipe, RecipeAdapter, RecipeComparison, RecipeData, RecipeModel, run_recipe
from lightft.recipe.reading import recipe_of_text
from lightft.recipe.running import data_of
from lightft.sweeping import Budget, Range, Search
from tests.tiny_models import LABELS, classified_texts

EXAMPLE = Path(__file__).parents[2] / "examples" / "recipes" / "lora_against_qlora_sst2.yaml"
SMALLEST = "model: a/b\ndata: sst2\nadapters: [lora]\n"


def mistakes(text: str) -> list[str]:
    with pytest.raises(InvalidSettingError) as refusal:
        recipe_of_text(text)
    first, *lines = str(refusal.value).splitlines()
    count = "a mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    assert first == f"The recipe has {count}:"
    return [line.strip() for line in lines]


# --- files that are recipes


def test_the_smallest_recipe_has_a_model_data_and_adapters() -> None:
    assert recipe_of_text(SMALLEST) == Recipe(RecipeModel("a/b"), RecipeData("sst2"), (RecipeAdapter("lora"),))


def test_a_recipe_in_yaml_and_in_python_are_the_same() -> None:
    text = """\
model: {name: a/b, dtype: bfloat16, quantization: nf4}
data:
  source: {train: train.jsonl, test: test.jsonl}
  labels: [no, yes, 1]
  validation: 200
  rows: {train: 100}
adapters:
  - kind: lora
    r: [4, 16]
    targets: [[query, value], all]
    quantization: [nf4, int8]
  - {kind: ia3, name: small}
training: {learning_rate: 1e-4, epochs: 2, by_length: no, max_steps: null}
seeds: [3, 4]
search: {space: {weight_decay: {low: 1e-3, high: 0.1, log: on}, batch_size: [8, 16]}, trials: 5}
compare: {baseline: small, metric: accuracy}
report: out.html
output_dir: out
"""
    assert recipe_of_text(text) == Recipe(
        model=RecipeModel("a/b", dtype="bfloat16", quantization="nf4"),
        data=RecipeData(
            {"train": "train.jsonl", "test": "test.jsonl"},
            labels=("no", "yes", "1"),
            validation=200,
            rows={"train": 100},
        ),
        adapters=(
            RecipeAdapter("lora", {"r": [4, 16], "targets": [("query", "value"), "all"]}, ["nf4", "int8"]),
            RecipeAdapter("ia3", name="small"),
        ),
        training={"learning_rate": 1e-4, "epochs": 2, "by_length": False, "max_steps": None},
        seeds=(3, 4),
        search=Search({"weight_decay": Range(1e-3, 0.1, log=True), "batch_size": [8, 16]}, trials=5),
        compare=RecipeComparison("small", "accuracy"),
        report=("out.html",),
        output_dir="out",
    )


def test_adapters_are_named_after_what_the_file_gives_them() -> None:
    recipe = recipe_of_text(
        "model: m\ndata: d\nadapters:\n  - lora\n  - {kind: lora, r: [4, 8], bias: all}\n"
        "  - {kind: lora, quantization: [int8, nf4]}\n  - {kind: lora, dropout: 0.3, name: wet}\n"
    )
    names = ["lora", "lora r=4 bias=all", "lora r=8 bias=all", "lora int8", "lora nf4", "wet"]
    assert [candidate.name for candidate in recipe.candidates()] == names


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("0.0001", 1e-4), (".5", 0.5), ("5.e-1", 0.5)],
)
def test_numbers_are_read_as_people_write_them(written: str, value: float) -> None:
    # YAML 1.1 reads 1e-4 as text, for there is no point in it.
    assert recipe_of_text(f"{SMALLEST}training: {{learning_rate: {written}}}").training["learning_rate"] == value


@pytest.mark.parametrize("written", ["no", "yes", "on", "off", "1e-4", "010", "12:30:45", "2024-01-01", "'null'", "~x"])
def test_labels_are_the_letters_that_stand_there(written: str) -> None:
    recipe = recipe_of_text(f"model: m\ndata: {{source: d, labels: [{written}]}}\nadapters: [lora]")
    assert recipe.data.labels == (written.strip("'"),)


def test_a_whole_number_may_be_written_as_a_power_of_ten() -> None:
    training = recipe_of_text(f"{SMALLEST}training: {{max_steps: 1e3}}").training
    assert training == {"max_steps": 1000}
    assert isinstance(training["max_steps"], int)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
RECIPES = st.builds(
    Recipe,
    model=st.builds(RecipeModel, name=NAMES, revision=st.none() | NAMES, dtype=st.sampled_from(["auto", "float32"])),
    data=st.builds(
        RecipeData,
        source=NAMES | st.fixed_dictionaries({"train": NAMES, "test": NAMES}),
        labels=st.none() | st.lists(NAMES, min_size=1, unique=True).map(tuple),
        validation=st.floats(0, 0.9) | st.integers(0, 1000),
        rows=st.dictionaries(st.sampled_from(["train", "test"]), st.integers(0, 10**6)),
    ),
    adapters=st.sampled_from(
        [
            (RecipeAdapter("lora"),),
            (RecipeAdapter("lora", {"r": [4, 8], "targets": ("query", "value")}), RecipeAdapter("full", name="all")),
            (RecipeAdapter("lora", {"targets": ["all", ("query", "no")]}, [None, "nf4"]),),
            (RecipeAdapter("lora", {"targets": "1e-4"}, "int8"),),
        ]
    ),
    training=st.fixed_dictionaries({}, optional={"learning_rate": st.floats(1e-9, 0.9), "by_length": st.booleans()}),
    seeds=st.integers(1, 9) | st.lists(st.integers(0, 99), min_size=1, unique=True).map(tuple),
    budget=st.none() | st.builds(Budget, steps=st.integers(1, 99)) | st.builds(Budget, seconds=st.floats(0.1, 1e6)),
    search=st.none()
    | st.builds(
        Search,
        space=st.fixed_dictionaries({"weight_decay": st.builds(Range, low=st.just(1e-7), high=st.floats(0.1, 1))}),
        trials=st.integers(1, 9),
    ),
    report=st.lists(st.sampled_from(["a.html", "no.md"])).map(tuple),
    output_dir=NAMES,
)


@given(RECIPES)
@settings(max_examples=60, deadline=None)
def test_a_recipe_reads_back_as_it_was_written(recipe: Recipe) -> None:
    assert recipe_of_text(recipe.to_yaml()) == recipe


# --- files that are none


def test_every_mistake_is_named_at_once_with_its_place() -> None:
    text = """\
model: {name: x, dtyp: float32}
data:
  source: sst2
  validation: lots
adapters:
  - lorra
  - {kind: lora, r: [4, 0.5], bias: maybe}
  - {kind: lora, rank: 4}
  - {kind: lora, dropout: 2, quantization: nf5}
training: {epochs: many, by_length: perhaps, batch_sise: 3, schedule: lineal, seed: 3, max_steps: 0}
seeds: [0, 0]
seeds: 4
budget: {steps: 3, seconds: 4}
learning_rates: choosen
compare: {metric: acuracy}
report: [a.html, report.pdff]
search: {space: {learning_rate: {low: 1, high: 0}, foo: [1], batch_size: []}}
outputdir: there
"""
    found = mistakes(text)
    expected = [
        "line 1, column 18: There is no field 'dtyp' here. Did you mean 'dtype'?",
        "line 4, column 15: 'lots' stands where a number belongs.",
        "line 6, column 5: No adapter named 'lorra'. Did you mean 'lora'?",
        "line 7, column 25: 'lora' cannot have r=0.5: it must be a whole number.",
        "line 7, column 37: 'lora' cannot have bias='maybe'.",
        "line 8, column 18: There is no field 'rank' here.",
        "line 9, column 5: No quantization named 'nf5'. Did you mean 'nf4'?",
        "line 9, column 27: 'lora' cannot have dropout=2: it must be from 0 to below 1.",
        "line 10, column 20: 'many' stands where a whole number belongs.",
        "line 10, column 37: 'perhaps' stands where true or false belongs.",
        "line 10, column 46: There is no field 'batch_sise' here. Did you mean 'batch_size'?",
        "line 10, column 71: No schedule named 'lineal'. Did you mean 'linear'?",
        "line 10, column 85: A recipe has seeds, so that training cannot have a seed.",
        "line 10, column 99: max_steps is 0; it must be 1 or more",
        "line 11, column 8: seeds is (0, 0): give a number of seeds from 1",
        "line 12, column 1: 'seeds' stands here a second time.",
        "line 13, column 9: A budget is of steps or of seconds",
        "line 14, column 17: learning_rates is 'choosen'. Did you mean 'chosen'?",
        "line 15, column 19: There is no metric 'acuracy'. Did you mean 'accuracy'?",
        "line 16, column 18: 'report.pdff' does not say which report to write.",
        "line 17, column 33: The range from 1 to 0 is empty.",
        "line 17, column 57: The search cannot set 'foo'.",
        "line 17, column 74: The list is empty.",
        "line 18, column 1: There is no field 'outputdir' here. Did you mean 'output_dir'?",
    ]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "line 1, column 1", "The file is empty"),
        ("# only a comment\n", "line 1, column 1", "The file is empty"),
        ("- a\n- b", "line 1, column 1", "A list stands where fields belong"),
        ("just words", "line 1, column 1", "'just words' stands where fields belong"),
        ("model: [", "line 1, column 9", "This is no YAML"),
        ("model:\n\tname: x", "line 2, column 1", "Indent with spaces"),
        ("model: x\n  data: y", "line 2, column 7", "check the indent"),
        ("data: a: b", "line 1, column 8", "in quotes"),
        ("model: x\n---\nmodel: y", "line 2, column 1", "A file holds one recipe"),
        ("model: x\x00", "line 1, column 9", "U+0000"),
        ("? [a]\n: b", "line 1, column 3", "where the name of a field belongs"),
        ("model: !!python/object/apply:os.system [ls]", "line 1, column 8", "Tags are not read"),
        ("model: !x y", "line 1, column 8", "Tags are not read"),
        ("[" * 5000, "line 1, column 21", "inside each other"),
        ("# " + "x" * 200_000, "line 1, column 1", "at most 200,000"),
    ],
)
def test_what_is_no_recipe_at_all_is_refused_with_its_place(text: str, place: str, words: str) -> None:
    (line,) = mistakes(text)
    assert line.startswith(place)
    assert words in line


def test_anchors_and_aliases_are_refused_so_that_no_small_file_becomes_a_large_one() -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    found = mistakes(bomb)
    assert len(found) == 6
    assert all("not read" in line for line in found)


def test_what_is_missing_is_named() -> None:
    assert mistakes("model: m") == ["line 1, column 1: 'adapters' is missing.", "line 1, column 1: 'data' is missing."]
    assert mistakes("model: {dtype: auto}\ndata: d\nadapters: [{r: 4}]") == [
        "line 1, column 8: 'name' is missing.",
        *mistakes("model: m\ndata: d\nadapters: [{r: 4}]"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {epochs: 3}\nbudget: {steps: 3}", "epochs=3 cannot"),
        ("training: {learning_rate: 0.1}\nlearning_rates: chosen", "Leave one of the two out"),
        ("learning_rates: chosen\nsearch: {space: {batch_size: [8, 16]}}", "into the search's space"),
        ("training: {max_steps: 3, max_seconds: 3}", "not both"),
        ("search: {space: {adapter.rank: [8, 16]}}", "no parameter 'rank'"),
        ("compare: {baseline: lorra}", "Did you mean 'lora'"),
        ("budget: {seconds: 1e999}", "stands where a number belongs"),
        ("seeds: 99999999999999999999999", "give a number of seeds from 1 to 1,000"),
        ("seeds: 0", "give a number of seeds from 1"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(text: str, words: str) -> None:
    (line,) = mistakes(SMALLEST + text)
    assert line.startswith(("line 4", "line 5"))
    assert words in line


def test_twins_among_the_adapters_are_refused() -> None:
    (line,) = mistakes("model: m\ndata: d\nadapters:\n  - lora\n  - {kind: lora, r: 16}\n")
    assert "'lora' and 'lora r=16' are the same" in line


def test_a_recipe_in_python_is_checked_alike() -> None:
    with pytest.raises(InvalidSettingError) as refusal:
        Recipe(
            RecipeModel("m"),
            RecipeData("d"),
            (RecipeAdapter("lora"),),
            training={"epochz": 3},
            compare=RecipeComparison("lorra", "acuracy"),
        )
    assert len(str(refusal.value).splitlines()) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: RecipeModel("m", dtype="float23"),
        lambda: RecipeModel("m", quantization="nf5"),
        lambda: RecipeData("d", task="classification"),
        lambda: RecipeData("d", validation=-1),
        lambda: RecipeData("d", validation=1.5),
        lambda: RecipeData("d", test_from="train"),
        lambda: RecipeData("d", rows={"dev": 3}),
        lambda: RecipeData("d", rows={"train": -3}),
        lambda: RecipeAdapter("lora", {"r": [4, 8]}, name="one"),
    ],
)
def test_every_part_checks_itself(make: Any) -> None:
    with pytest.raises(InvalidSettingError):
        make()


@given(st.text() | st.text("abc:[]{}-,&*!|>'\"#%@` \n\t0123", max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_text_does_anything_but_be_read_or_refused(text: str) -> None:
    with pytest.raises(InvalidSettingError):
        recipe_of_text(text)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="There is no recipe"):
        Recipe.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InvalidSettingError, match="cannot be read"):
        Recipe.from_yaml(tmp_path / "picture.yaml")


def test_mistakes_are_found_without_the_deep_learning_stack(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{SMALLEST}training: {{epochz: 3}}")
    code = (
        "import sys; from lightft.recipe import run_recipe\n"
        "try: run_recipe(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print(sorted({'torch', 'transformers', 'peft', 'datasets'} & {*sys.modules}))"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert "Did you mean 'epochs'" in shown
    assert shown.endswith("[]\n")


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: m")
    with pytest.raises(InvalidSettingError, match=r"mine\.yaml has 2 mistakes:"):
        Recipe.from_yaml(path)


# --- carried out


def write_data(folder: Path, **splits: int) -> str:
    folder.mkdir(exist_ok=True)
    rows = iter(classified_texts(sum(splits.values())))
    for split, count in splits.items():
        lines = [
            json.dumps({"text": (row := next(rows)).text, "label": row.target, "id": row.id}) for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return str(folder)


def test_the_validation_split_can_be_what_is_tested_on(tmp_path: Path) -> None:
    source = write_data(tmp_path / "data", train=20, validation=6)
    data = data_of(RecipeData(source, test_from="validation", validation=4, rows={"train": 10}))
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 4, 6)
    plain = data_of(RecipeData(write_data(tmp_path / "three", train=20, validation=6, test=5)))
    assert (len(plain.validation), len(plain.test)) == (6, 5)
    assert not {row.text for row in data.train} & {row.text for row in data.validation}
    assert data.notes["test_from"] == "test split: the source's validation split"


def test_data_without_anything_to_test_on_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test_from: validation"):
        data_of(RecipeData(write_data(tmp_path / "two", train=20, validation=6)))
    with pytest.raises(DataError, match="no validation split of its own"):
        data_of(RecipeData(write_data(tmp_path / "one", train=20), test_from="validation"))


def test_the_example_compares_what_it_says() -> None:
    recipe = Recipe.from_yaml(EXAMPLE)
    assert [candidate.name for candidate in recipe.candidates()] == [
        "head-only",
        "full",
        "lora r=4",
        "lora r=16",
        "lora r=32",
        "lora targets=query-value",
        "lora targets=attention",
        "lora bias=all",
        "lora dropout=0.3",
        "lora int8",
        "lora nf4",
    ]
    assert recipe.budget == Budget(steps=100)
    assert recipe_of_text(recipe.to_yaml()) == recipe


def test_a_miniature_of_the_example_runs_from_end_to_end(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightft.sweeping.plan.probe", lambda trainer, data: Probe(1.0, 2, 2.0, 0, 0, 0, 0, 10**9))
    monkeypatch.chdir(tmp_path)
    example = Recipe.from_yaml(os.path.relpath(EXAMPLE, tmp_path))
    miniature = replace(
        example,
        model=RecipeModel(str(tiny_bert), dtype="float32"),
        data=replace(example.data, validation=4, rows={}),
        adapters=(example.adapters[0], RecipeAdapter("lora", {"r": [16]}), example.adapters[-1]),
        seeds=1,
        budget=Budget(steps=2),
        learning_rates="default",
    )
    (tmp_path / "recipe.yaml").write_text(miniature.to_yaml())
    data = write_data(tmp_path / "data", train=16, dev=8)
    said: list[str] = []

    plan = run_recipe("recipe.yaml", data=data, dry_run=True, say=said.append)
    assert (plan.runs, plan.finished, plan.seconds) == (4, 0, 8.0)
    assert not (tmp_path / "runs").exists()

    result = run_recipe("recipe.yaml", data=data, say=said.append)
    assert not result.failed
    names = ["head-only", "lora r=16", "lora int8", "lora nf4"]
    assert [run.name for run in result.runs] == [f"{name}-seed-0" for name in names]
    assert [run.model["quantization"] for run in result.runs] == [None, None, "int8", "nf4"]
    assert {run.training["steps"] for run in result.runs} == {2}
    assert {len(run.predictions) for run in result.runs} == {8}
    assert result.runs[0].labels == LABELS
    page = (tmp_path / "runs" / "lora-against-qlora" / "report.html").read_text()
    assert all(name in page for name in names)
    assert (tmp_path / "runs" / "lora-against-qlora" / "report.md").is_file()
    assert f"Wrote {Path('runs/lora-against-qlora/report.md')}" in said

    said.clear()
    again = run_recipe("recipe.yaml", data=data, say=said.append)
    assert said[0] == "4 runs; 4 already finished"
    assert [run.to_json() for run in again.runs] == [run.to_json() for run in result.runs]


def test_the_command_tells_by_its_status_that_runs_failed(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", train=16, dev=8)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {tiny_bert}\ndata: {{source: {data}, test_from: validation, validation: 4}}\n"
        f"adapters: [head-only]\nseeds: 1\nbudget: {{steps: 1}}\noutput_dir: {tmp_path / 'runs'}\n"
    )

    def fails(*_: Any, **named: Any) -> Any:
        raise TrainingError("The loss became nan.")

    with monkeypatch.context() as patch:
        patch.setattr("lightft.experiment.train_together", fails)
        assert main(["run", str(recipe)]) == 1
    assert "The loss became nan." in capsys.readouterr().out
    assert main(["run", str(recipe)]) == 0
