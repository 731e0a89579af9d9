"""Files of texts: any line becomes a row, in order, and whatever stops the work, the same call goes on."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tracemalloc
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightft.cli import extract as command
from lightft.cli import main
from lightft.errors import DataError, EngineError
from lightft.llm_ner import Calibration, Prompt
from lightft.llm_ner.documents import Document
from lightft.llm_ner.files.extraction import extract_file
from lightft.llm_ner.saved_settings import SavedSettings
from lightft.records import Prediction, Span
from tests.chat_server import Asked, ChatServer, Reply, saying
from tests.test_docs import write_splits


class DigitFinder:
    """Finds numbers, reads ahead like a real engine, and can break down after some texts."""

    def __init__(self, *, ahead: int = 3, texts: int = 10**9, failing: str = "\0never", **settings: Any) -> None:
        self.ahead, self.texts, self.failing = ahead, texts, failing
        self.given_settings = {"model": "digits", "format": "brackets", **settings}
        self.asked: list[str] = []

    def settings(self) -> Mapping[str, Any]:
        return self.given_settings

    def extract(self, texts: Iterable[str]) -> Iterator[Document]:
        remaining = iter(texts)
        while chunk := list(islice(remaining, self.ahead)):
            for text in chunk:
                if len(self.asked) == self.texts:
                    raise EngineError("The server does not answer.")
                self.asked.append(text)
                yield self.read(text)

    def read(self, text: str) -> Document:
        text.encode()
        if self.failing in text:
            return Document(text, (), (), "failed", ("",), "timed out")
        spans = tuple(Span(*match.span(), "NUMBER", score=0.12345678) for match in re.finditer(r"\d+", text))
        if "?" in text:
            return Document(text, spans, (("NUMBER", "7"),), "ungrounded", ("?",))
        return Document(text, spans, (), "ok", (text,))


def write(path: Path, lines: Iterable[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [{"id": f"d{n}", "text": f"number {n}", "lang": "en"} for n in range(20)])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "out.jsonl"


def extract(source: Path, out: Path, extractor: DigitFinder | None = None, **settings: Any) -> Any:
    return extract_file(extractor or DigitFinder(), source, out, progress=False, **settings)


def test_a_row_holds_all_that_is_known_about_a_document(source: Path, out: Path) -> None:
    result = extract(source, out)
    described = json.loads(out.with_name("out.jsonl.meta.json").read_text())
    assert rows(out)[12] == {
        "id": "d12",
        "text": "number 12",
        "lang": "en",
        "spans": [{"start": 7, "end": 9, "label": "NUMBER", "text": "12", "score": 0.123457}],
        "outcome": "ok",
        "ungrounded": [],
        "provenance": described["provenance"],
    }
    assert described["settings"] == DigitFinder().settings()
    assert described["source"] == "in.jsonl"
    assert str(result) == f"{out}: 20 documents (20 ok), 20 entities"


def test_a_text_per_line_is_read_and_compression_undone(tmp_path: Path, out: Path) -> None:
    plain = tmp_path / "in.txt"
    plain.write_bytes("\ufeffone 1\r\n\ntwo\u2028 2".encode())
    extract(plain, out)
    assert [(row["id"], row["text"]) for row in rows(out)] == [(1, "one 1"), (2, ""), (3, "two\u2028 2")]
    packed = tmp_path / "packed.txt.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    extract(packed, tmp_path / "packed.jsonl")
    assert (tmp_path / "packed.jsonl").read_bytes() == out.read_bytes()


def test_bad_lines_are_rows_and_everything_else_goes_on(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "in.jsonl"
    bad = [b"{", b"[1]", b'{"id": "x", "body": "b"}', b'{"text": 5}', b'{"text": "\xff"}', b"[" * 100_000]
    lines = [b'\xef\xbb\xbf{"text": "1"}', *bad, b"", b'{"text": "\\ud800 2 \\u0000"}', b'{"text": ""}']
    source.write_bytes(b"\n".join(lines))
    finder = DigitFinder()
    result = extract(source, out, finder)
    assert (result.documents, result.bad_lines, result.blank_lines) == (9, 6, 1)
    assert result.outcomes == {"ok": 3, "failed": 6}
    assert "6 lines could not be read, 1 blank lines passed over" in str(result)
    written = rows(out)
    assert [row["outcome"] for row in written] == ["ok", *["failed"] * 6, "ok", "ok"]
    assert "line 2 of the source: no valid JSON" in written[1]["error"]
    assert "list and not an object" in written[2]["error"]
    assert "no field 'text'" in written[3]["error"]
    assert (written[3]["id"], written[3]["body"]) == ("x", "b")
    assert "'text' is of type int" in written[4]["error"]
    assert "byte 0xff is not UTF-8" in written[5]["error"]
    assert (written[7]["id"], written[7]["text"], written[7]["spans"][0]["start"]) == (9, "\ud800 2 \0", 2)
    assert finder.asked == ["1", "\ufffd 2 \0", ""]
    again = DigitFinder()
    assert extract(source, out, again).kept == 3
    assert again.asked == []


def test_fields_that_are_called_like_ours_are_carried_under_another_name(tmp_path: Path, out: Path) -> None:
    given = {"id": 0, "text": "other", "spans": [1], "source.spans": 2, "body": "7", "error": None}
    extract(write(tmp_path / "in.jsonl", [given]), out, text_field="body")
    (row,) = rows(out)
    assert row["text"] == "7"
    assert row["id"] == 0
    assert row["spans"][0]["label"] == "NUMBER"
    assert (row["source.text"], row["source.spans"], row["source.source.spans"]) == ("other", [1], 2)
    assert (row["source.error"], "error" in row) == (None, False)


@given(st.data())
def test_after_any_number_of_breakdowns_the_file_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("resumed")
    texts = data.draw(st.lists(st.sampled_from(["1", "a 22?", "", "\ud800", "é 3", None]), max_size=12))
    source = write(folder / "in.jsonl", [{"text": text} for text in texts])
    extract(source, folder / "at once.jsonl")
    out = folder / "out.jsonl"
    asked: list[str] = []
    for breakdown in data.draw(st.lists(st.integers(0, 4), max_size=4)):
        finder = DigitFinder(ahead=data.draw(st.integers(1, 5)), texts=breakdown, failing="\0")
        try:
            extract(source, out, finder)
        except EngineError as error:
            assert "run the same command again" in str(error)  # noqa: PT017
        asked += finder.asked
        whole = out.read_bytes()
        # A row that was being written when the power went.
        out.write_bytes(whole + data.draw(st.sampled_from([b"", b'{"id": 3, "te', b"\xff"])))
    last = DigitFinder()
    extract(source, out, last)
    assert out.read_bytes() == (folder / "at once.jsonl").read_bytes()
    assert len(asked + last.asked) == sum(text is not None for text in texts)


def test_what_failed_is_asked_again_in_its_place(source: Path, out: Path) -> None:
    first = extract(source, out, DigitFinder(failing="number 1"))
    assert first.outcomes == {"ok": 9, "failed": 11}
    finder = DigitFinder(ahead=2)
    second = extract(source, out, finder)
    assert finder.asked == [row["text"] for row in rows(out) if row["text"].startswith("number 1")]
    assert (second.outcomes, second.kept) == ({"ok": 20}, 9)
    assert [row["id"] for row in rows(out)] == [f"d{n}" for n in range(20)]
    assert not any("error" in row for row in rows(out))
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.jsonl", "out.jsonl.meta.json"]


def test_asking_again_can_itself_be_stopped_and_gone_on_with(source: Path, out: Path) -> None:
    extract(source, out, DigitFinder(failing="number 1"))
    before = out.read_bytes()
    with pytest.raises(EngineError):
        extract(source, out, DigitFinder(texts=4))
    assert out.read_bytes() == before
    finder = DigitFinder()
    result = extract(source, out, finder)
    assert (len(finder.asked), result.kept, result.outcomes) == (7, 13, {"ok": 20})


def test_a_bad_line_that_was_mended_is_asked(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "1"}\n{"text: "2"}\n')
    extract(source, out)
    source.write_text('{"text": "1"}\n{"text": "2"}\n')
    finder = DigitFinder()
    assert extract(source, out, finder).bad_lines == 0
    assert finder.asked == ["2"]


def test_a_source_that_has_grown_is_gone_on_with(source: Path, out: Path) -> None:
    extract(source, out)
    with source.open("a") as file:
        file.write('{"text": "new 1"}\n')
    finder = DigitFinder()
    assert extract(source, out, finder).kept == 20
    assert finder.asked == ["new 1"]


def test_other_settings_are_refused_by_name(source: Path, out: Path) -> None:
    extract(source, out)
    with pytest.raises(DataError, match=r'format was "brackets" and is now "xml".*Choose another out'):
        extract(source, out, DigitFinder(format="xml"))
    meta = out.with_name("out.jsonl.meta.json")
    meta.unlink()
    with pytest.raises(DataError, match="does not tell of what settings"):
        extract(source, out)


def test_rows_of_other_settings_are_found_by_their_digest(source: Path, out: Path, tmp_path: Path) -> None:
    extract(source, out, DigitFinder(format="xml"))
    extract(source, tmp_path / "other.jsonl")
    (tmp_path / "other.jsonl.meta.json").replace(out.with_name("out.jsonl.meta.json"))
    with pytest.raises(DataError, match="line 1 of .*the settings changed"):
        extract(source, out)


def test_another_source_is_refused(source: Path, out: Path) -> None:
    extract(source, out)
    whole = source.read_text()
    source.write_text(whole.replace("number 7", "numeral 7"))
    with pytest.raises(DataError, match=r"line 8 of .*'text' changed.*Choose another out"):
        extract(source, out)
    source.write_text(whole.replace('"id": "d3"', '"id": "d03"'))
    with pytest.raises(DataError, match=r"line 4 of .*'id' changed"):
        extract(source, out)
    source.write_text("".join(whole.splitlines(keepends=True)[:5]))
    with pytest.raises(DataError, match="more documents than"):
        extract(source, out)
    out.write_text(out.read_text().replace('"outcome"', "'outcome'", 1))
    source.write_text(whole)
    with pytest.raises(DataError, match="line 1 is no document"):
        extract(source, out)


def test_files_that_cannot_be_read_or_written_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for place, words in [("nowhere.jsonl", "There is no file"), ("in.csv", "no format known")]:
        (tmp_path / "in.csv").write_text("text")
        with pytest.raises(DataError, match=words):
            extract(tmp_path / place, out)
    with pytest.raises(DataError, match=r"should end in \.jsonl"):
        extract(source, tmp_path / "out.csv")
    with pytest.raises(DataError, match="is the source itself"):
        extract(source, source)
    (tmp_path / "utf16.txt").write_text("one", encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        extract(tmp_path / "utf16.txt", out)
    (tmp_path / "half.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n" * 99)[:-9])
    with pytest.raises(DataError, match="cannot be unpacked"):
        extract(tmp_path / "half.txt.gz", tmp_path / "half.jsonl")


@pytest.mark.parametrize("redoing", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, redoing: bool) -> None:
    class Forgetful(DigitFinder):
        def extract(self, texts: Iterable[str]) -> Iterator[Document]:
            for document in super().extract(texts):
                self.asked.clear()
                yield document

    def peak(documents: int) -> int:
        source, out = tmp_path / f"{documents}.jsonl", tmp_path / f"{documents}.out.jsonl"
        # What fails stands at both ends, so that all rows between are copied while an answer is awaited.
        texts = ("bad" if n in (0, documents - 1) else "number 1 " + "word " * 300 for n in range(documents))
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        if redoing:
            extract(source, out, Forgetful(failing="bad"))
        tracemalloc.start()
        extract(source, out, Forgetful(), html=tmp_path / "page.html")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(20)
    # 300 documents more have 450 kB of text.
    assert peak(400) < peak(100) + 200_000


def test_the_command_passes_on_what_was_given(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    class FakeExtractor(DigitFinder):
        def __init__(self, *given: Any, **settings: Any) -> None:
            made.append((given, settings))
            super().__init__()

    monkeypatch.setattr("lightft.llm_ner.LLMNERExtractor", FakeExtractor)
    parser = ArgumentParser()
    command.add_arguments(parser)
    view = tmp_path / "view.html"
    given = ["--model", "adapter", "--labels", "PER", "LOC=a place = a spot", "--window", "100", "--html", str(view)]
    asked = parser.parse_args([str(source), *given])
    assert asked.run(asked) == 0
    assert made == [(("adapter", {"PER": "", "LOC": "a place = a spot"}), {"window": 100})]
    assert len(rows(tmp_path / "in.entities.jsonl")) == 20
    assert "20 documents" in capsys.readouterr().out
    assert "number <mark" in view.read_text(encoding="utf-8")
    asked = parser.parse_args(
        [str(source), "--model", "adapter", "--out", str(tmp_path / "o.jsonl"), "--format", "xml"]
    )
    asked.run(asked)
    assert made[1] == (("adapter", None), {"format": "xml"})


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    return write(tmp_path / "passages.jsonl", [{"id": n, "body": f"anna met bert in rome {n}"} for n in range(3)])


def test_the_command_asks_a_real_model_as_it_was_told(
    passages: Path, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_of_data = [
        {"tokens": ["anna", "saw", "rome", str(n)], "ner_tags": ["B-PER", "O", "B-LOC", "O"]} for n in range(24)
    ]
    write_splits(tmp_path / "conll", rows_of_data)
    given = ["--model", str(tiny_llama), "--labels", "PER=a person", "LOC", "--text-field", "body", "--window", "60"]
    prompt = ["--format", "xml", "--prompt", "{types} {examples} {text}", "--examples", str(tmp_path / "conll")]
    assert main(["extract", str(passages), *given, *prompt, "--html", str(tmp_path / "view.html")]) == 0
    out = tmp_path / "passages.entities.jsonl"
    assert [(row["text"], row["outcome"]) for row in rows(out)] == [
        (f"anna met bert in rome {n}", "ok") for n in range(3)
    ]
    settings = json.loads(out.with_name(f"{out.name}.meta.json").read_text())["settings"]
    assert settings["definitions"] == {"PER": "a person"}
    assert (settings["format"], settings["prompt"], settings["shots"]) == ("xml", "{types} {examples} {text}", 3)
    assert len(settings["examples_digest"]) == 16
    assert (settings["window"], settings["decoding"]) == (60, "constrained")
    assert "3 documents (3 ok)" in capsys.readouterr().out
    assert "anna" in (tmp_path / "view.html").read_text(encoding="utf-8")


def test_the_command_asks_with_what_was_saved_and_keeps_a_precision(
    passages: Path, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(tiny_llama, folder)
    spans = [Span(0, 4, "PER", score=0.9), Span(5, 8, "PER", score=0.1)]
    calibration = Calibration.fit([Prediction(str(n), (spans[0],), tuple(spans)) for n in range(200)])
    SavedSettings(Prompt("{types} {text}", ["PER", "LOC"]), calibration).write(folder)
    given = ["--model", str(folder), "--text-field", "body", "--minimum-precision", "0.9"]
    assert main(["extract", str(passages), *given]) == 0
    out = tmp_path / "passages.entities.jsonl"
    settings = json.loads(out.with_name(f"{out.name}.meta.json").read_text())["settings"]
    assert (settings["minimum_precision"], settings["prompt"]) == (0.9, "{types} {text}")
    assert len(settings["calibration_digest"]) == 16
    assert "3 documents (3 ok)" in capsys.readouterr().out


def test_the_command_asks_a_server_and_limits_its_answers(
    passages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai")

    def answering(asked: Asked) -> Reply:
        return saying(asked.question.split("\n")[-1].replace("anna", "[anna](PER)"))

    with ChatServer(answering) as server:
        given = ["--server", server.base_url, "--model", "tiny", "--labels", "PER", "--text-field", "body"]
        assert main(["extract", str(passages), *given, "--max-new-tokens", "77"]) == 0
    assert [asked.body["max_tokens"] for asked in server.asked] == [77] * 3
    out = tmp_path / "passages.entities.jsonl"
    assert [[span["text"] for span in row["spans"]] for row in rows(out)] == [["anna"]] * 3
    capsys.readouterr()


def test_the_command_limits_the_answers_of_a_model_here(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class FakeExtractor(DigitFinder):
        def __init__(self, *given: Any, **settings: Any) -> None:
            made.append(settings)
            super().__init__()

    monkeypatch.setattr("lightft.llm_ner.LLMNERExtractor", FakeExtractor)
    assert main(["extract", str(source), "--model", "adapter", "--max-new-tokens", "77"]) == 0
    assert made == [{"max_new_tokens": 77}]


def test_doubtful_entities_are_written_beside_the_others(tmp_path: Path) -> None:
    class Doubter(DigitFinder):
        def extract(self, texts: Iterable[str]) -> Iterator[Document]:
            for document in super().extract(texts):
                yield replace(document, spans=document.spans[:1], doubtful=document.spans[1:])

    source = tmp_path / "in.txt"
    source.write_text("1 and 22\n3\n")
    result = extract_file(Doubter(), source, tmp_path / "out.jsonl", progress=False)
    assert (result.spans, result.doubtful) == (2, 1)
    assert "2 entities, 1 doubtful entities" in str(result)
    first, second = rows(tmp_path / "out.jsonl")
    assert [span["text"] for span in first["spans"]] == ["1"]
    assert [span["text"] for span in first["doubtful"]] == ["22"]
    assert "doubtful" not in second
