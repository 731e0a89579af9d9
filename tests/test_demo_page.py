"""All that the service's page can show and meet, in a real browser, against a service that does as it is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from tests.browser import Browser
from tests.demo_page import ask, choose, marks, opened, shown, write
from tests.demo_service import Service, classifier, serve, tagger, writer
from tests.hostile import HOSTILE

DESK, PHONE, SMALL_PHONE = 1280, 360, 320
PEOPLE = {"Anna Berg": "PER", "Bert": "PER", "New York": "LOC", "York": "LOC", "the Bank of New": "ORG"}
FEWER = {"Anna Berg": "PER", "New York": "LOC", "Bert": "ORG"}
MODELS = [
    tagger("careful", PEOPLE),
    tagger("hasty", FEWER),
    classifier("films", {"bad": 0.1, "good": 0.6996, "no film": 0.2, "rare": 0.0004}),
    classifier("films-2", {"bad": 0.7, "good": 0.2, "no film": 0.1, "rare": 0.0}),
    classifier("topics", {"economy": 0.1, "good": 0.3, "sports": 0.6}),
    writer("writer", ["Paris", " – the city", " of light 🗼."]),
    writer("copyist", ["Paris", " – the city of light 🗼."]),
]


@pytest.fixture
def service() -> Iterator[Service]:
    with serve(Service(MODELS)) as running:
        yield running


def test_entities_of_a_typed_text_are_marked(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    assert shown(page, "#service") == "lightft 1.2.3 · 7 models"
    assert shown(page, "h1") == "careful"
    write(page, "Anna Berg met Bert.")
    ask(page)
    assert service.asked == [{"path": "/predict", "model": "careful", "text": "Anna Berg met Bert."}]
    assert marks(page) == [("Anna Berg", "PER 0.98", False), ("Bert", "PER 0.91", False)]
    assert shown(page, "h2") == "2 entities"
    assert page.run("document.querySelector('.said').textContent") == "Anna BergPER\u00a00.98 met BertPER\u00a00.91."
    assert shown(page, ".legend") == "PER\n2"
    assert shown(page, "#status") == "careful: 2 entities."
    assert page.screenshot().startswith(b"\x89PNG")
    assert page.complaints() == []
    page.close()


def test_an_emoji_before_an_entity_does_not_shift_it(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    write(page, "🗽👩‍👩‍👧 é \N{MATHEMATICAL SCRIPT CAPITAL A} Anna Berg\n\n🎬 Bert")
    ask(page)
    assert marks(page) == [("Anna Berg", "PER 0.98", False), ("Bert", "PER 0.91", False)]
    assert page.run("[...document.querySelectorAll('tbody td:last-child')].map(cell => cell.textContent)") == [
        "11–20",
        "24–28",
    ]
    page.close()


def test_entities_that_touch_nest_or_cross_are_all_drawn(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    write(page, "BertAnna Berg at the Bank of New York")
    ask(page)
    found = marks(page)
    assert [(text, label[:3]) for text, label, _ in found if label] == [
        ("Bert", "PER"),
        ("Anna Berg", "PER"),
        ("the Bank of New", "ORG"),
        (" York", "LOC"),
        ("York", "LOC"),
    ]
    # "New York" begins inside the bank and ends behind it: drawn in two pieces, named at its end.
    assert [text for text, label, _ in found if label is None] == ["New"]
    assert page.run("document.querySelector('.said mark.goes-on').textContent").startswith(" York")
    page.close()


def test_of_two_entities_that_begin_together_the_longer_is_drawn_around_the_other(
    browser: Browser, service: Service
) -> None:
    service.models = [tagger("tagger", {"New": "ORG", "New York": "LOC"})]
    page = opened(browser, service.url)
    write(page, "in New York")
    ask(page)
    assert marks(page) == [("New York", "LOC 0.91", False), ("New", "ORG 0.98", False)]
    page.close()


def test_a_key_press_asks_and_escape_clears_and_brings_back(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    write(page, "Bert")
    page.press("Enter", ctrl=True)
    page.until("document.querySelector('mark')")
    page.press("Escape")
    assert page.run("document.getElementById('text').value") == ""
    assert page.run("document.getElementById('results').hidden")
    assert page.run("document.activeElement.id") == "text"
    page.press("Enter", ctrl=True)
    assert shown(page, "#status") == "There is no text yet. Type or paste one."
    assert len(service.asked) == 1
    page.click("#clear")
    assert page.run("document.getElementById('text').value") == "Bert"
    assert shown(page, "#clear") == "Clear"
    page.close()


def test_a_type_is_hidden_and_shown_by_keyboard(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    write(page, "Anna Berg in New York")
    ask(page)
    assert shown(page, ".legend") == "LOC\n2\nPER\n1"
    page.run("document.querySelectorAll('.legend button')[0].focus()")
    page.press(" ")
    assert page.run("document.activeElement.ariaPressed") == "false"
    assert [text for text, _, _ in marks(page)] == ["Anna Berg"]
    assert page.run("[...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).length") == 1
    assert page.run("document.querySelector('.said').textContent").startswith("Anna BergPER\u00a00.98 in New York")
    # It stays hidden in the next answer, until it is asked for again.
    ask(page)
    assert [text for text, _, _ in marks(page)] == ["Anna Berg"]
    page.run("document.querySelectorAll('.legend button')[0].focus()")
    page.press("Enter")
    assert [text for text, _, _ in marks(page)] == ["Anna Berg", "New York", "York"]
    page.close()


def test_two_models_stand_side_by_side_and_what_one_alone_has_is_outlined(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    write(page, "Anna Berg met Bert in New York")
    choose(page, "other", "hasty")
    ask(page)
    assert sorted(question["model"] for question in service.asked) == ["careful", "hasty"]
    assert shown(page, "#difference") == (
        "2 entities are the same in both. Outlined: 2 only in careful, 1 only in hasty."
    )
    assert [(text, alone) for text, _, alone in marks(page, 1)] == [
        ("Anna Berg", False),
        ("Bert", True),
        ("New York", False),
        ("York", True),
    ]
    assert [(text, alone) for text, _, alone in marks(page, 2)] == [
        ("Anna Berg", False),
        ("Bert", True),
        ("New York", False),
    ]
    assert page.run("getComputedStyle(document.querySelector('mark.alone')).outlineStyle") == "dashed"
    assert shown(page, ".legend") == "LOC\n2 | 1\nORG\n0 | 1\nPER\n2 | 1"
    boxes = page.run("[...document.querySelectorAll('article')].map(one => one.getBoundingClientRect().toJSON())")
    assert boxes[0]["top"] == boxes[1]["top"]
    assert boxes[0]["right"] < boxes[1]["left"]
    assert page.complaints() == []
    page.close()

    phone = opened(browser, service.url, width=PHONE)
    choose(phone, "other", "hasty")
    ask(phone)
    boxes = phone.run("[...document.querySelectorAll('article')].map(one => one.getBoundingClientRect().toJSON())")
    assert boxes[0]["bottom"] < boxes[1]["top"]
    phone.close()


def test_one_of_two_models_may_fail(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    write(page, "Bert")
    choose(page, "other", "hasty")
    service.refusals.append((504, {}, {"detail": [{"loc": [], "msg": "It took too long.", "type": "deadline"}]}))
    ask(page)
    assert shown(page, "#problem") == "It took too long."
    states = page.run("[...document.querySelectorAll('.summary')].map(one => one.textContent)")
    assert sorted(states) == ["1 entity", "No answer"]
    assert page.run("document.getElementById('difference').hidden")
    page.close()


def test_probabilities_of_a_class_are_bars(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    choose(page, "model", "films")
    assert shown(page, "#go") == "Classify"
    assert page.run("[...document.getElementById('other').options].map(one => one.value)") == ["", "films-2", "topics"]
    ask(page)
    bars = "[...document.querySelectorAll('article:first-child .bars li')]"
    assert page.run(f"{bars}.map(one => one.innerText.split('\\n'))") == [
        ["good", "70.0 %"],
        ["no film", "20.0 %"],
        ["bad", "10.0 %"],
        ["rare", "< 0.1 %"],
    ]
    widths = page.run(f"{bars}.map(one => one.querySelector('.bar span').getBoundingClientRect().width)")
    whole = page.run("document.querySelector('.bar').getBoundingClientRect().width")
    assert [width / whole for width in widths[:3]] == pytest.approx([0.6996, 0.2, 0.1], abs=0.002)
    assert shown(page, "h2") == "good"

    choose(page, "other", "films-2")
    ask(page)
    assert shown(page, "#difference") == "films says good, films-2 says bad."
    second = "[...document.querySelectorAll('article:last-child .name')].map(one => one.textContent)"
    assert page.run(second) == ["good", "no film", "bad", "rare"]

    choose(page, "other", "topics")
    ask(page)
    assert page.run(second) == ["good", "sports", "economy"]
    assert page.complaints() == []
    page.close()


def test_a_written_answer_is_shown_as_it_comes(browser: Browser, service: Service) -> None:
    service.goes_on.clear()
    page = opened(browser, service.url)
    choose(page, "model", "writer")
    write(page, "Which city?")
    page.run("document.getElementById('most').value = 40")
    page.click("#go")
    page.until("document.querySelector('.said')?.textContent === 'Paris'")
    assert page.run("document.getElementById('results').ariaBusy") == "true"
    service.goes_on.set()
    page.until("document.getElementById('results').ariaBusy === 'false'")
    assert page.run("document.querySelector('.said').textContent") == "Paris – the city of light 🗼."
    assert shown(page, "h2") == "3 tokens"
    assert service.asked == [
        {"path": "/generate", "model": "writer", "prompt": "Which city?", "max_new_tokens": 40, "stream": True}
    ]

    choose(page, "other", "copyist")
    ask(page)
    assert shown(page, "#difference") == "Both wrote the same."
    assert page.complaints() == []
    page.close()


def test_a_stopped_answer_stays_as_far_as_it_was_written(browser: Browser, service: Service) -> None:
    service.goes_on.clear()
    page = opened(browser, service.url)
    choose(page, "model", "writer")
    assert not page.run("document.getElementById('stop').checkVisibility()")
    page.click("#go")
    page.until("document.querySelector('.said')?.textContent === 'Paris'")
    page.click("#stop")
    page.until("document.getElementById('results').ariaBusy === 'false'")
    assert shown(page, "h2") == "Stopped"
    assert page.run("document.querySelector('.said').textContent") == "Paris"
    assert not page.run("document.getElementById('stop').checkVisibility()")
    page.close()


def test_an_answer_that_breaks_off_says_so_and_keeps_what_came(browser: Browser, service: Service) -> None:
    service.breaks_off = True
    page = opened(browser, service.url)
    choose(page, "model", "writer")
    ask(page)
    assert shown(page, "#problem") == "The answer broke off: the connection was lost. Try again."
    assert page.run("document.querySelector('.said').textContent") == "Paris – the city of light 🗼."
    page.close()


def test_a_later_question_is_the_one_that_is_answered(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    service.goes_on.clear()
    write(page, "Bert")
    page.press("Enter", ctrl=True)
    page.until("document.getElementById('status').textContent === 'careful: at work…'")
    page.press("Escape")
    page.until("document.getElementById('status').textContent === 'Stopped.'")

    for text in ("Bert", "Anna Berg"):
        write(page, text)
        page.press("Enter", ctrl=True)
    assert shown(page, "#status") == "careful: at work…"
    service.goes_on.set()
    page.until("document.querySelector('mark')")
    assert [text for text, _, _ in marks(page)] == ["Anna Berg"]
    assert shown(page, "#status") == "careful: 1 entity."
    page.close()


def test_a_full_queue_says_when_to_try_again(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    full = {"detail": [{"loc": [], "msg": "The queue is full.", "type": "busy"}]}
    service.refusals += [
        (503, {"Retry-After": "5"}, full),
        (503, {"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}, full),
    ]
    for seconds in ("5 seconds", "1 second"):
        page.click("#go")
        page.until("!document.getElementById('problem').hidden")
        assert shown(page, "#problem") == f"The queue is full.\nTry again in {seconds}."
        assert page.run("document.getElementById('results').hidden")
        assert page.run("document.getElementById('problem').role") == "alert"
        write(page, "Bert")
    ask(page)
    assert page.run("document.getElementById('problem').hidden")
    assert [text for text, _, _ in marks(page)] == ["Bert"]
    page.close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            422,
            {
                "detail": [
                    {"loc": ["body", "text"], "msg": "Too long.", "type": "x"},
                    {"msg": "Give texts.", "type": "x"},
                ]
            },
            "Too long.\nGive texts.",
        ),
        (502, b"<h1>Bad gateway</h1>", "The server answered with the status 502."),
        (500, {"detail": "broken"}, "The server answered with the status 500."),
    ],
)
def test_what_the_service_refuses_is_said(
    browser: Browser, service: Service, status: int, body: Any, said: str
) -> None:
    page = opened(browser, service.url)
    service.refusals.append((status, {}, body))
    page.click("#go")
    page.until("!document.getElementById('problem').hidden")
    assert shown(page, "#problem") == said
    page.close()


def test_a_service_that_is_gone_is_said(browser: Browser) -> None:
    with serve(Service(MODELS)) as service:
        page = opened(browser, service.url)
    page.click("#go")
    page.until("!document.getElementById('problem').hidden")
    assert shown(page, "#problem") == "The server cannot be reached. See whether it still runs, then try again."
    page.close()


def test_a_service_that_is_starting_is_asked_again(browser: Browser, service: Service) -> None:
    starting = {"detail": [{"loc": [], "msg": "The service is starting.", "type": "busy"}]}
    service.refusals += [(503, {"Retry-After": "2"}, starting), (200, {}, b"<p>a proxy's own page</p>")]
    page = browser.open(f"{service.url}/demo")
    page.until("!document.getElementById('again').hidden")
    assert shown(page, "#problem") == "The service is starting.\nTry again in 2 seconds."
    page.click("#again")
    page.until("document.getElementById('problem').textContent === 'What answered here is no service of lightft.'")
    page.click("#again")
    page.until("!document.getElementById('ask').hidden")
    assert page.run("document.getElementById('again').hidden && document.getElementById('problem').hidden")
    page.close()


def test_a_key_is_asked_for_and_sent(browser: Browser) -> None:
    with serve(Service(MODELS, key="se-cret")) as service:
        page = browser.open(f"{service.url}/demo")
        page.until("!document.getElementById('key-form').hidden")
        assert page.run("document.activeElement.id") == "key"
        assert page.run("document.getElementById('key').labels[0].textContent") == "Key"
        assert page.run("document.getElementById('problem').hidden")
        assert not page.run("document.getElementById('ask').checkVisibility()")

        for key, complaint in {
            "wrong": "The service did not accept this key.",
            "schlüssel": "A key has letters",
        }.items():
            page.type(key)
            page.press("Enter")
            page.until(f"document.getElementById('problem').textContent.startsWith('{complaint}')")
            page.run("document.getElementById('key').value = ''")
            assert page.run("sessionStorage.length") == 0

        page.type("se-cret")
        page.press("Enter")
        page.until("!document.getElementById('ask').hidden")
        assert page.run("document.getElementById('key-form').hidden")
        ask(page)
        assert service.asked
        assert page.run("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]

        # The key changed meanwhile.
        service.key = "another"
        choose(page, "other", "hasty")
        page.click("#go")
        page.until("!document.getElementById('key-form').hidden")
        page.until("document.getElementById('results').ariaBusy === 'false'")
        assert shown(page, "#problem") == "The service did not accept this key. Check it, and give it again."
        service.key = "se-cret"
        page.type("se-cret")
        page.press("Enter")
        page.until("!document.getElementById('ask').hidden")
        page.click("#forget")
        page.until("!document.getElementById('key-form').hidden")
        assert page.run("sessionStorage.length") == 0
        page.close()


@pytest.mark.parametrize("width", [DESK, PHONE, SMALL_PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_fits_the_screen_and_can_be_read(browser: Browser, service: Service, width: int, dark: bool) -> None:
    service.models = [
        tagger("a-tagger-with-a-name-that-is-longer-than-a-phone-is-wide-by-far", PEOPLE | many_types()),
        *MODELS,
    ]
    page = opened(browser, service.url, width=width, dark=dark)
    write(page, "Anna Berg met Bert in New York at the Bank of New York. " + " ".join(many_types()) + " x" * 60)
    for model, other in {service.models[0]["name"]: "hasty", "films": "films-2", "writer": "copyist"}.items():
        choose(page, "model", model)
        choose(page, "other", other)
        ask(page)
        page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.run("document.scrollingElement.scrollWidth") <= width
        # WCAG 2.2, success criterion 1.4.3: 4.5 to 1 for text.
        ratios = page.run(_CONTRASTS)
        assert len(ratios) > 12
        assert {what: ratio for what, ratio in ratios.items() if ratio < 4.5} == {}
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") != dark
    assert page.complaints() == []
    page.close()


def many_types() -> dict[str, str]:
    return {f"word{number}": f"TYPE_{number}" for number in range(24)}


# The least contrast of each kind of element, whatever colour of type it has, with what lies behind it.
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
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const behind = [];
    for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
    const [a, b] = [[...behind, getComputedStyle(element).color], behind].map((all) => luminance(pixel(all)));
    const what = `${element.parentElement.tagName} ${element.tagName} ${element.className}`;
    found[what] = Math.min(found[what] ?? 99, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return found;
})()"""


