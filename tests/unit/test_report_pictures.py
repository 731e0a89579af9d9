"""Pictures: marks stand where the numbers say, every mark says its numbers, and what is left out is named."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from sklearn import metrics as sklearn_metrics

from lightft.comparison import Comparison, compare_runs
from lightft.contracts.made_up_runs import (
    classification_run,
    generation_run,
    lora_runs,
    made_up_cost,
    made_up_history,
    tagging_run,
)
from lightft.metrics import score_predictions
from lightft.records import Example, Prediction, Run, Span
from lightft.reports.pictures import Picture, draw_pictures
from lightft.reports.pictures.bars import memory_picture, outcome_picture
from lightft.reports.pictures.confusions import confusion_picture
from lightft.reports.pictures.costs import cost_pictures
from lightft.reports.pictures.curves import loss_picture, validation_picture
from lightft.reports.pictures.differences import difference_picture
from lightft.reports.pictures.labels import label_picture, slice_picture
from lightft.reports.pictures.probabilities import precision_recall_picture, roc_picture
from lightft.reports.pictures.reliability import reliability_picture
from lightft.reports.pictures.scores import score_picture
from lightft.reports.pictures.sensitivity import sensitivity_pictures
from lightft.reports.pictures.style import short, short_names
from lightft.wording import printable, score_words
from tests.hostile import HOSTILE

PHONE = 300
"""Pixels that a phone of 360 leaves a picture."""


@cache
def tagging() -> Comparison:
    runs = [*lora_runs(examples=120), tagging_run("plain", skill=0.4, examples=120, cost=made_up_cost(1))]
    return compare_runs(runs, resamples=100, baseline="plain")


@cache
def classes() -> Comparison:
    runs = lora_runs(classification_run, headline="accuracy", examples=120)
    return compare_runs([*runs, classification_run("plain", skill=0.1, examples=120)], resamples=100)


@cache
def texts() -> Comparison:
    runs = lora_runs(generation_run, seeds=1, headline="perplexity", examples=60)
    return compare_runs(runs, resamples=100)


@cache
def drawn(comparison: Callable[[], Comparison]) -> list[Picture]:
    return draw_pictures(comparison())


def is_there(picture: Picture | None) -> Picture:
    assert picture is not None
    return picture


@dataclass(frozen=True)
class Mark:
    """What carries a tooltip: its text, and the corners of what is drawn, in units of the drawing."""

    words: str
    corners: list[tuple[float, float]]

    @property
    def x(self) -> float:
        return self.corners[0][0]

    @property
    def y(self) -> float:
        return self.corners[0][1]

    @property
    def width(self) -> float:
        return max(x for x, _ in self.corners) - min(x for x, _ in self.corners)


def marks(picture: Picture) -> list[Mark]:
    found = []
    for drawing in picture.drawings:
        for element in ElementTree.fromstring(drawing).iter():
            title = element.find("{*}title")
            if title is not None:
                found.append(Mark(title.text or "", [*corners(element)]))
    return found


def corners(element: Element) -> Iterator[tuple[float, float]]:
    uses = element.findall(".//{*}use")
    for use in uses:
        yield float(use.attrib["x"]), float(use.attrib["y"])
    for path in element.iterfind(".//{*}path") if not uses else ():
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.attrib["d"]):
            yield float(x), float(y)


def dots(picture: Picture) -> list[Mark]:
    return [mark for mark in marks(picture) if len(mark.corners) == 1]


def about(picture: Picture, beginning: str) -> list[Mark]:
    return [mark for mark in marks(picture) if mark.words.startswith(beginning)]


def shown_texts(picture: Picture) -> list[str]:
    return [
        "".join(element.itertext())
        for drawing in picture.drawings
        for element in ElementTree.fromstring(drawing).iterfind(".//{*}text")
    ]


def is_a_scale(values: Sequence[float], places: Sequence[float]) -> bool:
    """Whether the places are a straight function of the values, to a tenth of a unit."""
    slope, start = np.polyfit(values, places, 1)
    return bool(np.abs(slope * np.array(values) + start - np.array(places)).max() < 0.1)


# Scores


def test_each_run_is_a_dot_at_its_score() -> None:
    comparison = tagging()
    picture = is_there(score_picture(comparison))
    found = {dot.words.partition(":")[0]: dot for dot in dots(picture) if "mean" not in dot.words}
    assert found.keys() == {row.name for row in comparison.rows}
    scores = [comparison.row(name).scores["span_f1"].value for name in found]
    assert is_a_scale(scores, [dot.x for dot in found.values()])
    for name, dot in found.items():
        assert score_words(comparison.row(name).scores["span_f1"].value) in dot.words


def test_the_line_of_a_method_is_its_interval() -> None:
    comparison = tagging()
    picture = is_there(score_picture(comparison))
    values, places = [], []
    for method in comparison.methods:
        assert method.interval is not None
        (line,) = (mark for mark in about(picture, f"{method.name}:") if len(mark.corners) == 2)
        assert f"[{score_words(method.interval.low)}, {score_words(method.interval.high)}]" in line.words
        values += [method.interval.low, method.interval.high]
        places += [x for x, _ in line.corners]
    assert is_a_scale(values, places)


def test_the_seeds_of_a_method_lie_on_one_line_with_its_mean() -> None:
    picture = is_there(score_picture(tagging()))
    heights = {round(dot.y, 1) for dot in dots(picture) if dot.words.startswith("lora-r4")}
    assert len(heights) == 1
    (mean,) = (mark for mark in marks(picture) if "lora-r4: " in mark.words and "mean of 3 seeds" in mark.words)
    assert round(mean.y, 1) in heights


def test_the_best_stands_on_top() -> None:
    picture = is_there(score_picture(tagging()))
    heights = {
        name: min(mark.y for mark in about(picture, name)) for name in ("lora-r16", "lora-r8", "lora-r4", "plain")
    }
    assert sorted(heights, key=heights.__getitem__) == ["lora-r16", "lora-r8", "lora-r4", "plain"]
    lower = is_there(score_picture(texts()))
    best = texts().ranked_methods()[0].name
    assert min(marks(lower), key=lambda mark: mark.y).words.startswith(best)


def test_what_an_interval_is_about_is_said() -> None:
    assert "over new seeds and new examples; of a single run" in is_there(score_picture(tagging())).caption
    assert "over the examples of the test set." in is_there(score_picture(texts())).caption


def undefined(name: str, **fields: object) -> Run:
    """Return a run without an area under the ROC curve: all its examples are of one class."""
    gold = Prediction("0", gold="yes", predicted="yes", probabilities={"no": 0.2, "yes": 0.8})
    return Run(
        name,
        "text-classification",
        ("roc_auc",),
        labels=("no", "yes"),
        predictions=(gold, replace(gold, id="1")),
        **fields,
    )


def test_undefined_scores_are_drawn_nowhere() -> None:
    comparison = compare_runs(
        [undefined("a", cost=made_up_cost(1)), undefined("b", cost=made_up_cost(2))], resamples=20
    )
    assert score_picture(comparison) is None
    assert difference_picture(comparison) is None
    assert cost_pictures(comparison) == []
    assert roc_picture(comparison) is None
    assert draw_pictures(comparison)


def test_a_method_without_a_score_is_listed_with_a_dash() -> None:
    comparison = tagging()
    plain = comparison.row("plain")
    without = {**plain.scores, "span_f1": replace(plain.scores["span_f1"], value=math.nan, interval=None)}
    rows = tuple(replace(row, scores=without) if row.name == "plain" else row for row in comparison.rows)
    methods = tuple(
        replace(method, mean=math.nan, interval=None) if method.name == "plain" else method
        for method in comparison.methods
    )
    picture = is_there(score_picture(replace(comparison, rows=rows, methods=methods)))
    assert "–" in shown_texts(picture)
    assert not about(picture, "plain")
    assert len(cost_pictures(replace(comparison, rows=rows, methods=methods))) == 4


# Differences


def test_each_difference_from_the_baseline_is_a_mark_with_its_numbers() -> None:
    comparison = tagging()
    picture = is_there(difference_picture(comparison))
    found = {dot.words.partition(" minus ")[0]: dot for dot in dots(picture)}
    assert found.keys() == {"lora-r4", "lora-r8", "lora-r16"}
    differences = {one.a: one for one in (other.turned() for other in comparison.differences_of("plain"))}
    assert is_a_scale([differences[name].difference for name in found], [dot.x for dot in found.values()])
    for name, dot in found.items():
        assert f"+{score_words(differences[name].difference)}" in dot.words
        assert differences[name].verdict in dot.words
        assert "adjusted p" in dot.words
    assert "minus the baseline plain" in picture.caption


def test_it_is_said_whether_a_difference_is_about_methods_or_single_runs() -> None:
    assert "Of single runs" in is_there(difference_picture(tagging())).caption
    picture = is_there(difference_picture(classes()))
    assert "Square: several seeds of both" in picture.caption
    assert "Dot: single runs" in picture.caption
    words = {dot.words.rpartition(", ")[2] for dot in dots(picture)}
    assert words == {"about the methods", "about these runs"}


def test_one_run_has_no_differences() -> None:
    assert difference_picture(compare_runs([tagging_run("a", skill=0.5, examples=20)], resamples=20)) is None


# Cost


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    luck = np.random.default_rng(3)
    for make, better in ((tagging_run, 1), (generation_run, -1)):
        runs = [
            make(
                f"run-{place}",
                skill=float(luck.uniform(0.2, 0.9)),
                examples=60,
                seed=place,
                cost={
                    "train_seconds": float(luck.integers(1, 5)),
                    "predictions_per_second": float(luck.integers(1, 5)),
                },
            )
            for place in range(12)
        ]
        comparison = compare_runs(runs, resamples=20)
        points = {method.name: better * method.mean for method in comparison.methods}
        for picture, key, cheaper in zip(
            cost_pictures(comparison), ("train_seconds", "predictions_per_second"), (-1, 1), strict=True
        ):
            cost = {row.name: cheaper * row.cost[key] for row in comparison.rows}
            front = {
                name
                for name in points
                if not any(
                    points[other] >= points[name]
                    and cost[other] >= cost[name]
                    and (points[other], cost[other]) != (points[name], cost[name])
                    for other in points
                )
            }
            named = picture.caption.partition("intervals left aside: ")[2]
            assert set(named.removesuffix(".").split(", ")) == front


def test_a_method_stands_at_its_cost_and_score() -> None:
    comparison = tagging()
    picture = cost_pictures(comparison)[1]
    found = dots(picture)
    assert [dot.words.partition(":")[0] for dot in found] == [method.name for method in comparison.ranked_methods()][
        ::-1
    ]
    seconds = {method.name: comparison.row(method.runs[0]).cost["train_seconds"] for method in comparison.methods}
    names = [dot.words.partition(":")[0] for dot in found]
    assert is_a_scale([seconds[name] for name in names], [dot.x for dot in found])
    assert is_a_scale([comparison.method(name).mean for name in names], [dot.y for dot in found])
    assert "training time 9.33 min" in about(picture, "lora-r8:")[0].words


def test_costs_that_were_not_measured_are_not_drawn() -> None:
    runs = [tagging_run(f"run-{n}", skill=n / 5, examples=40, cost={"train_seconds": 10.0 * n}) for n in (1, 2, 3)]
    runs += [tagging_run("no cost", skill=0.9, examples=40)]
    (picture,) = cost_pictures(compare_runs(runs, resamples=20))
    assert picture.title == "Quality and training time"
    assert "Not drawn: 1 run." in picture.caption


def test_equal_costs_make_no_picture() -> None:
    runs = [tagging_run(name, skill=0.5, examples=40, cost=made_up_cost(4)) for name in ("a", "b")]
    assert cost_pictures(compare_runs(runs, resamples=20)) == []


def test_memory_of_a_whole_process_is_called_that() -> None:
    runs = [
        tagging_run(name, skill=0.5, examples=40, cost={"peak_memory_bytes": size, "peak_memory_is_of_process": True})
        for name, size in (("a", 1e9), ("b", 2e9))
    ]
    (picture,) = cost_pictures(compare_runs(runs, resamples=20))
    assert "the whole process" in picture.caption


# Labels


def test_a_label_has_the_mean_of_the_seeds_and_a_dot_for_each() -> None:
    comparison = tagging()
    picture = is_there(label_picture(comparison))
    runs = comparison.method("lora-r8").runs
    f1 = [score.f1 for name in runs for score in comparison.row(name).labels if score.label == "ORG"]
    single = [mark for name in runs for mark in about(picture, f"{name}, ORG:")]
    assert len(single) == 3
    (mean,) = about(picture, "lora-r8, ORG:")
    assert f"F1 {score_words(float(np.mean(f1)))}, mean of 3 seeds" in mean.words
    assert is_a_scale([*f1, float(np.mean(f1))], [*(mark.x for mark in single), mean.x])
    assert "Of several seeds the mean" in picture.caption


def test_text_without_labels_has_no_pictures_of_labels() -> None:
    for draw in (label_picture, confusion_picture, slice_picture, outcome_picture, roc_picture, reliability_picture):
        assert draw(texts()) is None


def test_what_is_not_drawn_is_said() -> None:
    many_labels = tuple(f"type-{number}" for number in range(30))
    runs = [tagging_run(f"run-{n}", skill=0.5 + n / 30, examples=60, types=many_labels) for n in range(9)]
    comparison = compare_runs(runs, resamples=20)
    assert "Not drawn: 6 labels. Not drawn: 5 runs." in is_there(label_picture(comparison)).caption
    assert "Not drawn: 22 labels. Not drawn: 5 runs." in is_there(confusion_picture(comparison)).caption


def test_the_baseline_is_drawn_however_bad_it_is() -> None:
    runs = [tagging_run(f"run-{n}", skill=0.3 + n / 40, examples=40) for n in range(28)]
    comparison = compare_runs(runs, resamples=20, baseline="run-0")
    assert comparison.ranked_methods()[-1].name == "run-0"
    for picture in (
        score_picture(comparison),
        label_picture(comparison),
        confusion_picture(comparison),
        outcome_picture(comparison),
    ):
        assert [mark for mark in marks(is_there(picture)) if mark.words.startswith(("run-0:", "run-0,"))]


# Confusions


def test_cells_are_those_of_scikit_learn() -> None:
    labels = ("a", "b", "c")
    run = classification_run("run", skill=0.2, examples=90, labels=labels)
    picture = is_there(confusion_picture(compare_runs([run], resamples=20)))
    gold, predicted = ([getattr(one, side) for one in run.predictions] for side in ("gold", "predicted"))
    expected = sklearn_metrics.confusion_matrix(gold, predicted, labels=labels)
    cells = {mark.words for mark in marks(picture)}
    for row, column in np.ndindex(3, 3):
        share = 100 * expected[row, column] / expected[row].sum()
        assert f"run: {expected[row, column]} {labels[row]} → {labels[column]}, {share:.3g} % of the row" in cells


def test_seeds_are_added_up() -> None:
    comparison = classes()
    picture = is_there(confusion_picture(comparison))
    cells = Counter()
    for mark in about(picture, "lora-r4:"):
        cells[mark.words.partition(": ")[2].partition(",")[0]] += 1
    counts = [int(words.split()[0]) for words in cells]
    assert sum(counts) == 3 * 120
    assert "The runs of several seeds are added up." in picture.caption


def tagged(gold: Sequence[Span], predicted: Sequence[Span]) -> Run:
    words = tuple((6 * place, 6 * place + 5) for place in range(12))
    one = Prediction("0", gold=tuple(gold), predicted=tuple(predicted), words=words, tags=("O",) * 12)
    return Run("run", "token-classification", ("span_f1",), labels=("missed", "PER"), predictions=(one,))


def test_missed_and_invented_entities_have_a_column_and_a_row() -> None:
    gold = [Span(0, 5, "missed"), Span(6, 11, "PER"), Span(12, 17, "PER")]
    predicted = [Span(0, 5, "missed"), Span(6, 11, "missed"), Span(30, 35, "PER"), Span(36, 41, "PER")]
    picture = is_there(confusion_picture(compare_runs([tagged(gold, predicted)], resamples=20)))
    words = [mark.words for mark in marks(picture)]
    # The type called "missed" is not what is missed: both have their cell, each with a number on it.
    assert Counter(words)["run: 1 PER → missed, 50 % of the row"] == 4
    assert "run: 2 invented → PER, 100 % of the row" in words
    assert shown_texts(picture).count("missed") == 3
    assert shown_texts(picture).count("invented") == 1


def test_of_many_labels_those_with_confusions_are_drawn_and_the_rest_is_other() -> None:
    labels = tuple(f"l{place:02d}" for place in range(12))
    right = [Prediction(f"{label}-{n}", gold=label, predicted=label) for label in labels for n in range(5)]
    wrong = [Prediction("x", gold="l11", predicted="l10"), Prediction("y", gold="l11", predicted="l09")]
    run = Run("run", "text-classification", ("accuracy",), labels=labels, predictions=(*right, *wrong))
    picture = is_there(confusion_picture(compare_runs([run], resamples=20)))
    assert {"l09", "l10", "l11"} <= set(shown_texts(picture))
    assert "Not drawn: 4 labels." in picture.caption
    assert "run: 1 l11 → l10, 14.3 % of the row" in {mark.words for mark in marks(picture)}


# Probabilities


def test_areas_of_the_curves_are_those_of_scikit_learn() -> None:
    run = classification_run("run", skill=0.2, examples=150)
    comparison = compare_runs([run], resamples=20)
    gold = [one.gold == "positive" for one in run.predictions]
    scores = [one.probabilities["positive"] for one in run.predictions if one.probabilities]
    (roc,) = marks(is_there(roc_picture(comparison)))
    assert roc.words == f"run: area under the curve {sklearn_metrics.roc_auc_score(gold, scores):.3f}"
    (curve,) = marks(is_there(precision_recall_picture(comparison)))
    assert curve.words == f"run: average precision {sklearn_metrics.average_precision_score(gold, scores):.3f}"


def test_each_seed_is_a_curve() -> None:
    for picture in (roc_picture(classes()), precision_recall_picture(classes())):
        assert len(marks(is_there(picture))) == len(classes().rows)
        assert "A thin line is one seed." in is_there(picture).caption


def test_more_than_two_classes_have_no_curves_but_reliability() -> None:
    comparison = compare_runs([classification_run("run", skill=0.3, examples=60, labels=("a", "b", "c"))], resamples=20)
    assert roc_picture(comparison) is None
    assert precision_recall_picture(comparison) is None
    assert reliability_picture(comparison) is not None


def test_the_calibration_error_of_the_caption_is_the_metric_s() -> None:
    run = classification_run("run", skill=0.3, examples=150)
    picture = is_there(reliability_picture(compare_runs([run], resamples=20)))
    (error,) = score_predictions(run.predictions, ["calibration_error"]).values()
    assert f"run {score_words(error)}." in picture.caption
    filled = {mark.words for mark in marks(picture)}
    counts = [int(words.partition("of ")[2].partition(" answers")[0]) for words in filled]
    assert sum(counts) == 150


def test_classes_without_probabilities_have_no_reliability() -> None:
    run = classification_run("run", skill=0.3, examples=30)
    bare = replace(
        run, metrics=("accuracy",), predictions=tuple(replace(one, probabilities=None) for one in run.predictions)
    )
    assert reliability_picture(compare_runs([bare], resamples=20)) is None


# Spans


def test_a_bar_is_as_long_as_what_it_counts() -> None:
    comparison = tagging()
    picture = is_there(outcome_picture(comparison))
    parts = {mark.words.partition(": ")[2]: mark.width for mark in about(picture, "plain:")}
    errors = comparison.row("plain").span_errors
    assert errors is not None
    expected = {f"{outcome} {count}": count for outcome, count in errors.kinds.items() if count}
    gold = sum(errors.kinds.values()) - errors.kinds["invented"]
    assert parts.keys() == {*expected, f"gold entities {gold}"}
    assert is_a_scale([*expected.values()], [parts[words] for words in expected])


def test_bars_of_several_seeds_are_their_mean() -> None:
    comparison = tagging()
    found = [comparison.row(name).span_errors.kinds["found"] for name in comparison.method("lora-r4").runs]  # type: ignore[union-attr]
    (bar,) = about(is_there(outcome_picture(comparison)), "lora-r4: found")
    assert float(bar.words.rpartition(" ")[2]) == pytest.approx(np.mean(found), abs=0.05)


def test_novelty_is_drawn_where_the_training_data_are_known() -> None:
    run = tagging_run("run", skill=0.6, examples=40)
    assert "new (" not in " ".join(shown_texts(is_there(slice_picture(compare_runs([run], resamples=20)))))
    examples = [
        Example(one.id, "".join(chr(97 + (7 * place) % 26) for place in range(72)), target=one.gold, words=one.words)
        for one in run.predictions
    ]
    comparison = compare_runs([run], resamples=20, examples=examples, train=examples[:3])
    shown = " ".join(shown_texts(is_there(slice_picture(comparison))))
    for words in ("1 word", "first third", "seen in training", "new"):
        assert f"{words} (" in shown


# Curves


def test_curves_of_several_seeds_have_a_mean() -> None:
    comparison = tagging()
    picture = is_there(validation_picture(comparison))
    at_the_end = [comparison.row(name).history[-1]["validation_span_f1"] for name in comparison.method("lora-r8").runs]
    (mean,) = about(picture, "lora-r8, mean of 3 seeds, step 400:")
    assert mean.words.endswith(score_words(float(np.mean(at_the_end))))
    assert len(about(picture, "lora-r8-seed0, step ")) == 3
    assert "the strong one is their mean" in picture.caption


def test_the_mean_ends_where_the_first_seed_ends() -> None:
    runs = lora_runs(ranks=(4,), seeds=2, examples=40)
    runs[0] = replace(runs[0], history=[row for row in runs[0].history if row["step"] <= 200])
    picture = is_there(validation_picture(compare_runs(runs, resamples=20)))
    assert about(picture, "lora-r4, mean of 2 seeds, step 133:")
    assert not about(picture, "lora-r4, mean of 2 seeds, step 266:")


def test_a_long_loss_curve_is_thinned_and_says_so() -> None:
    run = tagging_run("run", skill=0.5, examples=20, history=made_up_history("span_f1", steps=30_000))
    picture = is_there(loss_picture(compare_runs([run], resamples=20)))
    assert "averaged over neighbouring steps" in picture.caption
    (curve,) = marks(picture)
    assert 2 <= len(curve.corners) <= 200


def test_runs_without_history_have_no_curves() -> None:
    comparison = compare_runs([tagging_run("a", skill=0.5, examples=20)], resamples=20)
    assert loss_picture(comparison) is None
    assert validation_picture(comparison) is None


# Memory


def test_memory_is_stacked_up_to_what_was_measured() -> None:
    picture = is_there(memory_picture(tagging()))
    parts = [mark.words.partition(": ")[2] for mark in about(picture, "lora-r16:")]
    assert parts == [
        "weights 900 MB",
        "gradients 160 MB",
        "optimiser 320 MB",
        "activations 300 MB",
        "measured peak 1.7 GB",
    ]
    widths = [mark.width for mark in about(picture, "lora-r16:")][:4]
    assert is_a_scale([900, 160, 320, 300], widths)


def test_what_was_not_measured_of_the_memory_is_not_drawn() -> None:
    cost = {"weight_bytes": 1e9, "optimizer_bytes": 2e8}
    runs = [tagging_run("a", skill=0.5, examples=20, cost=cost), tagging_run("b", skill=0.6, examples=20)]
    picture = is_there(memory_picture(compare_runs(runs, resamples=20)))
    assert [mark.words for mark in marks(picture)] == ["a: weights 1.0 GB", "a: optimiser 200 MB"]
    assert "Not measured of each: gradients, activations." in picture.caption
    assert "Not drawn: 1 run." in picture.caption
    assert memory_picture(compare_runs(runs[1:], resamples=20)) is None


# Sensitivity


def settings(name: str, skill: float, *, rate: float = 1e-3, **params: object) -> Run:
    adapter = {
        "kind": "lora",
        "params": {"r": 8, "alpha": 16, "dropout": 0.1, "targets": "all", "bias": "none", **params},
    }
    return tagging_run(name, skill=skill, examples=40, adapter=adapter, training={"learning_rate": rate})


def sensitivities(*runs: Run) -> dict[str, Picture]:
    pictures = sensitivity_pictures(compare_runs(runs, resamples=20))
    return {picture.title.removeprefix("Sensitivity to "): picture for picture in pictures}


def test_methods_that_differ_in_one_number_are_joined() -> None:
    found = sensitivities(settings("a", 0.5, dropout=0.0), settings("b", 0.6), settings("c", 0.7, dropout=0.3))
    assert [*found] == ["adapter.dropout"]
    places = {mark.words[0]: mark.x for mark in dots(found["adapter.dropout"])}
    assert is_a_scale([0.0, 0.1, 0.3], [places[name] for name in "abc"])
    assert "differ in adapter.dropout alone." in found["adapter.dropout"].caption


def test_alpha_may_follow_the_rank() -> None:
    assert [*sensitivities(settings("a", 0.5, r=4, alpha=8), settings("b", 0.6))] == ["adapter.r"]
    assert [*sensitivities(settings("a", 0.5, r=4), settings("b", 0.6))] == ["adapter.r"]
    assert sensitivities(settings("a", 0.5, r=4, alpha=9), settings("b", 0.6)) == {}


def test_methods_that_differ_in_two_settings_say_nothing_of_either() -> None:
    assert sensitivities(settings("a", 0.5, rate=1e-4, dropout=0.2), settings("b", 0.6)) == {}


def test_methods_of_equal_settings_differ_in_something_else() -> None:
    runs = [settings("a", 0.5, dropout=0.0), replace(settings("b", 0.6), data={"source": "other"}), settings("c", 0.7)]
    runs = [replace(run, data={**run.data, "test_fingerprint": "f"}) for run in runs]
    assert sensitivities(*runs) == {}


def test_a_choice_is_a_line_for_each_of_its_values() -> None:
    quantized = replace(settings("d", 0.55), model={"quantization": "nf4"})
    found = sensitivities(
        settings("a", 0.5), settings("b", 0.6, targets=("q", "v")), settings("c", 0.7, bias="all"), quantized
    )
    assert [*found] == ["adapter.targets", "adapter.bias", "model.quantization"]
    assert {"all: a", "q, v: b"} <= set(shown_texts(found["adapter.targets"]))
    assert {"nf4: d", "none: a"} <= set(shown_texts(found["model.quantization"]))
    assert "Not drawn: 2 runs." in found["adapter.targets"].caption


# All pictures


def test_pictures_follow_the_data() -> None:
    cost = ["trainable parameters", "training time", "peak memory", "predictions per second"]
    qualities = [f"Quality and {name}" for name in cost]
    ends = ["Training loss", "Validation {}", "Memory", "Sensitivity to adapter.r"]
    spans = ["Labels", "Confusions", "Span errors", "Entities by length, position and novelty"]
    classified = ["Labels", "Confusions", "ROC curves", "Precision-recall curves", "Reliability"]
    for comparison, middle in ((tagging, spans), (classes, classified), (texts, [])):
        titles = [picture.title for picture in drawn(comparison)]
        assert titles == [
            "Scores", "Differences", *qualities, *middle, *(end.format(comparison().headline) for end in ends),
        ]  # fmt: skip


def test_one_bare_run_has_the_pictures_of_its_answers() -> None:
    comparison = compare_runs([tagging_run("run", skill=0.5, examples=20)], resamples=20)
    assert [picture.title for picture in draw_pictures(comparison)] == [
        "Scores", "Labels", "Confusions", "Span errors", "Entities by length, position and novelty",
    ]  # fmt: skip


@pytest.mark.parametrize("comparison", [tagging, classes, texts])
def test_pictures_take_the_colours_of_the_page(comparison: Callable[[], Comparison]) -> None:
    for picture in drawn(comparison):
        for drawing in picture.drawings:
            assert "currentColor" in drawing
            assert set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", drawing))) == set()


@pytest.mark.parametrize("comparison", [tagging, classes, texts])
def test_a_colour_belongs_to_a_method(comparison: Callable[[], Comparison]) -> None:
    seen: dict[str, set[str]] = {}
    pictures = [one for one in drawn(comparison) if one.title.startswith(("Scores", "Quality", "Labels"))]
    for drawing in [drawing for picture in pictures for drawing in picture.drawings]:
        for element in ElementTree.fromstring(drawing).iter():
            title = element.find("{*}title")
            if title is not None:
                (method,) = (one for one in comparison().methods if (title.text or "").startswith(one.name))
                colours = re.findall(r"var\(--(series-\d|muted)", ElementTree.tostring(element, encoding="unicode"))
                seen.setdefault(method.name, set()).update(colours)
    assert all(len(colours) == 1 for colours in seen.values())
    assert len(set.union(*seen.values())) == len(comparison().methods)


@cache
def long_names() -> Comparison:
    """Return 24 runs whose names are long and differ at both ends, so that nothing can be left out of all."""
    runs = [
        tagging_run(
            f"{place:02d}-roberta-base-conll2003-constant-with-warmup-lora-r{2 ** (place % 6)}-dropout{place // 6 / 10}",
            skill=0.4 + place / 50,
            examples=40,
            types=tuple(f"a-rather-long-entity-type-{number}" for number in range(11)),
            cost=made_up_cost(place + 1),
            history=made_up_history("span_f1", seed=place),
            adapter={"params": {"r": 2 ** (place % 6), "dropout": place // 6 / 10}},
        )
        for place in range(24)
    ]
    return compare_runs(runs, resamples=20)


@dataclass(frozen=True)
class Box:
    """A level text of a drawing and what it covers, in matplotlib's own font, which is wider than those of most screens."""

    text: str
    left: float
    right: float
    bottom: float
    top: float


