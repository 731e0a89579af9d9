"""Reports: self-contained, the same every time, with readable numbers and no text that nobody asked for."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lightft.comparison import Comparison, compare_runs
from lightft.comparison.words import TERMS, rows_needed_words, seed_spread_words
from lightft.contracts.made_up_runs import classification_run, generation_run, made_up_history, tagging_run
from lightft.errors import InvalidPluginError, InvalidSettingError
from lightft.metrics.span_errors import OUTCOMES
from lightft.records import Example, Run, Span
from lightft.reports import REPORTS
from tests.html_nodes import Nodes
from tests.made_up_examples import made_up_cost, made_up_examples, made_up_methods


def report(suffix: str, comparison: Comparison) -> str:
    written = REPORTS[suffix](comparison)
    assert isinstance(written, str)
    return written


@cache
def page_of(make: Callable[[], Comparison]) -> str:
    return report("html", make())


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of the time."""
    monkeypatch.setattr("lightft.reports.html_page.draw_pictures", lambda comparison: [])


def trained(run: Run, factor: int) -> Run:
    return replace(
        run,
        cost=made_up_cost(factor),
        history=made_up_history(run.metrics[0], seed=factor),
        adapter={"kind": "lora", "params": {"r": 4 * factor}},
        environment={"lightft": "0.1.0"},
    )


@cache
def tagging() -> Comparison:
    runs = [trained(tagging_run(f"run-{n}", skill=0.5 + n / 10, examples=60), n) for n in (1, 2, 3)]
    return compare_runs(runs, resamples=100)


@cache
def classification() -> Comparison:
    runs = [trained(classification_run(f"run-{n}", skill=n / 5, examples=60), n) for n in (1, 2, 3)]
    return compare_runs(runs, resamples=100)


@cache
def seeds() -> Comparison:
    return made_up_methods(examples=60, resamples=100)


@cache
def generation() -> Comparison:
    return compare_runs([generation_run(f"run-{n}", skill=n / 5, examples=60) for n in (1, 2)], resamples=100)


def test_the_page_allows_itself_one_script_and_no_network() -> None:
    nodes = Nodes(page_of(tagging))
    policy = next(attributes["content"] for tag, attributes in nodes.tags if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    (script,) = nodes.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


@pytest.mark.parametrize("comparison", [tagging, classification, generation])
def test_the_page_refers_to_nothing_outside_itself(comparison: Callable[[], Comparison]) -> None:
    page = page_of(comparison)
    for tag, attributes in Nodes(page).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#")
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


@pytest.mark.parametrize("comparison", [tagging, classification, generation])
def test_ids_of_the_page_are_unique_and_references_resolve(comparison: Callable[[], Comparison]) -> None:
    page = page_of(comparison)
    tags = Nodes(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r"url\(#([^)]+)\)", page)) | {
        str(attributes["href"])[1:] for _, attributes in tags if "href" in attributes
    }
    assert referred <= set(ids)


def test_the_reader_s_own_matplotlib_settings_change_nothing() -> None:
    import matplotlib as mpl

    before = report("svg", tagging())
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert report("svg", tagging()) == before
    assert mpl.rcParams["svg.hashsalt"] is None


def test_the_page_states_the_finding_the_cost_and_the_method() -> None:
    comparison = tagging()
    text = re.sub(r"\s+", " ", " ".join(Nodes(page_of(tagging)).texts))
    assert re.sub(r"\s+", " ", comparison.finding) in text
    for expected in (
        "9 min 12 s",
        "1.2 GB",
        "0.31 M of 22.7 M",
        "approximate randomization",
        "f" * 64,
        "1 seed",
        "0.1.0",
    ):
        assert expected in text


@pytest.mark.usefixtures("no_pictures")
def test_warnings_stand_on_the_page() -> None:
    run = tagging_run("a", skill=0.5, examples=60, data={"duplicates": {"test": {"exact": 7, "normalised": 7}}})
    comparison = compare_runs([run], resamples=20)
    for name in ("html", "md"):
        assert "7 of 60 test examples also stand in the training data" in report(name, comparison)


def test_csv_numbers_are_plain() -> None:
    rows = list(csv.DictReader(io.StringIO(report("csv", tagging()))))
    best = rows[0]
    assert best["run"] == "run-3"
    assert float(best["span_f1_low"]) <= float(best["span_f1"]) <= float(best["span_f1_high"])
    assert float(best["train_seconds"]) == 3 * 552.0
    assert best["seed"] == "0"


