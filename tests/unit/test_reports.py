"""Reports: safe with hostile names, self-contained, the same every time, and readable numbers."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from xml.etree import ElementTree

import pytest

from lightft.comparison import Comparison, compare_runs
from lightft.contracts.made_up_runs import classification_run, generation_run, made_up_history, tagging_run
from lightft.errors import InvalidPluginError
from lightft.records import Run
from lightft.reports import REPORTS
from lightft.reports.pictures import draw_pictures
from lightft.wording import printable

COST = {
    "train_seconds": 552.0,
    "peak_memory_bytes": 1.2e9,
    "trainable_parameters": 312_000,
    "total_parameters": 22_713_216,
    "adapter_bytes": 1_260_000,
    "predictions_per_second": 745.0,
}


def trained(run: Run, factor: int) -> Run:
    cost = {name: value * factor for name, value in COST.items()}
    return replace(
        run,
        cost=cost,
        history=made_up_history(run.metrics[0], seed=factor),
        adapter={"kind": "lora", "params": {"r": 4 * factor}},
        environment={"lightft": "0.1.0"},
    )


def tagging() -> Comparison:
    runs = [trained(tagging_run(f"run-{n}", skill=0.5 + n / 10, examples=60), n) for n in (1, 2, 3)]
    return compare_runs(runs, resamples=100)


def classification() -> Comparison:
    runs = [trained(classification_run(f"run-{n}", skill=n / 5, examples=60), n) for n in (1, 2, 3)]
    return compare_runs(runs, resamples=100)


def generation() -> Comparison:
    return compare_runs([generation_run(f"run-{n}", skill=n / 5, examples=60) for n in (1, 2)], resamples=100)


class Nodes(HTMLParser):
    """Collects what a browser would build: tags with attributes, texts, and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.texts).append(data)


PIECES = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href='javascript:alert(1)'>x</a>",
    "<style>*{display:none}</style>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example>",
    "<form action=//evil.example><input autofocus onfocus=alert(1)>",
    "<math><mtext><script>alert(1)</script>",
    "<details open ontoggle=alert(1)>",
    "{{ 7*7 }}{% include 'page.css' %}",
    '$\\frac{1}{2}$ & #0072b2 id="figure_1"',
)
BREAKOUTS = (
    "", "\"", "'", "\">", "'>", "-->", "]]>", "</svg>", "</style>", "</script>", "</title>", "</td>", "</textarea>",
    "&lt;", "&#60;", "\x00", "\u2028", "\ud800", "`", "\\",
)  # fmt: skip
PAYLOADS = [before + piece for before, piece in product(BREAKOUTS, PIECES)]


def hostile(payloads: list[str]) -> Comparison:
    """Return a comparison in which names, labels, settings and sources are all payloads."""
    runs = []
    for number in range(3):
        run = classification_run(
            payloads[number], skill=0.2 + number / 5, examples=24, labels=(payloads[3], payloads[4])
        )
        runs.append(
            replace(
                run,
                data={"source": payloads[5], "test_fingerprint": payloads[6]},
                model={"name": payloads[7 % len(payloads)] + str(number)},
                environment={payloads[0]: payloads[1]},
                history=made_up_history("accuracy"),
                cost={name: value * (number + 1) for name, value in COST.items()},
            )
        )
    return compare_runs(runs, resamples=20)


def check_inert(page: str, harmless: Nodes) -> Nodes:
    nodes = Nodes(page)
    assert [tag for tag, _ in nodes.tags] == [tag for tag, _ in harmless.tags]
    assert nodes.scripts == harmless.scripts
    for (_, attributes), (_, expected) in zip(nodes.tags, harmless.tags, strict=True):
        assert attributes.keys() == expected.keys()
    return nodes


def test_no_payload_becomes_an_active_node(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(PAYLOADS) == 280
    # Without the pictures, which take most of the time and have a test of their own below.
    monkeypatch.setattr("lightft.reports.html_page.draw_pictures", lambda comparison: [])
    harmless = Nodes(REPORTS["html"](hostile([f"name {number}" for number in range(8)])))
    # Each payload is once the name of a run and a setting, once a label, a source or a model.
    for start in range(0, len(PAYLOADS), 3):
        payloads = [*PAYLOADS, *PAYLOADS][start : start + 8]
        nodes = check_inert(REPORTS["html"](hostile(payloads)), harmless)
        shown = "".join(nodes.texts)
        assert all(printable(payload) in shown for payload in payloads[:3])


@pytest.mark.parametrize("start", [0, 100, 200])
def test_no_payload_breaks_out_of_a_picture_on_the_page(start: int) -> None:
    harmless = Nodes(REPORTS["html"](hostile([f"name {number}" for number in range(8)])))
    check_inert(REPORTS["html"](hostile(PAYLOADS[start : start + 8])), harmless)


@pytest.mark.parametrize("start", range(0, 280, 20))
def test_hostile_names_stay_text_in_pictures(start: int) -> None:
    payloads = PAYLOADS[start : start + 20]
    runs = [tagging_run(payloads[n], skill=0.5 + n / 5, examples=40, types=tuple(payloads)) for n in (0, 1)]
    for picture in draw_pictures(compare_runs(runs, resamples=20)):
        for drawing in picture.drawings:
            root = ElementTree.fromstring(drawing)
            names = {element.tag.rpartition("}")[2] for element in root.iter()}
            assert names <= {"svg", "g", "path", "defs", "use", "text", "tspan", "clipPath", "rect"}
            assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]


