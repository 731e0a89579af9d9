"""Questions are answered by a server over HTTP, in order and each for itself, whatever the server does."""

from __future__ import annotations

import gc
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightft.errors import EngineError, InvalidSettingError, MissingExtraError
from lightft.llm_ner import FORMATS, Answer, Question
from lightft.llm_ner.engines.chat_response import error_message, read_answer
from lightft.records import Message, Span
from tests.chat_server import Asked, ChatServer, Reply, refusing, saying

pytest.importorskip("openai")
from lightft.llm_ner.engines.server import OpenAIServer

KEY = "sk-very-secret-0123456789"


def question(text: str) -> Question:
    return Question(text, (Message("system", "You find names."), Message("user", text)))


def numbered(count: int) -> Iterator[Question]:
    return (question(f"text {number}") for number in range(count))


def ask(engine: OpenAIServer, questions: Iterable[Question]) -> list[Answer]:
    return list(engine.answers(questions, labels=["PER"], format="brackets"))


def until_error(engine: OpenAIServer, questions: Iterable[Question]) -> tuple[list[Answer], EngineError]:
    answers: list[Answer] = []
    try:
        answers.extend(engine.answers(questions, labels=["PER"], format="brackets"))
    except EngineError as error:
        return answers, error
    raise AssertionError("all questions were answered")


def echo(asked: Asked) -> Reply:
    return saying(f"answer to {asked.question}")


def threads_of_engines() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lightft requests"]


# --- what is asked


def test_a_request_holds_the_conversation_and_asks_for_the_likeliest_words() -> None:
    with ChatServer(echo) as server:
        (answer,) = ask(OpenAIServer(server.base_url, "tiny", api_key=KEY), [question("a" * 10)])
    assert answer == Answer("answer to aaaaaaaaaa")
    (asked,) = server.asked
    assert (asked.path, asked.key) == ("/v1/chat/completions", KEY)
    assert asked.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "You find names."}, {"role": "user", "content": "a" * 10}],
        "temperature": 0,
        "max_tokens": 64 + 15 + len("[](PER)") // 2,
        "logprobs": True,
    }


@pytest.mark.parametrize("format", ["brackets", "xml", "categories", "objects"])
def test_the_limit_is_enough_for_an_answer_in_which_every_word_is_an_entity(format: str) -> None:
    names = [f"Name{number}" for number in range(48)]
    text, labels = " ".join(names), ["PER", "ORGANIZATION"]
    spans = [Span(text.index(name), text.index(name) + len(name), "ORGANIZATION") for name in names]
    with ChatServer(echo) as server:
        list(OpenAIServer(server.base_url, "tiny").answers([question(text)], labels=labels, format=format))
    # A piece of each run of letters, each digit and each run of signs: more than most tokenizers need.
    pieces = re.findall(r"[a-zA-Z]{1,4}|\d| ?[^\w\s]{1,3}|\s", FORMATS[format].write(text, spans)[0])
    assert server.asked[0].body["max_tokens"] > len(pieces)


def test_options_add_change_and_leave_out_fields() -> None:
    options = {"temperature": 0.5, "seed": 1, "max_tokens": None, "max_completion_tokens": 9, "top_k": 3}
    with ChatServer(echo) as server:
        ask(OpenAIServer(server.base_url, "tiny", log_probabilities=False, options=options), numbered(1))
        ask(OpenAIServer(server.base_url + "/", "tiny", max_new_tokens=7), numbered(1))
    first, second = ({**asked.body, "messages": 0, "model": 0} for asked in server.asked)
    assert first == {
        "messages": 0,
        "model": 0,
        "temperature": 0.5,
        "seed": 1,
        "max_completion_tokens": 9,
        "top_k": 3,
    }
    assert second == {"messages": 0, "model": 0, "temperature": 0, "max_tokens": 7, "logprobs": True}
    assert server.asked[1].path == "/v1/chat/completions"