def boxes(drawing: str) -> list[Box]:
    found = []
    for element in ElementTree.fromstring(drawing).iterfind(".//{*}text"):
        style = dict(entry.split(": ") for entry in element.attrib["style"].split("; "))
        font = FontProperties(
            size=float(style["font-size"].removesuffix("px")), weight=style.get("font-weight", "normal")
        )
        width, height, _ = TextToPath().get_text_width_height_descent(element.text, font, ismath=False)
        x, bottom = float(element.attrib["x"]), float(element.attrib["y"])
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[style["text-anchor"]]
        if "transform" not in element.attrib:
            found.append(Box(str(element.text), left, left + width, bottom, bottom - 0.75 * height))
    return found


@pytest.mark.parametrize("comparison", [tagging, classes, texts, long_names])
def test_no_text_covers_another_or_leaves_the_picture(comparison: Callable[[], Comparison]) -> None:
    for drawing in [drawing for picture in drawn(comparison) for drawing in picture.drawings]:
        written = boxes(drawing)
        width = float(ElementTree.fromstring(drawing).attrib["viewBox"].split()[2])
        assert len(written) > 5
        assert [box for box in written if box.left < -1 or box.right > width + 1] == []
        for one, other in combinations(written, 2):
            beside = min(one.right, other.right) - max(one.left, other.left) < 1
            apart = min(one.bottom, other.bottom) - max(one.top, other.top) < 1
            assert beside or apart, (one, other)


