"""Names, labels and texts that try to be more than text, and comparisons full of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from itertools import cycle, islice, product
from typing import Any

from lightft.comparison import Comparison, compare_runs
from lightft.contracts.made_up_runs import classification_run, generation_run, made_up_history, tagging_run
from lightft.records import Example, Run
from tests.made_up_examples import made_up_cost

__all__ = ["HOSTILE", "SLOTS", "filled", "shape"]

_HTML = (
    "<script>alert(1)</script>", "<ScRiPt src=//evil.example></sCrIpT>", "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>", "<iframe srcdoc='<script>alert(1)</script>'>", "<a href='javascript:alert(1)'>x</a>",
    "<style>*{display:none}</style>", "<base href=//evil.example>", "<link rel=stylesheet href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>", "<object data=//evil.example></object>",
    "<form action=//evil.example><input autofocus onfocus=alert(1)>", "<math><mtext><script>alert(1)</script>",
    "<details open ontoggle=alert(1)>", "<template><img onerror=alert(1) src=x>", "<body onload=alert(1)>",
    "onmouseover=alert(1) x=", " autofocus onfocus=alert(1) ", "style=background:url(//evil.example)",
    "<!--<img src=\"--><img src=x onerror=alert(1)//\">", "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
    "&lt;script&gt;alert(1)&lt;/script&gt;", "&#x3c;script&#x3e;", "&amp;quot; onclick=alert(1)", "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>", "{{ 7*7 }}{% include 'page.css' %}", "${alert(1)}`${1}`", "<%= 1 %>",
)  # fmt: skip
_CSS = (
    "expression(alert(1))", "}body{display:none}", "@import url(//evil.example);", "/* */ *{color:red}",
    "url(javascript:alert(1))", "red;background:url(//evil.example)", "\\3c script\\3e ", "--x:1}",
)  # fmt: skip
_SHEET = (
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "=HYPERLINK(\"//evil.example\",\"x\")", "=cmd|'/c calc'!A0", "\t=2+1", "\r=3+1",
    "\uff1d1+1", "a,b\n=1", "\"\n=1+1", "=WEBSERVICE(\"//evil.example\")",
)  # fmt: skip
_LATEX = (
    r"\input{/etc/passwd}", r"\write18{id}", r"\def\x{\x}\x", r"\begin{verbatim}", r"\end{table}\end{document}",
    r"\catcode`\%=12", r"\csname input\endcsname{x}", "$\\frac{1}{2}$", "^^5cinput{x}", "a & b \\\\ c", "%\\", "{{{", "}}}",
    r"\newline[3cm]", "[3cm]", "~^_#&%$", "\\", "\\verb|x|", "--- ``x''", "?` !`",
)  # fmt: skip
_MARKDOWN = (
    "[x](javascript:alert(1))", "![x](//evil.example/x.png)", "<http://evil.example>", "http://evil.example",
    "HTTPS://evil.example", "www.evil.example", "x@evil.example", "@everyone", "[x][1]", "[1]: //evil.example", "`c`",
    "```sh", "*d*", "__e__", "~~f~~", "a|b", "|---|", "# g", "- h", "1. i", "> j", "+ k", "===", "---", "    code", "\\",
    "&copy;", "f\ng\n\n# h", "<b>", "[^1]", "- [ ] l", "#1", "$x^2$",
)  # fmt: skip
_BIDI = (
    "\u202etxet", "\u2066\u202egnp.exe", "\u2067\u2068\u2069", "\u202a\u202b\u202c\u202d", "\u200f\u200e\u061c",
    "שלום [x](y)", "مرحبا <b>", "a\u0300\u0301\u0302", "\U0001f600", "中文", "\ufeff", "\u200b", "\u2028", "\u2029",
)  # fmt: skip
_ODD = ("\x00", "\ud800", "\x1b[31m", "\x7f", "\x85", "\ufffe", "\x08\x08\x08", "nan", "None", "-", "0", "p = 0.01")
_PIECES = (*_HTML, *_CSS, *_SHEET, *_LATEX, *_MARKDOWN, *_BIDI, *_ODD)
_BEFORE = (
    "", '"', "'", '">', "'>", "-->", "]]>", "</svg>", "</style>", "</script>", "</title>", "</td></tr></table>",
    "</textarea>", "</select>", "</mark></p></div>", "}", "\x00",
)  # fmt: skip


def _all_different(payloads: Sequence[str]) -> list[str]:
    # A name cannot be white space alone, and answers that differ in white space alone are one answer.
    return list({" ".join(payload.split()): payload for payload in payloads if payload.strip()}.values())


HOSTILE = _all_different([before + piece for before, piece in product(_BEFORE, _PIECES)])
"""Over 2,000 of them."""

_TYPES = tuple(f"slot type {number}" for number in range(8))
_TEXTS = 30
SLOTS = (
    *(f"slot run {number}" for number in range(4)),
    *_TYPES,
    *(f"slot fact {number}" for number in range(12)),
    *(f"slot id {number}" for number in range(_TEXTS)),
    # As long as the words that made-up runs tag.
    *(f"slot text {number}".ljust(80) for number in range(_TEXTS)),
    *(f"slot answer {number}" for number in range(_TEXTS)),
)
"""Texts that stand in the comparisons of ``shape``, to be replaced."""


@cache
def shape(kind: str) -> Comparison:
    """Return a comparison of ``"entities"``, ``"classes"`` or ``"texts"`` in which all that a user names is a slot."""
    names = SLOTS[:4]
    if kind == "entities":
        runs = [tagging_run(name, skill=0.4 + n / 10, examples=_TEXTS, types=_TYPES) for n, name in enumerate(names)]
    elif kind == "classes":
        runs = [
            classification_run(name, skill=0.1 + n / 5, examples=_TEXTS, labels=_TYPES) for n, name in enumerate(names)
        ]
    else:
        runs = [generation_run(name, skill=0.3 + n / 5, examples=_TEXTS) for n, name in enumerate(names)]
    return _of_slots(runs)


def filled(shape: Comparison, first: int) -> Comparison:
    """Return a comparison with the hostile texts from the given one on in its slots."""
    payloads = islice(cycle(HOSTILE), first, first + len(SLOTS))
    mapping = {
        slot: payload.ljust(80) if "text" in slot else payload for slot, payload in zip(SLOTS, payloads, strict=True)
    }
    swapped: Comparison = _swapped(shape, mapping)
    return swapped


def _of_slots(runs: Sequence[Run]) -> Comparison:
    renamed = {f"test-{n}": f"slot id {n}" for n in range(_TEXTS)} | {
        f"answer {n}": f"slot answer {n}" for n in range(_TEXTS)
    }
    described = []
    for number, run in enumerate(runs):
        fields = {
            "task": "slot fact 0",
            "data": {"source": "slot fact 1", "test_fingerprint": "slot fact 2"},
            "model": {"name": f"slot fact {number + 3}"},
            "training": {"slot fact 7": "slot fact 8", "seed": number},
            "environment": {"slot fact 9": f"slot fact {10 + number % 2}"},
            "history": made_up_history(run.metrics[0], steps=40),
            "cost": made_up_cost(1 + number),
        }
        described.append(replace(run, predictions=tuple(_swapped(one, renamed) for one in run.predictions), **fields))
    texts = [slot for slot in SLOTS if "text" in slot]
    examples = [Example(one.id, text, one.gold) for one, text in zip(described[0].predictions, texts, strict=True)]
    compared = compare_runs(described, resamples=20, examples=examples)
    return replace(compared, warnings=("slot fact 3",), notes=("slot fact 4",))


def _swapped(value: Any, mapping: Mapping[str, str]) -> Any:
    """Return a record with the texts that are keys of the mapping swapped for their values, however deep they lie."""
    if isinstance(value, str):
        return mapping.get(value, value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _swapped(getattr(value, field.name), mapping) for field in fields(value)})
    if isinstance(value, Mapping):
        # Settings have dotted names.
        return {_swapped_name(key, mapping): _swapped(entry, mapping) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_swapped(entry, mapping) for entry in value)
    return value


def _swapped_name(name: str, mapping: Mapping[str, str]) -> str:
    family, dot, rest = name.partition(".")
    return f"{family}{dot}{mapping.get(rest, rest)}" if dot else mapping.get(name, name)