def test_methods_come_first_with_mean_spread_and_seeds() -> None:
    comparison = seeds()
    page, text = page_of(seeds), report("md", comparison)
    assert page.index('<h2 id="methods"') < page.index('<h2 id="differences"') < page.index('<h2 id="scores"')
    lora = comparison.method("lora")
    low, high = lora.lowest, lora.highest
    row = next(line for line in text.splitlines() if line.startswith("| lora | "))
    assert f"± {lora.deviation:.3f} ({low:.3f} to {high:.3f}) | 3 |" in row
    alone = next(line for line in text.splitlines() if line.startswith("| dora-seed0 | "))
    assert "1 (nothing is claimed)" in alone
    assert "Methods" not in report("md", tagging())


def test_differences_say_what_they_are_about_and_what_it_would_take() -> None:
    comparison = seeds()
    (difference,) = [one for one in comparison.differences if {one.a, one.b} == {"lora", "head-only"}]
    line = next(line for line in report("md", comparison).splitlines() if line.startswith("| lora | head-only |"))
    assert "about the methods" in line
    assert f"{difference.effect_size:+.2f}" in line
    assert f"{difference.smallest_detectable:.3f}" in line
    assert rows_needed_words(difference.rows_needed) in line
    assert "about these runs" in next(
        line for line in report("md", comparison).splitlines() if line.startswith("| dora-seed0 | lora |")
    )
    text = str(comparison)
    assert "smallest detectable" in text
    assert "would show in 4 of 5 trials" in text


@pytest.mark.parametrize(
    ("rows", "words"),
    [(4321.2, "about 4,300"), (87.3, "about 88"), (7, "about 7"), (math.inf, "none would do"), (math.nan, "–")],
)
def test_rows_needed_have_as_many_digits_as_an_estimate_can_bear(rows: float, words: str) -> None:
    assert rows_needed_words(rows) == words


def test_spread_over_seeds_in_words() -> None:
    comparison = seeds()
    metric = comparison.metric("span_f1")
    lora = comparison.method("lora")
    assert seed_spread_words(lora, metric) == f"lora {lora.mean:.3f} ± {lora.deviation:.3f} (3 seeds)"
    assert seed_spread_words(comparison.method("dora-seed0"), metric).endswith("(1 seed)")


def test_every_term_of_a_table_is_explained_where_it_stands() -> None:
    headings = {
        "".join(Nodes(text).texts): title
        for title, text in re.findall(r'<abbr title="([^"]+)">([^<]+)</abbr>', page_of(seeds))
    }
    assert set(TERMS) - {"interval"} <= set(headings)
    assert set(OUTCOMES) <= set(headings)
    assert "4 of 5 trials" in headings["rows needed"]


def test_errors_of_each_type_add_up_to_its_entities() -> None:
    comparison = tagging()
    table = report("md", comparison).partition("## Entities by type")[2].split("\n\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == [label for label in ("LOC", "MISC", "ORG", "PER") for _ in range(3)]
    for row in rows:
        gold, same, other, missed = (int(count.split(" ")[0]) for count in row[2:6])
        assert gold == same + other + missed
    score = next(label for label in comparison.row(rows[0][1]).labels if label.label == "LOC")
    assert rows[0][-3:] == [f"{value:.3f}" for value in (score.precision, score.recall, score.f1)]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("suffix", ["html", "md", "csv", "tex", "svg", "parquet", "json"])
def test_no_text_leaves_unless_asked_for(suffix: str, tmp_path: Path) -> None:
    comparison = seeds()
    text = comparison.examples[0].text.split()[-1]
    examples = tuple(replace(one, text="secret " + one.text) for one in comparison.examples)
    comparison = replace(comparison, examples=examples)
    assert b"secret" not in comparison.save(tmp_path / f"report.{suffix}").read_bytes()
    written = comparison.save(tmp_path / f"report.{suffix}", include_text=True).read_bytes()
    assert (b"secret" in written and text.encode() in written) == (suffix in ("html", "md", "json"))


def test_texts_that_were_not_given_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="no texts to include"):
        tagging().save(tmp_path / "report.html", include_text=True)


