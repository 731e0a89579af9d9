"""Makes the pictures of the guide, as Chromium shows them: the report page of made-up runs, and a service's own page.

Run ``python -m docs.pictures.make_screenshots`` from the root of the repository.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import HOW_TO_INSTALL, Browser, Page, find_chromium
from tests.demo_page import ask, choose, opened
from tests.demo_service import Service, serve, tagger
from tests.made_up_examples import made_up_methods

FOLDER = Path(__file__).parent


def main() -> None:
    """Write the PNG files next to this one."""
    binary = find_chromium()
    if binary is None:
        raise SystemExit(HOW_TO_INSTALL)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.html"
        made_up_methods(examples=600, resamples=2000).save(report, include_text=True)
        with Browser(binary, Path(scratch) / "profile") as browser:
            page = browser.open(report)
            _write(page, "report-desk.png", "h1", height=1080)
            _write(page, "report-pictures.png", "#pictures", height=1000)
            page.close()
            page = browser.open(report, dark=True)
            _write(page, "report-examples-dark.png", "#examples", height=760)
            page.close()
            page = browser.open(report, width=360, scale=1.5)
            _write(page, "report-phone.png", "h1", height=780)
            page.close()
            _write_demo(browser)


def _write_demo(browser: Browser) -> None:
    """Write the page of a service on which two made-up taggers differ."""
    careful = {
        "Angela Merkel": "PER",
        "Ban Ki-moon": "PER",
        "United Nations": "ORG",
        "New York": "LOC",
        "Berlin": "LOC",
    }
    hasty = {"Angela Merkel": "PER", "Ban": "PER", "New York": "LOC", "Berlin": "LOC", "Lufthansa": "PER"}
    models = [tagger("news-lora", careful | {"Lufthansa": "ORG"}), tagger("news-qlora", hasty)]
    with serve(Service(models)) as service:
        page = opened(browser, service.url, width=1100)
        choose(page, "other", "news-qlora")
        ask(page)
        page.run("document.activeElement.blur()")
        _write(page, "demo.png", "h1", height=page.run("document.documentElement.scrollHeight"))
        page.close()


def _write(page: Page, name: str, at: str, height: int) -> None:
    """Write what stands from an element on as a PNG of 128 colours: a page of flat colours misses none."""
    top = page.run(f"document.querySelector('{at}').getBoundingClientRect().top + scrollY")
    shot = Image.open(io.BytesIO(page.screenshot(top=max(0, int(top) - 60), height=height)))
    few_colours = shot.convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few_colours.save(FOLDER / name, optimize=True)


if __name__ == "__main__":
    main()
