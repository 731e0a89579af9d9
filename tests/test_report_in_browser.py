"""The report page in a real browser, from disk and without network: nothing overflows, complains or runs unasked."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from lightft.comparison import Comparison
from lightft.reports import REPORTS
from tests.browser import Browser
from tests.hostile import HOSTILE, SLOTS, filled, shape
from tests.made_up_examples import made_up_methods

KINDS = ("tagging", "classes", "texts")
DESK, PHONE, SMALL_PHONE = 1280, 360, 320


@cache
def html_of(kind: str) -> str:
    written = REPORTS["html"](made_up_methods(kind, examples=80, resamples=50))
    assert isinstance(written, str)
    return written


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(html_of("tagging"), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [DESK, PHONE, SMALL_PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_fits_the_screen_and_nothing_complains(
    browser: Browser, tmp_path: Path, kind: str, width: int, dark: bool
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html_of(kind), encoding="utf-8")
    page = browser.open(path, width=width, dark=dark)
    assert page.run("innerWidth") == width
    assert page.run("document.scrollingElement.scrollWidth") <= width
    assert page.run("document.documentElement.getBoundingClientRect().right") <= width
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") != dark
    assert page.complaints() == []
    page.close()


def test_text_stands_out_from_its_background_in_light_and_dark(browser: Browser, file: Path) -> None:
    # WCAG 2.2, success criterion 1.4.3: 4.5 to 1 for text.
    for dark in (False, True):
        page = browser.open(file, dark=dark)
        ratios = page.run(_CONTRASTS)
        assert len(ratios) >= 8
        assert {what: ratio for what, ratio in ratios.items() if ratio < 4.5} == {}
        page.close()


_CONTRASTS = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const pixel = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => rgb
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const found = {};
  for (const what of [".eyebrow", "h1", ".finding", ".caption", "thead th", "tbody small", ".who", "summary", "mark",
                      "mark b", ".missed mark", ".is-wrong", ".is-right", ".verdict", "dt", "footer p", "figcaption"]) {
    const element = document.querySelector(what);
    if (!element) continue;
    const behind = [];
    for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
    const [a, b] = [[...behind, getComputedStyle(element).color], behind].map((all) => luminance(pixel(all)));
    found[what] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
})()"""


def test_a_click_on_a_heading_sorts_the_rows(browser: Browser, file: Path) -> None:
    page = browser.open(file)
    table = "document.querySelector('#scores ~ .scroll table')"
    first_column = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[1].dataset.value))"
    headings = f"{table}.tHead.rows[0].cells"
    before = page.run(first_column)
    assert before == sorted(before, reverse=True)
    page.run(f"{headings}[1].querySelector('button').click()")
    assert page.run(first_column) == before
    assert page.run(f"{headings}[1].ariaSort") == "descending"
    page.run(f"{headings}[1].querySelector('button').click()")
    assert page.run(first_column) == before[::-1]
    assert page.run(f"{headings}[1].ariaSort") == "ascending"

    page.run(f"{headings}[0].querySelector('button').click()")
    names = page.run("[...document.querySelectorAll('#scores ~ .scroll tbody th')].map(cell => cell.textContent)")
    assert names == sorted(names)
    assert page.run(f"[...{headings}].filter(heading => heading.ariaSort).length") == 1
    page.close()


def test_a_heading_sorts_by_keyboard_too(browser: Browser, file: Path) -> None:
    page = browser.open(file)
    heading = "document.querySelector('#scores ~ .scroll thead th.headline')"
    page.run(f"{heading}.querySelector('button').focus()")
    page.press("Enter")
    assert page.run(f"{heading}.ariaSort") == "descending"
    page.press(" ")
    assert page.run(f"{heading}.ariaSort") == "ascending"
    page.close()