def test_the_key_comes_from_the_argument_then_the_environment_then_is_a_placeholder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ChatServer(echo) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
        ask(OpenAIServer(server.base_url, "tiny", api_key=f" {KEY}\n"), numbered(1))
        ask(OpenAIServer(server.base_url, "tiny"), numbered(1))
        monkeypatch.delenv("OPENAI_API_KEY")
        ask(OpenAIServer(server.base_url, "tiny"), numbered(1))
    assert [asked.key for asked in server.asked] == [KEY, "from-environment", "no-api-key"]


def test_settings_are_plain_data_that_name_the_server() -> None:
    engine = OpenAIServer("http://localhost:1/v1/", "tiny", options={"seed": 1})
    assert engine.model_name == "tiny"
    assert json.loads(json.dumps(engine.settings())) == {
        "engine": "server",
        "base_url": "http://localhost:1/v1",
        "max_new_tokens": None,
        "log_probabilities": True,
        "options": {"temperature": 0, "seed": 1},
    }
    assert repr(engine) == "OpenAIServer('http://localhost:1/v1', 'tiny')"


# --- order, and how many at once


def test_answers_keep_the_order_of_the_questions_and_no_more_than_allowed_are_asked_at_once() -> None:
    chance = random.Random(3)
    waits = [chance.uniform(0, 0.03) for _ in range(60)]

    def late(asked: Asked) -> Reply:
        return saying(f"answer to {asked.question}", seconds=waits[asked.number])

    with ChatServer(late) as server:
        answers = ask(OpenAIServer(server.base_url, "tiny", concurrency=5), numbered(60))
    assert [answer.text for answer in answers] == [f"answer to text {number}" for number in range(60)]
    assert server.most_at_once == 5


def test_questions_are_read_a_bounded_number_ahead() -> None:
    read: list[int] = []

    def questions() -> Iterator[Question]:
        for number in range(1000):
            read.append(number)
            yield question(f"text {number}")

    with ChatServer(echo) as server:
        answers = OpenAIServer(server.base_url, "tiny", concurrency=2).answers(questions(), labels=(), format="xml")
        assert not read
        for number in range(20):
            assert next(answers).text == f"answer to text {number}"
            assert len(read) <= number + 1 + 4 * 2
        answers.close()


def test_an_answer_that_is_there_is_given_before_more_questions_are_read() -> None:
    def questions() -> Iterator[Question]:
        yield question("first")
        deadline = time.monotonic() + 20
        while not server.asked and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        yield question("second")
        raise AssertionError("a third question was read")

    with ChatServer(echo) as server:
        answers = OpenAIServer(server.base_url, "tiny").answers(questions(), labels=(), format="xml")
        assert next(answers).text == "answer to first"
        answers.close()


def test_a_consumer_that_stops_early_leaves_nothing_running() -> None:
    def slow_after_the_first(asked: Asked) -> Reply:
        return saying("yes", seconds=0 if asked.question == "text 0" else 30)

    with ChatServer(slow_after_the_first) as server:
        answers = OpenAIServer(server.base_url, "tiny", concurrency=3).answers(numbered(100), labels=(), format="xml")
        assert next(answers).text == "yes"
        assert threads_of_engines()
        started = time.monotonic()
        answers.close()
        assert time.monotonic() - started < 5
        assert not threads_of_engines()
    assert len(server.asked) <= 1 + 3


def test_stopping_while_connections_are_made_is_silent() -> None:
    with ChatServer(echo) as server:
        for number in range(6):
            engine = OpenAIServer(server.base_url, "tiny", concurrency=number + 1)
            answers = engine.answers(numbered(4 * engine.concurrency), labels=(), format="xml")
            next(answers)
            answers.close()
    gc.collect()


