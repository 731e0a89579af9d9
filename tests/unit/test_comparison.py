"""Comparing runs: what is refused, what is claimed, and what is only noted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightft.comparison import Comparison, compare_runs
from lightft.comparison.tables import other_counts_table, score_table
from lightft.contracts.made_up_runs import classification_run, generation_run, tagging_run
from lightft.errors import DataError, IncomparableRunsError, InvalidSettingError, UnknownNameError
from lightft.metrics import Metric, build_metric, score_predictions
from lightft.metrics.metric import count_rows
from lightft.records import Example, Prediction, Run, Span
from lightft.significance import (
    bca_interval,
    benjamini_hochberg_adjusted,
    bootstrap_interval,
    delong_test,
    holm_adjusted,
    mcnemar_exact,
    resampled_scores,
    seeds_difference,
    seeds_interval,
)


def quick(*runs: Run, **options: Any) -> Comparison:
    return compare_runs(runs, **{"resamples": 500, **options})


WEAK, STRONG = tagging_run("weak", skill=0.6), tagging_run("strong", skill=0.9)
NEARLY_WEAK = tagging_run("nearly weak", skill=0.61)


def test_a_clear_difference_is_better_seen_from_one_run_and_worse_from_the_other() -> None:
    against_weak = quick(WEAK, STRONG, baseline="weak").differences[0]
    against_strong = quick(WEAK, STRONG, baseline="strong").differences[0]
    assert (against_weak.a, against_weak.b, against_weak.verdict) == ("strong", "weak", "better")
    assert (against_strong.a, against_strong.b, against_strong.verdict) == ("weak", "strong", "worse")
    assert against_weak.difference == -against_strong.difference > 0


def test_a_small_difference_cannot_be_told() -> None:
    comparison = quick(WEAK, NEARLY_WEAK)
    assert comparison.differences[0].verdict == "cannot tell"
    assert "this test set cannot tell" in comparison.finding


def test_scores_are_those_of_the_metrics() -> None:
    comparison = quick(WEAK, STRONG)
    expected = score_predictions(STRONG.predictions, STRONG.metrics, STRONG.labels)
    assert {name: score.value for name, score in comparison.row("strong").scores.items()} == expected


def test_every_score_lies_in_its_interval() -> None:
    runs = (
        classification_run("a", skill=0.3),
        classification_run("b", skill=0.5, metrics=("roc_auc", "macro_f1", "calibration_error")),
    )
    for row in quick(*runs).rows:
        for score in row.scores.values():
            assert score.interval is not None
            assert score.interval.low <= score.value <= score.interval.high or score.value < 0.06


@pytest.mark.parametrize(("intervals", "expected"), [("percentile", bootstrap_interval), ("bca", bca_interval)])
def test_interval_is_the_bootstrap_over_examples(intervals: str, expected: Any) -> None:
    run = classification_run("a", skill=0.3)
    right = np.array([[one.gold == one.predicted, 1] for one in run.predictions], dtype=float)
    bootstrapped = expected(
        right, lambda totals: totals[..., 0] / totals[..., 1], resamples=500, rng=np.random.default_rng(3)
    )
    found = quick(run, seed=3, intervals=intervals).row("a").scores["accuracy"].interval
    assert (found.low, found.high) == pytest.approx((bootstrapped.low, bootstrapped.high))


def test_right_and_wrong_answers_get_mcnemars_exact_test() -> None:
    a, b = classification_run("a", skill=0.3), classification_run("b", skill=0.4)
    comparison = quick(a, b)
    right_a, right_b = (np.array([one.gold == one.predicted for one in run.predictions]) for run in (a, b))
    assert comparison.differences[0].p_value == pytest.approx(mcnemar_exact(right_a, right_b))
    assert comparison.differences[0].test == "McNemar's exact test"


def test_p_values_are_adjusted_for_the_number_of_differences() -> None:
    comparison = quick(WEAK, NEARLY_WEAK, STRONG)
    assert len(comparison.differences) == 3
    adjusted = holm_adjusted([one.p_value for one in comparison.differences])
    assert tuple(one.adjusted_p_value for one in comparison.differences) == adjusted


def test_the_correction_can_be_benjamini_and_hochbergs() -> None:
    comparison = quick(WEAK, NEARLY_WEAK, STRONG, correction="benjamini-hochberg")
    adjusted = benjamini_hochberg_adjusted([one.p_value for one in comparison.differences])
    assert tuple(one.adjusted_p_value for one in comparison.differences) == adjusted
    with pytest.raises(InvalidSettingError, match="There is no correction 'bonferoni'"):
        quick(WEAK, STRONG, correction="bonferoni")


def test_with_a_baseline_each_other_run_is_held_against_it() -> None:
    comparison = quick(WEAK, NEARLY_WEAK, STRONG, baseline="nearly weak")
    assert [(one.a, one.b) for one in comparison.differences] == [("weak", "nearly weak"), ("strong", "nearly weak")]
    assert "than the baseline nearly weak" in comparison.finding


def test_a_lower_perplexity_is_better() -> None:
    good, bad = generation_run("good", skill=0.9), generation_run("bad", skill=0.1)
    comparison = quick(bad, good)
    assert [row.name for row in comparison.ranked()] == ["good", "bad"]
    assert (comparison.differences[0].a, comparison.differences[0].verdict) == ("good", "better")
    assert comparison.differences[0].difference < 0
    assert "good has the lowest perplexity" in comparison.finding


def test_a_rank_metric_can_be_the_headline() -> None:
    a, b = (classification_run(name, skill=skill, examples=150) for name, skill in (("a", 0.1), ("b", 0.6)))
    comparison = compare_runs([a, b], metric="roc_auc", resamples=200)
    assert comparison.headline == "roc_auc"
    assert comparison.differences[0].verdict == "better"
    assert comparison.differences[0].test == "DeLong's test"
    gold = np.array([one.gold == "positive" for one in a.predictions])
    scores = [np.array([(one.probabilities or {})["positive"] for one in run.predictions]) for run in (b, a)]
    assert comparison.differences[0].p_value == delong_test(gold, *scores)[2]


def test_an_area_over_more_than_two_classes_is_tested_by_swapping_answers() -> None:
    labels = ("one", "two", "three")
    a, b = (classification_run(name, skill=skill, examples=90, labels=labels) for name, skill in (("a", 0), ("b", 1)))
    comparison = compare_runs([a, b], metric="roc_auc", resamples=200)
    assert (comparison.differences[0].test, comparison.differences[0].verdict) == (
        "approximate randomization",
        "better",
    )


def test_rank_metrics_take_fewer_resamples_and_say_so() -> None:
    comparison = compare_runs([classification_run("a", skill=0.5, examples=50)], resamples=3000)
    assert comparison.metric("accuracy").resamples == 3000
    assert comparison.metric("roc_auc").resamples == 1000


def test_equal_seeds_give_equal_comparisons() -> None:
    assert quick(WEAK, STRONG, seed=1).to_json() == quick(WEAK, STRONG, seed=1).to_json()
    assert quick(WEAK, STRONG, seed=1).to_json() != quick(WEAK, STRONG, seed=2).to_json()


def test_the_order_of_a_runs_predictions_does_not_matter() -> None:
    backwards = replace(STRONG, predictions=STRONG.predictions[::-1])
    assert quick(WEAK, backwards).to_json() == quick(WEAK, STRONG).to_json()


def test_the_order_of_gold_spans_does_not_matter() -> None:
    turned = tuple(replace(one, gold=tuple(reversed(one.gold or ()))) for one in STRONG.predictions)
    assert quick(WEAK, replace(STRONG, predictions=turned)).differences == quick(WEAK, STRONG).differences


def test_runs_on_other_examples_are_refused_with_the_first_missing_id() -> None:
    shorter = replace(STRONG, predictions=STRONG.predictions[2:])
    with pytest.raises(
        IncomparableRunsError,
        match=r"'weak' and 'strong' were scored on different examples: 2 ids of 'weak' are absent from 'strong' "
        r"\(first: 'test-0'\). Re-run 'strong' on the same split, or compare on the common ids with on='common'.",
    ):
        quick(WEAK, shorter)


def test_common_examples_are_compared_on_request_and_the_rest_is_counted() -> None:
    shorter = replace(STRONG, predictions=STRONG.predictions[2:], data={"test_fingerprint": "other"})
    comparison = quick(WEAK, shorter, on="common")
    assert comparison.test_set.examples == 298
    assert comparison.test_set.left_out == {"weak": 2}
    assert comparison.test_set.fingerprint == ""
    assert any("Only examples that all runs have" in note for note in comparison.notes)


def test_runs_without_a_common_example_are_refused() -> None:
    elsewhere = replace(STRONG, predictions=tuple(replace(one, id=f"x{one.id}") for one in STRONG.predictions))
    with pytest.raises(IncomparableRunsError, match="no example in common"):
        quick(WEAK, elsewhere, on="common")


@pytest.mark.parametrize("on", ["all", "common"])
def test_different_gold_answers_are_refused_always(on: str) -> None:
    regraded = (replace(STRONG.predictions[0], gold=(Span(0, 1, "PER"),)), *STRONG.predictions[1:])
    with pytest.raises(
        IncomparableRunsError, match=r"different gold answers: 1 of 300 examples differ \(first: 'test-0'"
    ):
        quick(WEAK, replace(STRONG, predictions=regraded), on=on)


def test_other_fingerprints_are_refused() -> None:
    other = replace(STRONG, data={"test_fingerprint": "0" * 64})
    with pytest.raises(IncomparableRunsError, match="different test sets"):
        quick(WEAK, other)


def test_runs_of_different_tasks_compare_where_gold_answers_agree_in_the_metrics_that_all_name() -> None:
    extracted = replace(STRONG, task="llm-ner", labels=(), metrics=("entity_strings_f1", "span_f1"))
    comparison = quick(WEAK, extracted)
    assert comparison.headline == "span_f1"
    assert [metric.name for metric in comparison.metrics] == ["span_f1"]
    assert comparison.differences[0].verdict == "better"
    with pytest.raises(InvalidSettingError, match="name no metric in common"):
        quick(WEAK, replace(extracted, metrics=("entity_strings_f1",)))


def test_runs_that_look_for_other_labels_are_refused() -> None:
    fewer = replace(STRONG, labels=("LOC", "ORG", "PER"))
    with pytest.raises(
        IncomparableRunsError, match="look for different labels: 'strong' does not know 'MISC' of 'weak'"
    ):
        quick(WEAK, fewer)
    assert quick(WEAK, fewer, on="common").differences[0].verdict == "better"


def test_tags_and_types_are_the_same_labels() -> None:
    tags = ("O", *(f"{prefix}-{label}" for label in WEAK.labels for prefix in "BI"))
    assert quick(WEAK, replace(STRONG, labels=tags)).differences == quick(WEAK, STRONG).differences


def test_shuffled_predictions_are_refused_with_the_first_id() -> None:
    fourth = STRONG.predictions[3]
    swapped = replace(fourth, words=(*(fourth.words or ())[1:], (100, 105)))
    shuffled = (*STRONG.predictions[:3], swapped, *STRONG.predictions[4:])
    with pytest.raises(
        IncomparableRunsError, match=r"as if predictions had been shuffled: 1 of 300 .* \(first: 'test-3'\)"
    ):
        quick(WEAK, replace(STRONG, predictions=shuffled))


def selected_on_its_test_set() -> Run:
    history = [{"step": step, "epoch": step / 10, "validation_span_f1": 0.5} for step in (10, 20)]
    return replace(WEAK, data={**WEAK.data, "tested_on": "validation"}, history=history)


def test_scores_on_the_split_that_chose_the_epoch_are_refused() -> None:
    with pytest.raises(
        IncomparableRunsError,
        match=r"'weak' is scored on the split that chose the best of its 2 epochs \(first id: 'test-0'",
    ):
        quick(selected_on_its_test_set(), STRONG)
    warned = quick(selected_on_its_test_set(), STRONG, selected_on_test="warn")
    assert warned.warnings[0].startswith("weak: Scored on the validation split")


def test_with_one_epoch_a_validation_split_chose_nothing() -> None:
    run = selected_on_its_test_set()
    assert quick(replace(run, history=run.history[:1]), STRONG).differences[0].verdict == "better"


def test_repeated_ids_are_refused() -> None:
    twice = replace(WEAK, predictions=(*WEAK.predictions, WEAK.predictions[0]))
    with pytest.raises(IncomparableRunsError, match="'weak' answers 1 examples more than once"):
        quick(twice)


def test_runs_without_predictions_are_refused() -> None:
    with pytest.raises(IncomparableRunsError, match="'weak' holds no predictions"):
        quick(replace(WEAK, predictions=()))


def test_no_runs_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match="no runs to compare"):
        quick()


def test_an_unknown_baseline_suggests_the_nearest_run() -> None:
    with pytest.raises(InvalidSettingError, match="Did you mean 'weak'"):
        quick(WEAK, STRONG, baseline="waek")


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="No metric named 'f1'"):
        quick(WEAK, metric="f1")


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(DataError, match="'accuracy' cannot score"):
        quick(WEAK, metric="accuracy")


def test_an_unknown_on_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="on is 'some'"):
        quick(WEAK, on="some")


def test_two_runs_of_one_name_are_refused_with_their_folders() -> None:
    with pytest.raises(InvalidSettingError, match="Two runs are named 'lora': one in a/lora, one in b/lora"):
        quick(replace(WEAK, name="lora", path=Path("a/lora")), replace(STRONG, name="lora", path=Path("b/lora")))


def test_two_methods_are_held_against_each_other_though_their_names_begin_alike() -> None:
    runs = [seeded("run", 0.6 + r / 100, seed, r) for r in (4, 16) for seed in (0, 1)]
    runs = [replace(run, name=f"run-{number}") for number, run in enumerate(runs)]
    comparison = quick(*runs)
    assert [method.name for method in comparison.methods] == ["run-0", "run-2"]
    assert len(comparison.differences) == 1


def test_one_seed_claims_nothing_about_the_method() -> None:
    assert quick(WEAK, STRONG).notes[0].startswith("1 seed: these runs, on this test set.")


def seeded(name: str, skill: float, seed: int, r: int) -> Run:
    return tagging_run(
        name,
        skill=skill,
        seed=seed,
        model={"name": "base", "seed": seed},
        adapter={"kind": "lora", "params": {"r": r}},
        training={"epochs": 3, "seed": seed, "output_dir": f"runs/{name}"},
    )


def three_seeds_each(*skills: float) -> list[Run]:
    return [
        seeded(f"r{int(100 * skill)}-seed{seed}", skill, seed, int(100 * skill))
        for skill in skills
        for seed in (0, 1, 2)
    ]


def test_runs_that_differ_in_the_seed_alone_are_one_method() -> None:
    comparison = quick(*three_seeds_each(0.6, 0.9))
    assert [(method.name, method.seeds) for method in comparison.methods] == [("r60", 3), ("r90", 3)]
    values = [comparison.row(f"r60-seed{seed}").scores["span_f1"].value for seed in (0, 1, 2)]
    method = comparison.methods[0]
    assert (method.mean, method.deviation) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert (method.lowest, method.highest) == (min(values), max(values))
    [difference] = comparison.differences
    assert (difference.a, difference.b, difference.verdict, difference.several_seeds) == ("r90", "r60", "better", True)
    assert not any(note.startswith("1 seed") for note in comparison.notes)
    assert "r90 has the highest span_f1" in comparison.finding
    assert "3 seeds" in comparison.finding


def test_differences_of_methods_are_those_of_the_statistics_over_seeds() -> None:
    runs = three_seeds_each(0.7, 0.75)
    comparison = quick(*runs)
    f1 = build_metric("span_f1")
    assert isinstance(f1, Metric)
    drawn = resampled_scores(
        [count_rows(run.predictions, f1) for run in runs], f1.score, resamples=500, rng=np.random.default_rng(0)
    )
    values = np.array([comparison.row(run.name).scores["span_f1"].value for run in runs])
    expected = seeds_difference(values[3:], drawn[3:], values[:3], drawn[:3], level=0.95)
    [difference] = comparison.differences
    assert (difference.a, difference.b) == ("r75", "r70")
    assert difference.p_value == pytest.approx(expected.p_value)
    assert difference.interval is not None
    assert difference.interval.low == pytest.approx(expected.interval.low)
    mean = seeds_interval(values[3:], drawn[3:], level=0.95)
    interval = comparison.method("r75").interval
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((mean.interval.low, mean.interval.high))


def test_a_method_of_one_seed_beside_one_of_several_claims_nothing_about_itself() -> None:
    runs = [*three_seeds_each(0.6), seeded("r90-seed0", 0.9, 0, 90)]
    comparison = quick(*runs)
    assert comparison.differences[0].several_seeds is False
    assert any(note.startswith("1 seed: r90-seed0.") for note in comparison.notes)
    assert comparison.finding.endswith("r90-seed0 has one seed: what is said of it is about this run.")


def test_the_same_seed_twice_is_no_evidence_of_how_seeds_vary() -> None:
    runs = [replace(seeded("r4", 0.6, 0, 4), name=name) for name in ("once", "again")]
    assert [method.seeds for method in quick(*runs).methods] == [1, 1]


def test_a_baseline_may_be_a_run_or_its_method() -> None:
    runs = three_seeds_each(0.6, 0.9)
    by_run, by_method = quick(*runs, baseline="r60-seed1"), quick(*runs, baseline="r60")
    assert by_run.differences == by_method.differences
    assert by_run.baseline == by_method.baseline == "r60"


def test_how_large_a_test_set_would_tell_is_said_where_this_one_cannot() -> None:
    comparison = quick(WEAK, NEARLY_WEAK)
    [difference] = comparison.differences
    assert difference.rows_needed > comparison.test_set.examples
    assert abs(difference.difference) < difference.smallest_detectable
    assert "test examples would tell it from" in comparison.finding


def examples_of(run: Run) -> list[Example]:
    return [Example(one.id, "x" * 71, target=one.gold, words=one.words) for one in run.predictions]


def test_texts_are_kept_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    comparison = quick(WEAK, STRONG, examples=examples_of(WEAK))
    secret = "x" * 71
    assert comparison.examples
    for suffix in ("html", "md", "csv", "json"):
        assert secret not in comparison.save(tmp_path / f"plain.{suffix}").read_text()
    assert secret in comparison.save(tmp_path / "texts.json", include_text=True).read_text()
    with pytest.raises(InvalidSettingError, match="There are no texts to include"):
        quick(WEAK, STRONG).save(tmp_path / "none.html", include_text=True)


def test_entities_are_also_counted_as_others_do_where_texts_are_given() -> None:
    assert quick(WEAK, STRONG).other_counts == ()
    comparison = quick(WEAK, STRONG, examples=examples_of(WEAK))
    assert comparison.headline == "span_f1"
    assert set(comparison.other_counts) >= {"span_f1_lenient", "entity_strings_f1", "entity_occurrences_f1"}
    table = other_counts_table(comparison)
    assert table is not None
    assert len(table.rows) == 2
    assert "entity_strings_f1: language models that list strings" in table.caption
    assert "entity_strings_f1" not in [heading.text for heading in score_table(comparison).headings]


def test_sub_tokens_of_the_tagger_are_lent_to_a_run_without_a_tokenizer() -> None:
    extracted = replace(
        STRONG, task="llm-ner", predictions=tuple(replace(one, pieces=None, words=None) for one in STRONG.predictions)
    )
    comparison = quick(STRONG, replace(extracted, name="llm"), examples=examples_of(WEAK))
    scores = [comparison.row(name).scores["span_f1_subtoken"].value for name in ("strong", "llm")]
    assert scores[0] == scores[1]


def test_examples_of_other_data_are_refused() -> None:
    examples = examples_of(WEAK)
    with pytest.raises(DataError, match="The examples given lack 'test-0'"):
        quick(WEAK, STRONG, examples=examples[1:])
    with pytest.raises(DataError, match="The gold answer of 'test-0' differs"):
        quick(WEAK, STRONG, examples=[replace(examples[0], target=(Span(0, 1, "PER"),)), *examples[1:]])


def test_test_examples_in_the_training_data_are_a_warning() -> None:
    duplicates = {"test": {"exact": 5, "normalised": 9, "first": []}, "validation": {"exact": 3, "normalised": 3}}
    leaking = replace(WEAK, data={**WEAK.data, "duplicates": duplicates})
    assert "5 of 300 test examples also stand in the training data (9 apart from" in quick(leaking).warnings[0]
    assert quick(leaking, STRONG).warnings[0].startswith("weak: 5 of 300")
    assert len(quick(leaking, replace(leaking, name="other")).warnings) == 1
    assert quick(WEAK).warnings == ()


def test_scores_on_the_validation_split_are_a_warning() -> None:
    data = {**WEAK.data, "tested_on": "validation", "duplicates": {"validation": {"exact": 3, "normalised": 3}}}
    warnings = quick(replace(WEAK, data=data)).warnings
    assert warnings[0].startswith("Scored on the validation split")
    assert warnings[1].startswith("3 of 300 test examples")


def test_other_headline_metrics_are_noted() -> None:
    other = replace(STRONG, metrics=("token_accuracy", "span_f1"))
    assert any("another headline metric: token_accuracy" in note for note in quick(WEAK, other).notes)


def test_texts_that_were_cut_are_noted() -> None:
    def cut(name: str, **counts: int) -> Run:
        run = generation_run(name, skill=0.5)
        return replace(run, data={**run.data, "encoding": counts})

    runs = (
        cut("short", truncated_texts=1234, texts_without_loss=5, truncated_test_texts=6),
        cut("tested", truncated_test_texts=7),
        cut("whole", extra_windows=8),
    )
    notes = [note for note in quick(*runs).notes if "cut" in note]
    assert len(notes) == 2
    assert notes[0].startswith("short: 1,234 training texts and 6 test texts were cut")
    assert "5 in training lost their whole answer. Raise max_length" in notes[0]
    assert notes[1].startswith("tested: 7 test texts were cut")


def test_one_run_alone_is_shown_without_claims() -> None:
    comparison = quick(STRONG)
    assert comparison.differences == ()
    assert "no other run" in comparison.finding


def test_what_one_run_lacks_is_undefined_for_it_alone() -> None:
    with_probabilities = classification_run("a", skill=0.5, examples=60)
    without = classification_run("b", skill=0.5, examples=60)
    without = replace(without, predictions=tuple(replace(one, probabilities=None) for one in without.predictions))
    comparison = quick(with_probabilities, without, metric="roc_auc", resamples=50)
    assert [row.name for row in comparison.ranked()] == ["a", "b"]
    assert math.isnan(comparison.row("b").scores["roc_auc"].value)
    assert not math.isnan(comparison.row("a").scores["roc_auc"].value)
    assert comparison.differences[0].verdict == "cannot tell"
    assert any("Undefined, and shown as –: roc_auc of b" in note for note in comparison.notes)
    assert comparison.finding.startswith("a has the highest roc_auc")


def test_generated_texts_do_not_become_classes() -> None:
    row = quick(generation_run("a", skill=0.5)).rows[0]
    assert row.labels == ()
    assert row.confusion is None


def test_text_form_holds_every_run_and_its_cost() -> None:
    cost = {
        "train_seconds": 552.0,
        "peak_memory_bytes": 1.2e9,
        "trainable_parameters": 312_000,
        "total_parameters": 22_713_216,
    }
    text = str(quick(replace(WEAK, cost=cost), STRONG))
    for expected in ("weak", "strong", "9 min 12 s", "1.2 GB", "0.31 M of 22.7 M", "–", "better", "1 seed"):
        assert expected in text


def test_json_form_is_strict_json(tmp_path: Path) -> None:
    path = quick(WEAK, tagging_run("nothing", skill=0.0)).save(tmp_path / "new" / "comparison.json")
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [row["name"] for row in data["rows"]] == ["weak", "nothing"]
    assert data["differences"][0]["verdict"] == "better"
    assert data["finding"]


def test_the_suffix_says_which_report_is_written(tmp_path: Path) -> None:
    comparison = quick(WEAK, STRONG)
    assert comparison.save(tmp_path / "a.md").read_text().startswith("# ")
    assert comparison.save(tmp_path / "a.csv").read_text().startswith("run,method,span_f1")
    assert comparison.save(tmp_path / "a.HTML").read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(InvalidSettingError, match=r"'a.pdf' does not say which report to write.*\.csv, \.html"):
        comparison.save(tmp_path / "a.pdf")


def test_runs_read_back_from_disk_compare_as_before(tmp_path: Path) -> None:
    runs = [classification_run("a", skill=0.3), classification_run("b", skill=0.5)]
    read_back = [Run.load(run.save(tmp_path / run.name)) for run in runs]
    assert quick(*read_back).to_json() == quick(*runs).to_json()


def test_a_gold_answer_is_needed() -> None:
    with pytest.raises(DataError, match="no gold answer"):
        quick(replace(WEAK, predictions=(Prediction("1", gold=None, predicted=()),)))