def test_missing_numbers_stay_last_and_infinite_ones_sort_as_the_largest(browser: Browser, tmp_path: Path) -> None:
    cells = "".join(f"<tr><th>{value}</th><td data-value={value}>x</td></tr>" for value in ("2", "Infinity", "10"))
    page_source = html_of("tagging")
    start = page_source.index("<tbody>") + len("<tbody>")
    # A table of our own in place of the first one's rows; the script stays the page's.
    rows = f"{cells}<tr><th>none</th><td>–</td></tr>"
    path = tmp_path / "report.html"
    path.write_text(page_source[:start] + rows + page_source[page_source.index("</tbody>") :], encoding="utf-8")
    page = browser.open(path)
    names = "[...document.querySelectorAll('table')[0].tBodies[0].rows].map(row => row.cells[0].textContent)"
    sort = "document.querySelectorAll('table')[0].querySelectorAll('thead button')[1].click()"
    page.run(sort)
    assert page.run(names) == ["Infinity", "10", "2", "none"]
    page.run(sort)
    assert page.run(names) == ["2", "10", "Infinity", "none"]
    page.close()


def test_examples_are_filtered_by_kind_and_type(browser: Browser, file: Path) -> None:
    page = browser.open(file)
    shown = "[...document.querySelectorAll('.examples > li')].filter(one => one.checkVisibility())"
    total = page.run("document.querySelectorAll('.examples > li').length")
    assert total == 80
    assert page.run(f"{shown}.length") == 10
    page.run("document.getElementById('more').click()")
    assert page.run(f"{shown}.length") == 20

    counted = {}
    for kind in ("divided", "wrong", "right"):
        page.run(f"document.querySelector('.filter button[data-kind={kind}]').click()")
        while page.run("document.getElementById('more').checkVisibility()"):
            page.run("document.getElementById('more').click()")
        assert page.run(f"[...new Set({shown}.map(one => one.dataset.kind))]") == [kind]
        counted[kind] = page.run(f"{shown}.length")
        assert f"Showing {counted[kind]} of {counted[kind]}." in page.run(
            "document.getElementById('showing').textContent"
        )
    assert sum(counted.values()) == total

    page.run("document.querySelector('.filter button').click()")
    page.run(
        "{ const type = document.getElementById('type'); type.value = '2'; type.dispatchEvent(new Event('change')); }"
    )
    assert page.run("document.getElementById('type').selectedOptions[0].textContent") == "ORG"
    assert page.run(f"{shown}.every(one => /ORG/.test(one.textContent))")
    assert 0 < page.run(f"{shown}.length") <= 10
    page.close()


def test_printing_leaves_out_what_only_a_screen_can_use(browser: Browser, file: Path) -> None:
    page = browser.open(file)
    page.call("Emulation.setEmulatedMedia", media="print")
    assert not page.run("document.getElementById('filter').checkVisibility()")
    assert page.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    page.close()


@pytest.mark.parametrize("kind", ["entities", "classes", "texts"])
def test_hostile_names_run_nothing_and_build_nothing(
    browser: Browser, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightft.reports.html_page.draw_pictures", lambda comparison: [])
    counts = [elements_after_all_clicks(browser, shape(kind), tmp_path / "harmless.html")]
    for first in (0, 500, 1000, 1500):
        counts.append(elements_after_all_clicks(browser, filled(shape(kind), first), tmp_path / f"{first}.html"))
    assert counts == [counts[0]] * 5
    assert len(HOSTILE) > 1500 + len(SLOTS)


def test_hostile_names_run_nothing_in_pictures(browser: Browser, tmp_path: Path) -> None:
    assert elements_after_all_clicks(browser, filled(shape("classes"), 0), tmp_path / "hostile.html") > 0


def elements_after_all_clicks(browser: Browser, comparison: Comparison, path: Path) -> int:
    """Open a page on a phone, use all its buttons, and return how many elements it has then."""
    comparison.save(path, include_text=True)
    page = browser.open(path, width=PHONE)
    assert page.run("document.scrollingElement.scrollWidth") <= PHONE
    page.run("document.querySelectorAll('button').forEach(button => button.click())")
    elements: int = page.run("document.querySelectorAll('*').length")
    assert page.complaints() == []
    page.close()
    return elements