def test_an_engine_can_be_asked_again_and_within_a_running_event_loop() -> None:
    import asyncio

    async def within_a_loop(engine: OpenAIServer) -> list[Answer]:
        return ask(engine, numbered(3))

    with ChatServer(echo) as server:
        engine = OpenAIServer(server.base_url, "tiny")
        assert len(ask(engine, numbered(3))) == len(asyncio.run(within_a_loop(engine))) == 3
        assert ask(engine, []) == []
    assert not threads_of_engines()


def test_an_error_of_whoever_gives_the_questions_passes_through() -> None:
    def questions() -> Iterator[Question]:
        yield question("first")
        raise KeyError("the file is broken")

    with ChatServer(echo) as server, pytest.raises(KeyError, match="broken"):
        ask(OpenAIServer(server.base_url, "tiny"), questions())
    assert not threads_of_engines()


# --- failures that pass


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_passing_failure_is_tried_again(status: int) -> None:
    tries: dict[str, int] = {}

    def third_time_lucky(asked: Asked) -> Reply:
        tries[asked.question] = tries.get(asked.question, 0) + 1
        return echo(asked) if tries[asked.question] == 3 else refusing(status)

    with ChatServer(third_time_lucky) as server:
        answers = ask(OpenAIServer(server.base_url, "tiny", retries=2, concurrency=2), numbered(5))
    assert [answer.text for answer in answers] == [f"answer to text {number}" for number in range(5)]
    assert len(server.asked) == 15
    assert server.most_at_once <= 2


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refusing(500, "out of memory"), r"status 500: out of memory"),
        (refusing(400, "the prompt is too long"), r"status 400: the prompt is too long"),
        (Reply(b'{"detail": "seed is no field"}', status=422), r"status 422: seed is no field"),
        (Reply(b"<html>\n <b>gone</b>", status=418), r"status 418: <html> <b>gone</b>"),
        (refusing(429), "no connection|takes no more questions"),
        (saying("never", cut=True, headers={"Retry-After": "0.01"}), "no connection"),
        (Reply(b"hello"), "not JSON"),
        (Reply(b""), "not JSON"),
        (Reply(b"[" * 100_000), "not JSON"),
        (Reply(b'{"choices": []}'), "no choices"),
        (Reply(b'{"error": {"message": "later"}}'), "no choices"),
        (Reply(b'{"choices": [{"message": {"content": 7}}]}'), "int, not text"),
        (Reply(b"{}", headers={"Content-Encoding": "gzip"}), "no connection|read"),
        (Reply(b"no", status=400, headers={"Content-Type": "text/plain; charset=rot13"}), "read|status 400"),
        (Reply(b"", status=302, headers={"Location": "/v1/nowhere"}), "."),
    ],
)
def test_one_bad_question_never_loses_the_others(reply: Reply, error: str) -> None:
    def bad_at_two(asked: Asked) -> Reply:
        return reply if asked.question == "text 2" else echo(asked)

    with ChatServer(bad_at_two) as server:
        answers = ask(OpenAIServer(server.base_url, "tiny", retries=0, log_probabilities=False), numbered(5))
    assert [answer.text for answer in answers] == [
        "" if number == 2 else f"answer to text {number}" for number in range(5)
    ]
    assert [bool(answer.error) for answer in answers] == [False, False, True, False, False]
    (said,) = [answer.error for answer in answers if answer.error]
    assert re.search(error, said), said


@pytest.mark.parametrize("drips", [False, True])
def test_a_request_ends_in_time_even_if_the_server_sends_a_letter_now_and_then(drips: bool) -> None:
    slow = saying("late", seconds_per_byte=0.05) if drips else saying("late", seconds=30)

    def slow_at_one(asked: Asked) -> Reply:
        return slow if asked.question == "text 1" else echo(asked)

    with ChatServer(slow_at_one) as server:
        answers = ask(OpenAIServer(server.base_url, "tiny", timeout=0.4, retries=1), numbered(7))
    assert [answer.error for answer in answers if answer.error] == [
        "The server took more than 0.4 seconds, in 2 tries."
    ]
    assert not answers[1].text
    assert sum(asked.question == "text 1" for asked in server.asked) == 2


