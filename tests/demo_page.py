"""What a user does on the service's page, and sees there."""

from __future__ import annotations

from typing import Any

from tests.browser import Browser, Page

__all__ = ["ask", "choose", "marks", "opened", "shown", "write"]


def opened(browser: Browser, url: str, **look: Any) -> Page:
    page = browser.open(f"{url}/demo", **look)
    page.until("!document.getElementById('ask').hidden")
    return page


def write(page: Page, text: str) -> None:
    """Put a text in place of what stands in the field, as a user would."""
    page.run("document.getElementById('text').select()")
    page.click("#text")
    page.run("document.getElementById('text').select()")
    page.type(text)


def choose(page: Page, field: str, name: str) -> None:
    """Choose in a list with the arrow keys."""
    page.run(f"document.getElementById('{field}').focus()")
    place = page.run(f"[...document.getElementById('{field}').options].findIndex(one => one.value === '{name}')")
    while (now := page.run(f"document.getElementById('{field}').selectedIndex")) != place:
        page.press("ArrowDown" if now < place else "ArrowUp")


def ask(page: Page) -> None:
    page.click("#go")
    page.until("!document.getElementById('results').hidden && document.getElementById('results').ariaBusy === 'false'")


# What stands in a mark without its label, and the label.
_MARKS = r"""[...document.querySelectorAll('article:nth-child(%d) mark:not(.off)')].map(mark => {
  const copy = mark.cloneNode(true);
  copy.querySelectorAll('b').forEach(label => label.remove());
  const label = [...mark.children].find(child => child.tagName === 'B');
  return [copy.textContent, label ? label.textContent.replace('\u00a0', ' ') : null, mark.classList.contains('alone')];
})"""


def marks(page: Page, column: int = 1) -> list[tuple[str, str | None, bool]]:
    return [tuple(mark) for mark in page.run(_MARKS % column)]


def shown(page: Page, selector: str) -> str:
    return str(page.run(f"document.querySelector('{selector}').innerText"))