@pytest.mark.usefixtures("no_pictures")
def test_an_entity_is_marked_with_its_type_and_a_wrong_one_as_wrong() -> None:
    run = tagging_run("tags", skill=1.0, examples=1)
    (prediction,) = run.predictions
    gold = (Span(0, 5, "LOC"), Span(12, 17, "PER"))
    prediction = replace(prediction, gold=gold, predicted=(Span(0, 5, "ORG"), Span(3, 9, "LOC"), Span(12, 17, "PER")))
    (example,) = made_up_examples(run)
    example = replace(example, text="Paris about Peter below", target=gold)
    page = report("html", compare_runs([replace(run, predictions=(prediction,))], resamples=20, examples=[example]))
    marks = re.findall(r'<mark class="([^"]*)"[^>]*>([^<]*)<b>([^<]*)</b>', page)
    assert ("type-2 ", "Peter", "PER") in [(kind + " ", text, name) for kind, text, name in marks]
    assert ("type-1 wrong", "Paris", "ORG ✗") in marks
    # It overlaps the one before and stands on a line of its own.
    assert ("type-0 wrong", "is abo", "LOC ✗") in marks
    assert 'missed: <mark class="type-0">Paris<b>LOC</b></mark>' in page
    assert "0 of 1 right" in page


@pytest.mark.usefixtures("no_pictures")
def test_runs_of_one_answer_share_a_line() -> None:
    run = classification_run("one", skill=5.0, examples=3)
    runs = [replace(run, name=name, adapter={"kind": name}) for name in ("one", "two", "three", "four")]
    page = report("html", compare_runs(runs, resamples=20, examples=made_up_examples(run)))
    assert page.count('title="one, two, three, four"') == len(re.findall(r"<li data-kind=", page))
    assert "one, two and 2 more" in page


@pytest.mark.usefixtures("no_pictures")
def test_a_long_text_is_shown_around_its_entities() -> None:
    run = tagging_run("tags", skill=1.0, examples=1)
    text = "first " + "x" * 600 + " Paris " + "y" * 600 + " last"
    place = Span(607, 612, "LOC")
    prediction = replace(run.predictions[0], gold=(place,), predicted=(place,), words=None, tags=None, pieces=None)
    run = replace(run, metrics=("span_f1",), predictions=(prediction,))
    example = Example(prediction.id, text, (place,))
    page = report("html", compare_runs([run], resamples=20, examples=[example]))
    (before, after) = re.search(r"<p>(… x+ )<mark[^>]*>Paris<b>LOC</b></mark>( y+ …)</p>", page).groups()  # type: ignore[union-attr]
    assert len(before) < 100
    assert len(after) < 100


def test_csv_and_parquet_hold_the_same_columns(tmp_path: Path) -> None:
    comparison = replace(tagging(), rows=(replace(tagging().rows[0], cost={}), *tagging().rows[1:]))
    path = comparison.save(tmp_path / "runs.parquet")
    table = pq.read_table(path)
    rows = list(csv.DictReader(io.StringIO(report("csv", comparison))))
    assert table.column_names == list(rows[0])
    for row, read in zip(rows, table.to_pylist(), strict=True):
        for name, value in read.items():
            cell: object = row[name] if isinstance(value, str) or row[name] == "–" else float(row[name])
            assert cell == ("–" if value is None else value)
    assert "–" in rows[-1].values()
    assert {str(table.schema.field(name).type) for name in ("run", "method")} == {"string"}
    assert str(table.schema.field("seed").type) == "int64"
    assert str(table.schema.field("train_seconds").type) == "double"


def test_latex_tables_need_booktabs_alone() -> None:
    text = report("tex", seeds())
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 4
    assert r"\caption{Differences in span\_f1." in text
    assert "lora & head-only & " in text
    assert {line.count("&") for line in text.splitlines() if line.startswith("lora & head-only")} == {8}


def test_half_a_letter_in_a_name_is_written_as_json_writes_it(tmp_path: Path) -> None:
    comparison = compare_runs([tagging_run("half \ud800", skill=0.5, examples=20)], resamples=20)
    read = json.loads(comparison.save(tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read["rows"][0]["name"] == "half \ud800"


def test_a_page_of_twenty_runs_is_small_and_soon_written(tmp_path: Path) -> None:
    comparison = made_up_methods(methods=7, seeds=4, examples=300, resamples=50)
    assert len(comparison.rows) >= 20
    start = time.process_time()
    path = comparison.save(tmp_path / "report.html", include_text=True)
    assert time.process_time() - start < 15
    assert path.stat().st_size < 3_000_000


@pytest.mark.parametrize("plugin", ["no function", lambda: "", lambda a, b: ""])
def test_an_unfit_report_is_refused_when_it_registers(plugin: object) -> None:
    with pytest.raises(InvalidPluginError, match="Report 'xlsx'"):
        REPORTS.add("xlsx", plugin)  # type: ignore[arg-type]
    assert "xlsx" not in REPORTS