def test_a_text_that_no_request_can_hold_is_asked_with_a_replacement() -> None:
    with ChatServer(echo) as server:
        (answer,) = ask(OpenAIServer(server.base_url, "tiny"), [question("half \ud800 a pair")])
    assert answer.text == "answer to half \ufffd a pair"


# --- a server that is gone


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


@pytest.mark.parametrize("count", [1, 50])
def test_a_server_that_does_not_run_is_an_error_that_says_what_to_do(count: int) -> None:
    engine = OpenAIServer(f"http://127.0.0.1:{free_port()}/v1", "tiny", retries=0)
    with pytest.raises(EngineError, match=r"no connection to http://127.*See that the server runs"):
        ask(engine, numbered(count))
    assert not threads_of_engines()


def test_answers_before_the_server_died_are_given_first_and_none_after() -> None:
    def dying(asked: Asked) -> Reply:
        return Reply(die=True) if asked.number == 6 else echo(asked)

    with ChatServer(dying) as server:
        engine = OpenAIServer(server.base_url, "tiny", retries=0, concurrency=1)
        answers, error = until_error(engine, numbered(40))
    assert "no connection" in str(error)
    assert answers == [Answer(f"answer to text {number}") for number in range(6)]


def test_a_server_that_comes_back_loses_only_what_it_did_not_answer() -> None:
    def away_for_four(asked: Asked) -> Reply:
        return refusing(503, "loading") if 3 <= asked.number < 7 else echo(asked)

    with ChatServer(away_for_four) as server:
        engine = OpenAIServer(server.base_url, "tiny", retries=0, concurrency=1)
        answers = ask(engine, numbered(10))
    assert [bool(answer.error) for answer in answers] == [False] * 3 + [True] * 4 + [False] * 3


def test_the_last_questions_have_errors_if_earlier_ones_were_answered() -> None:
    def at_the_end(asked: Asked) -> Reply:
        return refusing(429, "quota") if asked.question in {"text 8", "text 9"} else echo(asked)

    with ChatServer(at_the_end) as server:
        answers = ask(OpenAIServer(server.base_url, "tiny", retries=1), numbered(10))
    assert [answer.error for answer in answers[:8]] == [""] * 8
    assert all("status 429: quota" in answer.error and "in 2 tries" in answer.error for answer in answers[8:])


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "refuses the API key"), (403, "refuses the API key"), (404, r"no model 'tiny'.*/models lists")],
)
def test_a_refusal_of_key_or_model_raises_at_once_after_the_answers_before_it(status: int, says: str) -> None:
    def refused_from_four(asked: Asked) -> Reply:
        if asked.question == "text 4":
            return refusing(status, f"your key {KEY} and this model are wrong")
        return saying(asked.question, seconds=0.1)

    with ChatServer(refused_from_four) as server:
        answers, error = until_error(OpenAIServer(server.base_url, "tiny", api_key=KEY), numbered(100))
    assert re.search(says, str(error))
    assert [answer.text for answer in answers] == [f"text {number}" for number in range(4)]
    assert sum(asked.question == "text 4" for asked in server.asked) == 1
    assert "your key *** and" in str(error)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_the_key_is_shown_nowhere(status: int) -> None:
    import traceback

    with ChatServer(lambda asked: refusing(status, "x" * 190 + asked.key)) as server:
        engine = OpenAIServer(server.base_url, "tiny", api_key=KEY, retries=0)
        try:
            shown = str(ask(engine, numbered(8)))
        except EngineError as error:
            shown = "".join(traceback.format_exception(error))
    shown += repr(engine) + str(engine.settings())
    assert "sk-very" not in shown


# --- answers