def test_types_are_told_apart_by_colour_or_line_and_keep_them(browser: Browser, service: Service) -> None:
    service.models = [tagger("tagger", many_types()), tagger("other", {"word3": "TYPE_3"})]
    page = opened(browser, service.url)
    write(page, " ".join(many_types()))
    ask(page)
    look = """[...document.querySelectorAll('mark')].map(mark => {
      const style = getComputedStyle(mark);
      return [mark.dataset.type, style.borderBottomColor + style.borderBottomStyle];
    })"""
    looks = dict(page.run(look))
    # Seven colours and three kinds of line; the label stands beside all of them.
    assert len(set(looks.values())) == 21
    assert all(label for _, label, _ in marks(page))
    choose(page, "model", "other")
    write(page, "then word3")
    ask(page)
    assert dict(page.run(look)) == {"TYPE_3": looks["TYPE_3"]}
    page.close()


def test_everything_is_reached_by_tab_and_shows_that_it_has_the_focus(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    write(page, "Anna Berg in New York")
    choose(page, "other", "hasty")
    ask(page)
    page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    wanted = (
        "[...document.querySelectorAll('a, button, input, select, textarea, summary, .scroll')]"
        ".filter(one => one.checkVisibility())"
    )
    number = page.run(f"{wanted}.length")
    reached = []
    # One time the focus leaves the page at its end.
    for _ in range(number + 1):
        page.press("Tab")
        reached.append(page.run(f"{wanted}.indexOf(document.activeElement)"))
        if reached[-1] >= 0:
            assert page.run("document.activeElement.matches(':focus-visible')")
            assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert number > 15
    assert sorted(reached) == list(range(-1, number))
    page.close()


def test_page_has_landmarks_names_and_no_inline_code(browser: Browser, service: Service) -> None:
    page = opened(browser, service.url)
    assert page.run("document.documentElement.lang") == "en"
    for landmark in ("header", "main", "footer"):
        assert page.run(f"document.querySelectorAll('{landmark}').length") == 1
    fields = "[...document.querySelectorAll('input, select, textarea')]"
    assert page.run(f"{fields}.every(one => one.labels.length === 1)")
    assert page.run("document.querySelector('#status').role") == "status"
    source = source_of("demo.html")
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|https?:", source)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", source) == [""]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source_of("demo.js"))
    page.close()