def test_names_that_look_like_svg_stay_as_they_are() -> None:
    odd = 'url(#a) id="b" #0072b2 $x^2$'
    svg = REPORTS["svg"](
        compare_runs([tagging_run(odd[:24], skill=0.5), tagging_run("other", skill=0.6)], resamples=20)
    )
    assert odd[:24] in [element.text for element in ElementTree.fromstring(svg).iter()]


def test_hostile_names_are_dead_in_markdown() -> None:
    text = REPORTS["md"](
        hostile(["[x](javascript:alert(1))", "a|b", "<b>", "`c`", "*d*", "http://evil.example", "_e_", "f\ng"])
    )
    assert "[x](" not in text
    assert "<b>" not in text
    assert "http://evil" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(re.search(r"(?<!\\)\|$", line) for line in tables)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=HYPERLINK("//evil")'])
def test_a_spreadsheet_takes_no_name_for_a_formula(name: str) -> None:
    table = REPORTS["csv"](hostile([name, "b", "c", "d", "e", "f", "g", "h"]))
    cells = [row[0] for row in csv.reader(io.StringIO(table))]
    assert f"'{printable(name)}" in cells


def test_the_page_allows_itself_one_script_and_no_network() -> None:
    nodes = Nodes(REPORTS["html"](tagging()))
    policy = next(attributes["content"] for tag, attributes in nodes.tags if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    (script,) = nodes.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


@pytest.mark.parametrize("comparison", [tagging, classification, generation])
def test_the_page_refers_to_nothing_outside_itself(comparison: Callable[[], Comparison]) -> None:
    page = REPORTS["html"](comparison())
    for tag, attributes in Nodes(page).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#")
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


@pytest.mark.parametrize("comparison", [tagging, classification, generation])
def test_ids_of_the_page_are_unique_and_references_resolve(comparison: Callable[[], Comparison]) -> None:
    page = REPORTS["html"](comparison())
    tags = Nodes(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r"url\(#([^)]+)\)", page)) | {
        str(attributes["href"])[1:] for _, attributes in tags if "href" in attributes
    }
    assert referred <= set(ids)


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_equal_comparisons_give_equal_reports(name: str) -> None:
    assert REPORTS[name](tagging()) == REPORTS[name](tagging())


def test_the_reader_s_own_matplotlib_settings_change_nothing() -> None:
    import matplotlib as mpl

    before = REPORTS["svg"](tagging())
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert REPORTS["svg"](tagging()) == before
    assert mpl.rcParams["svg.hashsalt"] is None


def test_pictures_follow_the_data() -> None:
    titles = {
        kind.__name__: [picture.title for picture in draw_pictures(kind())]
        for kind in (tagging, classification, generation)
    }
    cost = ["Quality and trainable parameters", "Quality and training time", "Quality and peak memory"]
    assert titles["tagging"] == ["Scores", "Differences", "Labels", "Training loss", "Validation span_f1", *cost]
    assert titles["classification"] == [
        "Scores", "Differences", "Labels", "Confusions", "ROC curves", "Training loss", "Validation accuracy", *cost,
    ]  # fmt: skip
    assert titles["generation"] == ["Scores", "Differences"]


def test_what_is_not_drawn_is_said() -> None:
    many_labels = tuple(f"type-{number}" for number in range(30))
    runs = [tagging_run(f"run-{n}", skill=0.5 + n / 30, examples=60, types=many_labels) for n in range(9)]
    captions = {picture.title: picture.caption for picture in draw_pictures(compare_runs(runs, resamples=20))}
    assert "Not drawn: 6 labels. Not drawn: 5 runs." in captions["Labels"]


def test_pictures_take_the_colours_of_the_page() -> None:
    for picture in draw_pictures(classification()):
        for drawing in picture.drawings:
            assert "currentColor" in drawing
            colours = set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", drawing)))
            assert colours == set()


def test_the_page_states_the_finding_the_cost_and_the_method() -> None:
    comparison = tagging()
    text = re.sub(r"\s+", " ", " ".join(Nodes(REPORTS["html"](comparison)).texts))
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


def test_warnings_stand_on_the_page() -> None:
    run = tagging_run("a", skill=0.5, examples=60, data={"duplicates": {"test": {"exact": 7, "normalised": 7}}})
    comparison = compare_runs([run], resamples=20)
    for name in ("html", "md"):
        assert "7 of 60 test examples also stand in the training data" in REPORTS[name](comparison)


def test_csv_numbers_are_plain() -> None:
    rows = list(csv.DictReader(io.StringIO(REPORTS["csv"](tagging()))))
    best = rows[0]
    assert best["run"] == "run-3"
    assert float(best["span_f1_low"]) <= float(best["span_f1"]) <= float(best["span_f1_high"])
    assert float(best["train_seconds"]) == 3 * 552.0
    assert best["seed"] == "0"


@pytest.mark.parametrize("plugin", ["no function", lambda: "", lambda a, b: ""])
def test_an_unfit_report_is_refused_when_it_registers(plugin: object) -> None:
    with pytest.raises(InvalidPluginError, match="Report 'tex'"):
        REPORTS.add("tex", plugin)  # type: ignore[arg-type]
    assert "tex" not in REPORTS