def test_an_answer_without_text_is_an_empty_answer_and_a_cut_one_is_passed_on() -> None:
    replies = [saying(None), saying(""), saying("[Anna](PE", finish_reason="length")]
    with ChatServer(lambda asked: replies[int(asked.question[-1])]) as server:
        answers = ask(OpenAIServer(server.base_url, "tiny"), numbered(3))
    assert answers == [Answer(""), Answer(""), Answer("[Anna](PE", cut=True)]


def logprobs(*tokens: tuple[str | list[int], float]) -> dict[str, Any]:
    """Return log-probabilities as servers write them; a token that is no text of its own is given by its bytes."""
    return {
        "content": [
            {"token": token, "logprob": log_probability, "bytes": list(token.encode()), "top_logprobs": []}
            if isinstance(token, str)
            else {"token": "\ufffd", "logprob": log_probability, "bytes": token, "top_logprobs": []}
            for token, log_probability in tokens
        ]
    }


@pytest.mark.parametrize(
    ("text", "told", "pieces"),
    [
        ("ab c", logprobs(("ab", -0.5), (" c", -0.25)), (("ab", -0.5), (" c", -0.25))),
        ("ab", logprobs(("ab", -0.5), ("<|im_end|>", -0.1)), (("ab", -0.5),)),
        ("ab", logprobs(("ab", -9.0), ("</think>", -1.0), (" ab", -0.5), ("", -0.1)), (("ab", -0.5),)),
        ("aé", logprobs(("a", -0.5), ([0xC3], -0.25), ([0xA9], -1.0)), (("a", -0.5), ("é", -1.25))),
        ("ab", {"content": [{"token": "ab", "logprob": -1}]}, (("ab", -1.0),)),
        ("other", logprobs(("ab", -0.5)), ()),
        ("", logprobs(("<|im_end|>", -0.1)), ()),
        ("ab", {"content": [{"token": "ab", "logprob": None}]}, ()),
        ("ab", {"content": [{"token": "ab", "logprob": float("nan")}]}, ()),
        ("ab", {"content": [{"token": "ab", "logprob": -(10**400)}]}, ()),
        ("ab", {"content": [{"token": "ab", "logprob": -1, "bytes": [97, 1000]}]}, (("ab", -1.0),)),
        ("ab", {"content": ["ab"]}, ()),
        ("ab", {"content": None}, ()),
        ("ab", [1], ()),
        ("ab", None, ()),
    ],
)
def test_pieces_are_the_tokens_that_make_up_the_answer(
    text: str, told: Any, pieces: tuple[tuple[str, float], ...]
) -> None:
    with ChatServer(lambda asked: saying(text, logprobs=told)) as server:
        (answer,) = ask(OpenAIServer(server.base_url, "tiny"), numbered(1))
    assert answer == Answer(text, pieces=pieces)


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_log_probabilities_is_asked_without_and_that_is_said_once(status: int) -> None:
    def without_logprobs(asked: Asked) -> Reply:
        return refusing(status, "logprobs is not supported") if "logprobs" in asked.body else echo(asked)

    with ChatServer(without_logprobs) as server:
        engine = OpenAIServer(server.base_url, "tiny", concurrency=4)
        with pytest.warns(UserWarning, match="no log-probabilities") as warned:
            answers = ask(engine, numbered(40))
        assert len(warned) == 1
        assert [answer.text for answer in answers] == [f"answer to text {number}" for number in range(40)]
        assert 40 < len(server.asked) <= 40 + 4
        ask(engine, numbered(3))
    assert all("logprobs" not in asked.body for asked in server.asked[-3:])


def test_a_question_that_is_refused_either_way_does_not_end_the_log_probabilities() -> None:
    def refuses_one(asked: Asked) -> Reply:
        return refusing(400, f"{asked.body}") if asked.question == "text 1" else echo(asked)

    with ChatServer(refuses_one) as server:
        answers = ask(OpenAIServer(server.base_url, "tiny", concurrency=1), numbered(4))
    assert [bool(answer.error) for answer in answers] == [False, True, False, False]
    assert "logprobs" in server.asked[-1].body


