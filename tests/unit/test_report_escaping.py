"""Over 2,000 hostile names, labels and texts in every format: they stay text."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from lightft.comparison import Comparison
from lightft.reports import REPORTS
from lightft.reports.latex import _escaped as latex_escaped
from lightft.wording import printable
from tests.hostile import HOSTILE, SLOTS, filled, shape
from tests.html_nodes import Nodes

KINDS = ("entities", "classes", "texts")
BATCHES = range(0, len(HOSTILE), len(SLOTS))


def report(suffix: str, comparison: Comparison) -> str:
    written = REPORTS[suffix](comparison)
    assert isinstance(written, str)
    return written


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of the time and are tried apart."""
    monkeypatch.setattr("lightft.reports.html_page.draw_pictures", lambda comparison: [])


def test_there_are_over_two_thousand() -> None:
    assert len(set(HOSTILE)) > 2000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_pictures")
def test_no_text_becomes_a_node_of_the_page(kind: str) -> None:
    harmless = Nodes(report("html", shape(kind)))
    shown = [slot for slot in SLOTS if slot in "\n".join(harmless.texts) and "slot text" not in slot]
    assert len(shown) > 20
    for first in BATCHES if kind == "entities" else BATCHES[KINDS.index(kind) :: 4]:
        comparison = filled(shape(kind), first)
        nodes = Nodes(report("html", comparison))
        assert nodes.skeleton == harmless.skeleton
        assert (nodes.scripts, nodes.styles) == (harmless.scripts, harmless.styles)
        for (tag, attributes), (_, expected) in zip(nodes.tags, harmless.tags, strict=True):
            # A type's colour is that of its place in the alphabet.
            for name in attributes.keys() - {"title", "data-types", *(["class"] if tag == "mark" else [])}:
                assert attributes[name] == expected[name]
        text = without_space("".join(nodes.texts))
        payloads = dict(zip(SLOTS, [*HOSTILE, *HOSTILE][first:], strict=False))
        assert [payloads[slot] for slot in shown if without_space(printable(payloads[slot])) not in text] == []