def test_text_can_be_read_on_a_phone() -> None:
    for comparison in (tagging, classes, texts):
        for picture in drawn(comparison):
            for drawing in picture.drawings:
                root = ElementTree.fromstring(drawing)
                scale = PHONE / float(root.attrib["viewBox"].split()[2])
                sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawing)]
                assert min(sizes) * scale > 8.4


def test_long_names_stay_apart() -> None:
    names = [f"roberta-base-lora-r{rank}-constant-with-warmup-and-more" for rank in (2, 4, 8)]
    assert [*short_names(names, 30).values()] == ["…r2…", "…r4…", "…r8…"]
    # With another name that is nothing like them, only they share what is left out.
    shown = short_names([*names, "head-only"], 30)
    assert shown[names[0]] == "roberta-base-lora-r2…"
    assert shown["head-only"] == "head-only"
    shown = short_names([method.name for method in long_names().methods], 30)
    assert len(set(shown.values())) == 24
    assert all(len(name) <= 30 for name in shown.values())


def test_names_that_cannot_be_told_apart_are_numbered() -> None:
    middle_apart = ["x" * 60 + letter + "y" * 60 for letter in "ab"]
    assert [*short_names(middle_apart, 20).values()] == ["xxxxx…yyyy (1)", "xxxxx…yyyy (2)"]
    assert short_names(["a", "b"], 20) == {"a": "a", "b": "b"}
    assert short("中" * 30, 20) == "中中中中中…中中中中"


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 1000))
def test_hostile_names_stay_text_in_pictures_and_tooltips(start: int) -> None:
    payloads = HOSTILE[start : start + 8]
    runs = [
        replace(run, name=payloads[place])
        for place, run in enumerate(lora_runs(ranks=(4, 8), seeds=1, examples=40, types=tuple(payloads[2:])))
    ]
    comparison = compare_runs(runs, resamples=20)
    tips = set()
    for picture in draw_pictures(comparison):
        for drawing in picture.drawings:
            root = ElementTree.fromstring(drawing)
            names = {element.tag.rpartition("}")[2] for element in root.iter()}
            assert names <= {"svg", "g", "path", "defs", "use", "text", "tspan", "clipPath", "rect", "title"}
            assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
        tips.update(mark.words for mark in marks(picture))
    for name in payloads[:2]:
        assert [words for words in tips if words.startswith(printable(name))]


def test_names_that_look_like_svg_stay_as_they_are() -> None:
    odd = 'url(#a) id="b" #0072b2 $x^2$'
    comparison = compare_runs([tagging_run(odd, skill=0.5), tagging_run("_other", skill=0.6)], resamples=20)
    for picture in (score_picture(comparison), label_picture(comparison), confusion_picture(comparison)):
        assert {odd, "_other"} <= set(shown_texts(is_there(picture)))


def test_twenty_runs_are_drawn_in_seconds() -> None:
    comparison = compare_runs(lora_runs(ranks=(1, 2, 4, 8), seeds=5, examples=60), resamples=20)
    start = time.process_time()
    pictures = draw_pictures(comparison)
    assert len(pictures) > 10
    assert time.process_time() - start < 10
    assert sum(len(drawing) for picture in pictures for drawing in picture.drawings) < 1_000_000