def test_an_answer_can_always_be_written_to_a_file() -> None:
    answer = read_answer(b'{"choices": [{"message": {"content": "half \\ud800 a pair, \\ud83d\\ude00"}}]}')
    assert answer.text == "half \ufffd a pair, 😀"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "logprobs", "token", "logprob", "bytes", "error", "detail", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
TOKENS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"token": st.text(max_size=3) | JSON, "logprob": st.floats() | JSON, "bytes": JSON}
    ),
    max_size=4,
)
NEARLY = st.builds(
    lambda content, tokens: {"choices": [{"message": {"content": content}, "logprobs": {"content": tokens}}]},
    st.text(max_size=5) | JSON,
    TOKENS | JSON,
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=50) | (JSON | NEARLY).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_answer_or_an_error(body: bytes) -> None:
    answer = read_answer(body)
    assert not (answer.text and answer.error)
    assert "".join(written for written, _ in answer.pieces) in ("", answer.text)
    assert all(written and log_probability <= 0 for written, log_probability in answer.pieces)
    answer.text.encode()
    error_message(body).encode()


def test_a_server_that_talks_nonsense_still_gets_every_question_asked() -> None:
    chance = random.Random(5)

    def nonsense(asked: Asked) -> Reply:
        status = chance.choice([200, 200, 204, 400, 500])
        return Reply(b"" if status == 204 else chance.randbytes(chance.randrange(30)), status=status)

    with ChatServer(nonsense) as server:
        answers = ask(OpenAIServer(server.base_url, "tiny", retries=0), numbered(100))
    assert len(answers) == len(server.asked) == 100
    assert all(answer.error for answer in answers)


# --- settings that are no settings


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({"base_url": "localhost:8000"}, "no web address"),
        ({"base_url": "http://[::1/v1"}, "no web address"),
        ({"base_url": "http://host:port/v1"}, "no web address"),
        ({"base_url": "me:secret@host"}, "Give a secret as api_key"),
        ({"base_url": "http://me:secret@host/v1"}, "Give a secret as api_key"),
        ({"base_url": "http://host/v1?key=secret"}, "Give a secret as api_key"),
        ({"api_key": "sécret"}, "characters that no key has"),
        ({"api_key": "sec\nret"}, "characters that no key has"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"retries": -1}, "retries=-1"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"max_new_tokens": -5}, "max_new_tokens=-5"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"options": {"stream": True}}, "'stream'"),
        ({"options": {"stop": {1, 2}}}, "cannot be sent as JSON"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_without_telling_a_secret(
    given_settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidSettingError, match=says) as caught:
        OpenAIServer(**{"base_url": "http://localhost/v1", "model": "tiny", **given_settings})
    assert "sec" not in str(caught.value).replace("secret as", "").replace("seconds", "")


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lightft\[llm\]'"):
        OpenAIServer("http://localhost/v1", "tiny")


# --- somebody else's server


@pytest.fixture
def transformers_serve(tiny_llama: Path) -> Iterator[str]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("there is no command transformers")
    port = free_port()
    command = [program, "serve", str(tiny_llama), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tiny_llama.parent / "serve.log"
    with log.open("wb") as writing, subprocess.Popen(command, stdout=writing, stderr=writing) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_transformers_serve_writes_what_the_model_itself_writes(transformers_serve: str, tiny_llama: Path) -> None:
    import lightft

    writer = lightft.load(tiny_llama)
    texts = ["anna met bert", "the film was bad", "rome"]
    engine = OpenAIServer(transformers_serve, str(tiny_llama), max_new_tokens=8, concurrency=2)
    answers = ask(engine, [Question(text, (Message("user", text),)) for text in texts])
    assert [answer.error for answer in answers] == [""] * 3
    # The writer strips what it wrote.
    assert [answer.text.strip() for answer in answers] == [
        writer.generate([Message("user", text)], max_new_tokens=8) for text in texts
    ]