def test_page_has_the_colours_of_the_reports() -> None:
    report = files("lightft").joinpath("reports", "page.css").read_text(encoding="utf-8")
    # Those of paper are the report's alone.
    of_report = re.findall(r"(--[\w-]+): (#\w+)", report.partition("@media print")[0])
    own = re.findall(r"(--[\w-]+): (#\w+)", source_of("demo.css"))
    assert len(of_report) == 34
    assert [one for one in own if one[0] in dict(of_report)] == of_report


def source_of(name: str) -> str:
    return files("lightft").joinpath("serving", "page", name).read_text(encoding="utf-8")


def test_hostile_names_and_texts_stay_text(browser: Browser, service: Service) -> None:
    harmless = [f"harmless {number}" for number in range(200)]
    counts = [elements_after_asking(browser, service, harmless)]
    for first in range(0, len(HOSTILE) - 200, 450):
        counts.append(elements_after_asking(browser, service, HOSTILE[first : first + 200]))
    assert len(counts) > 5
    assert counts == [counts[0]] * len(counts)


def elements_after_asking(browser: Browser, service: Service, payloads: list[str]) -> int:
    """Let models of such names find such labels in such a text, and return how many elements the page has then."""
    words = {f"word{number:03}": label for number, label in enumerate(payloads)}
    service.models = [
        tagger(payloads[0], words),
        tagger(payloads[1], words),
        classifier("c", dict.fromkeys(payloads, 0)),
    ]
    page = opened(browser, service.url, width=PHONE)
    page.run("document.getElementById('other').selectedIndex = 1")
    text = "".join(f"{payload} {word} " for word, payload in words.items())
    page.run(f"document.getElementById('text').value = {json.dumps(text)}")
    ask(page)
    assert [found for found, _, _ in marks(page)] == list(words)
    assert page.run("document.scrollingElement.scrollWidth") <= PHONE
    elements: int = page.run("document.querySelectorAll('*').length")
    choose(page, "model", "c")
    ask(page)
    assert page.run("document.querySelectorAll('.bars .name').length") == len(payloads)
    assert page.run("document.scrollingElement.scrollWidth") <= PHONE
    assert page.complaints() == []
    page.close()
    return elements