def without_space(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_pictures")
def test_a_browser_s_own_parser_builds_the_same_tree(kind: str) -> None:
    html5lib = pytest.importorskip("html5lib", reason="html5lib parses as browsers do")

    def tree(page: str) -> list[tuple[str, list[str]]]:
        parsed = html5lib.parse(page, namespaceHTMLElements=False)
        return [(str(element.tag), sorted(element.attrib)) for element in parsed.iter()]

    harmless = tree(report("html", shape(kind)))
    for first in BATCHES[KINDS.index(kind) :: 9]:
        assert tree(report("html", filled(shape(kind), first))) == harmless


@pytest.mark.parametrize(("kind", "first"), [("entities", 0), ("classes", 300)])
def test_no_text_breaks_out_of_a_picture(kind: str, first: int) -> None:
    harmless = Nodes(report("html", shape(kind)))
    nodes = Nodes(report("html", filled(shape(kind), first)))
    assert {tag for tag, _ in nodes.tags} == {tag for tag, _ in harmless.tags}
    assert {name for _, names in nodes.skeleton for name in names} == {
        name for _, names in harmless.skeleton for name in names
    }
    assert (nodes.scripts, nodes.styles) == (harmless.scripts, harmless.styles)
    root = ElementTree.fromstring(report("svg", filled(shape(kind), first)))
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_mark_up_in_markdown(kind: str) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py parses as CommonMark prescribes")
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def structure(text: str) -> list[str]:
        tokens = []
        for token in parser.parse(text):
            tokens.append(token.type)
            tokens += [child.type for child in token.children or () if child.type != "text"]
        return tokens

    harmless = structure(report("md", shape(kind)))
    assert {"table_open", "heading_open"} <= set(harmless)
    assert not {"link_open", "image", "html_inline", "html_block", "code_inline"} & set(harmless)
    for first in BATCHES if kind == "entities" else BATCHES[KINDS.index(kind) :: 4]:
        text = report("md", filled(shape(kind), first))
        # What follows a backslash is shown as it is, and the parser says so with a token of its own.
        assert [one for one in structure(text) if one != "text_special"] == [
            one for one in harmless if one != "text_special"
        ]
        assert not re.search(r"(?i)(https?|ftp):|www\.|@\w", text)


_COMMANDS = {
    "begin", "end", "centering", "footnotesize", "setlength", "tabcolsep", "caption", "label", "toprule", "midrule",
    "bottomrule", "usepackage", "textbf", "ensuremath", "textbackslash", "textasciicircum", "textasciitilde", "pm", "times",
    "alpha", "ldots", "ss", "o", "O", "l", "L", "ae", "AE", "oe", "OE", "aa", "AA", "i", "u", "r", "H", "v", "c",
    "\\", "{", "}", "$", "&", "#", "%", "_", "`", "'", "^", "~", "=", ".", '"',
}  # fmt: skip


def test_no_text_is_a_command_in_latex() -> None:
    harmless = report("tex", shape("entities"))
    for first in BATCHES:
        text = report("tex", filled(shape("entities"), first))
        assert set(re.findall(r"\\([A-Za-z]+|.)", text)) <= _COMMANDS
        for structural in (r"\\(begin|end)\{[^}]*\}", r"(?<!\\)(?:\\\\)*&", r"\\\\\n", r"\\(caption|label)"):
            assert len(re.findall(structural, text)) == len(re.findall(structural, harmless))
        plain = re.sub(r"\\ensuremath\{.\}|\\.", "", text)
        assert plain.count("{") == plain.count("}")
        assert plain.count("%") == 1  # the comment on the first line
        assert not set(plain) & set('$#^_|<>"')
        assert {letter for letter in text if not letter.isascii()} <= {"–"}


_READ = {
    "\\textbackslash{}": "\\", "\\textasciicircum{}": "^", "\\textasciitilde{}": "~", "\\ldots{}": "…", "{''}": '"',
    "\\ensuremath{<}": "<", "\\ensuremath{>}": ">", "\\ensuremath{|}": "|",
}  # fmt: skip


@pytest.mark.parametrize("text", ["a_b & 50 % {x} $y$ #1 ^~\\", "<>|\"'`-,?!", "[2cm]", "--- ``a'' ?`", "x\\\\y"])
def test_latex_prints_what_the_name_says(text: str) -> None:
    written = latex_escaped(text)
    for command, letter in _READ.items():
        written = written.replace(command, letter if letter not in "\\" else "\x00")
    # What stands between two letters that would otherwise be one.
    written = re.sub(r"(?<!\\)\{\}", "", written)
    assert re.sub(r"\\([{}$&#%_])", r"\1", written).replace("\x00", "\\") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zürich", r"Z\"{u}rich"),
        ("Šárka Škoda", r"\v{S}\'{a}rka \v{S}koda"),
        ("ça", r"\c{c}a"),
        ("Łódź", r"\L{}\'{o}d\'{z}"),
        ("中", "[U+4E2D]"),
        ("α = −0.5 ± 1", r"\ensuremath{\alpha} = \ensuremath{-}0.5 \ensuremath{\pm} 1"),
    ],
)
def test_letters_beyond_ascii_are_written_so_that_every_engine_prints_them(text: str, expected: str) -> None:
    assert latex_escaped(text) == expected
    assert latex_escaped(unicodedata.normalize("NFD", text)) == expected


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: apt-get install texlive-latex-recommended")
def test_latex_with_hostile_names_compiles(tmp_path: Path) -> None:
    parts = [f"\\input{{part{number}}}\\clearpage" for number, _ in enumerate(BATCHES)]
    for number, first in enumerate(BATCHES):
        filled(shape(KINDS[number % 3]), first).save(tmp_path / f"part{number}.tex")
    body = "\n".join(parts)
    (tmp_path / "paper.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}",
        encoding="utf-8",
    )
    compiled = subprocess.run(
        ["pdflatex", "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert compiled.returncode == 0, compiled.stdout.decode(errors="replace")[-2000:]


def test_no_text_is_a_formula_in_a_spreadsheet() -> None:
    harmless = list(csv.reader(io.StringIO(report("csv", shape("entities")))))
    for first in BATCHES:
        rows = list(csv.reader(io.StringIO(report("csv", filled(shape("entities"), first)))))
        assert [len(row) for row in rows] == [len(row) for row in harmless]
        for row in rows:
            for cell in row:
                assert re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell) or not cell.startswith(tuple("=+-@\t\r＝＋－＠"))  # noqa: RUF001


def test_an_apostrophe_stands_before_what_looks_like_a_formula() -> None:
    cells = [row[0] for row in csv.reader(io.StringIO(report("csv", filled(shape("texts"), HOSTILE.index("=1+1")))))]
    assert {"'=1+1", "'+1+1", "'-1+1", "'@SUM(A1)"} <= set(cells)


def test_parquet_and_json_hold_names_as_they_are(tmp_path: Path) -> None:
    for first in BATCHES:
        comparison = filled(shape("entities"), first)
        columns = pq.read_table(comparison.save(tmp_path / "report.parquet")).to_pydict()
        assert columns["run"] == [printable(row.name) for row in comparison.ranked()]
        read = json.loads(comparison.save(tmp_path / "report.json").read_text(encoding="utf-8"))
        assert [row["name"] for row in read["rows"]] == [row.name for row in comparison.rows]
