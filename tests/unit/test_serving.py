"""The service's contract: what it answers, what it refuses, and that no refusal repeats what was sent."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lightft.errors import InvalidSettingError, ModelLoadError
from lightft.records import Classified, Span
from lightft.serving import ServedModels, ServeSettings, create_app
from lightft.serving.models import ServedBase
from tests.asgi_client import Reply, call, send
from tests.served_stubs import Held, facts, models, tag

CANARY = "zebra-canary-7391"
KEY = "a-key-of-some-length"


@pytest.fixture
def app() -> Any:
    return create_app(models())


def predict(app: Any, body: Any, headers: dict[str, str] | None = None) -> Reply:
    return call(app, "POST", "/predict", body, headers)


def assert_refused(reply: Reply, status: int, *words: str) -> None:
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    details = reply.json()["detail"]
    assert details
    for detail in details:
        assert set(detail) == {"loc", "msg", "type"}
    for word in words:
        assert word in reply.body.decode()


# --- what is answered


def test_one_text_is_answered_with_its_entities(app: Any) -> None:
    reply = predict(app, {"text": "we saw Anna"})
    assert reply.status == 200
    assert reply.json() == {
        "model": "tagger",
        "entities": [{"text": "Anna", "label": "NAME", "start": 7, "end": 11, "score": 0.5}],
    }


def test_a_field_that_is_null_is_one_that_is_not_there(app: Any) -> None:
    assert predict(app, {"text": "a", "texts": None, "model": None}).status == 200


def test_a_list_is_answered_in_its_order(app: Any) -> None:
    texts = ["Anna", "nobody", "saw Bert", ""]
    results = predict(app, {"texts": texts}).json()["results"]
    assert [[entity["text"] for entity in result["entities"]] for result in results] == [["Anna"], [], ["Bert"], []]


def test_offsets_count_characters_not_bytes(app: Any) -> None:
    text = "😀 über Ärger"
    [entity] = predict(app, {"text": text}).json()["entities"]
    assert (entity["text"], text[entity["start"] : entity["end"]]) == ("Ärger", "Ärger")


def test_a_class_comes_with_the_probabilities_of_all() -> None:
    app = create_app(models(mood=lambda text: Classified("good", 0.75, {"bad": 0.25, "good": 0.75})))
    assert predict(app, {"text": "fine"}).json() == {
        "model": "mood",
        "label": "good",
        "score": 0.75,
        "probabilities": {"bad": 0.25, "good": 0.75},
    }


def test_the_model_is_chosen_per_request() -> None:
    app = create_app(models(first=tag, second=lambda text: []))
    assert predict(app, {"text": "Anna"}).json()["model"] == "first"
    assert predict(app, {"text": "Anna", "model": "second"}).json() == {"model": "second", "entities": []}


def test_facts_of_the_service_and_its_models(app: Any) -> None:
    root = call(app, "GET", "/").json()
    assert (root["name"], root["default_model"]) == ("lightft", "tagger")
    assert root["models"] == call(app, "GET", "/models").json()["models"]
    assert root["models"] == [
        {
            "name": "tagger",
            "task": "token-classification",
            "labels": ["NAME"],
            "base": "a/base",
            "adapter": "lora",
            "parameters": 10,
            "max_length": 64,
            "runtime": "torch",
            "precision": "float32",
        }
    ]


def test_readiness_follows_the_state_and_life_does_not(app: Any) -> None:
    assert call(app, "GET", "/ready").json() == {"status": "ready"}
    app.state.service.stop()
    reply = call(app, "GET", "/ready")
    assert (reply.status, reply.json()) == (503, {"status": "stopping"})
    assert call(app, "GET", "/health").json() == {"status": "alive"}
    assert_refused(predict(app, {"text": "Anna"}), 503, "stopping")


def test_starting_warms_every_model_up() -> None:
    read: list[str] = []
    app = create_app(models(tagger=lambda text: read.append(text) or []))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            assert app.state.service.status == "ready"

    asyncio.run(start())
    assert read
    assert app.state.service.status == "stopping"


def fail(text: str) -> list[Span]:
    raise ZeroDivisionError(f"cannot read {text}")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (fail, "ZeroDivisionError"),
        (lambda text: Classified("good", math.nan, {"good": math.nan}), "its scores are no finite numbers"),
        (lambda text: [Span(0, 1, "NAME", score=math.nan)], "its scores are no finite numbers"),
    ],
)
def test_a_model_that_opens_but_cannot_compute_is_refused_at_the_start(answer: Any, why: str) -> None:
    app = create_app(models(first=tag, second=answer))
    with pytest.raises(ModelLoadError, match="'second' opens, but cannot compute") as refused:
        asyncio.run(app.state.service.start())
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    assert app.state.service.status == "starting"


def test_there_is_no_service_of_no_model() -> None:
    with pytest.raises(InvalidSettingError, match="no model to serve"):
        ServedModels.of()


def test_a_mounted_service_has_its_limits_and_is_started_by_the_outer_application() -> None:
    inner = create_app(models(), ServeSettings(api_key=KEY, max_body_bytes=100))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/api", inner)

    async def ask() -> None:
        async with outer.router.lifespan_context(outer):
            key = {"x-api-key": KEY}
            assert (await send(outer, "GET", "/api/health")).status == 200
            assert_refused(await send(outer, "GET", "/api/models"), 401)
            assert (await send(outer, "POST", "/api/predict", {"text": "Anna"}, key)).json()["model"] == "tagger"
            assert_refused(await send(outer, "POST", "/api/predict", {"text": "a" * 100}, key), 413)
            assert_refused(
                await send(outer, "POST", "/api/predict", {"text": "a"}, key | {"content-type": "text/plain"}), 415
            )
            page = (await send(outer, "GET", "/api/metrics", headers=key)).body.decode()
            assert 'lightft_requests_total{route="/predict",status="200"} 1.0' in page

    asyncio.run(ask())
    assert inner.state.service.status == "stopping"


def test_metrics_count_requests_refusals_and_batches(app: Any) -> None:
    predict(app, {"texts": ["Anna", "Bert"]})
    predict(app, b"{")
    call(app, "GET", f"/{CANARY}")
    page = call(app, "GET", "/metrics").body.decode()
    assert 'lightft_requests_total{route="/predict",status="200"} 1.0' in page
    assert 'lightft_refusals_total{reason="json_invalid"} 1.0' in page
    assert 'lightft_requests_total{route="unknown",status="404"} 1.0' in page
    assert "lightft_texts_total 2.0" in page
    assert "lightft_batch_texts_count 1.0" in page
    assert "lightft_queue_texts 0.0" in page
    assert CANARY not in page


def test_the_description_names_every_route_and_what_it_takes(app: Any) -> None:
    described = call(app, "GET", "/openapi.json").json()
    assert set(described["paths"]) == {"/", "/health", "/ready", "/models", "/metrics", "/predict", "/generate"}
    shapes = described["components"]["schemas"]
    assert set(shapes["PredictRequest"]["properties"]) == {"text", "texts", "model"}
    for reference in references(described):
        assert reference.removeprefix("#/components/schemas/") in shapes


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


def test_the_pages_need_nothing_from_elsewhere(app: Any) -> None:
    for path in ("/docs", "/demo", "/demo/demo.js", "/demo/demo.css"):
        reply = call(app, "GET", path)
        assert reply.status == 200
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert b"https://" not in reply.body
    assert b"POST /predict" in call(app, "GET", "/docs").body


# --- the key


def test_every_route_but_life_and_the_demo_asks_for_the_key() -> None:
    app = create_app(models(), ServeSettings(api_key=KEY))
    paths = {route.path for route in app.routes} | {"/nothing-here"}
    open_paths = {"/health", "/demo", "/demo/demo.js", "/demo/demo.css"}
    assert open_paths < paths
    assert "/openapi.json" in paths
    for path in paths:
        for method in ("GET", "POST", "DELETE"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": KEY + "x"}, {"authorization": KEY}):
                refused = call(app, method, path, {"text": "a"}, headers)
                assert (refused.status == 401) == (path not in open_paths), (method, path)
    assert_refused(call(app, "GET", "/models"), 401, "X-API-Key")


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}, {"x-api-key": KEY}]
)
def test_the_key_opens(headers: dict[str, str]) -> None:
    app = create_app(models(), ServeSettings(api_key=KEY))
    assert predict(app, {"text": "Anna"}, headers).status == 200
    assert call(app, "GET", "/docs", headers=headers).status == 200


@pytest.mark.parametrize("key", ["", " ", " abc", "abc ", "schlüssel", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(InvalidSettingError, match="API key"):
        ServeSettings(api_key=key)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["stop_seconds", "generation_seconds", "max_texts"])
def test_a_limit_is_a_finite_number_above_0(name: str, value: Any) -> None:
    with pytest.raises(InvalidSettingError, match=f"{name} is {value}. Give a finite number above 0."):
        ServeSettings(**{name: value})


def test_the_key_is_in_no_text_of_the_settings() -> None:
    assert KEY not in repr(ServeSettings(api_key=KEY))


# --- what is refused, and how


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "Invalid JSON"),
        (b"{", 400, "Invalid JSON"),
        (b"\xff\xfe", 400, "Invalid JSON"),
        (b'{"text": NaN}', 422, "string"),
        (b'{"text": "a\x01b"}', 400, "Invalid JSON"),
        (b'{"text": "\\ud800"}', 400, "Invalid JSON"),
        (b'{"text": "\\udc00\\ud800"}', 400, "Invalid JSON"),
        (b"[" * 100_000, 400, "Invalid JSON"),
        (b"null", 422, "object"),
        (b'"text"', 422, "object"),
        (b"{}", 422, "exactly one"),
        (b'{"text": "a", "texts": ["b"]}', 422, "exactly one"),
        (b'{"text": 3}', 422, "string"),
        (b'{"texts": "a"}', 422, "list"),
        (b'{"texts": []}', 422, "at least 1"),
        (b'{"text": null, "texts": null}', 422, "exactly one"),
        (b'{"texts": ["a", null]}', 422, "string"),
        (b'{"text": "a", "model": 1}', 422, "string"),
        (b'{"txt": "a"}', 422, "Known: text, texts, model"),
        (json.dumps({"text": "a", "model": "m" * 101}).encode(), 422, "100 characters"),
        (b'{"text": "a\\u0000b"}', 422, "Character 1"),
        (b'{"text": "a\\u001bb"}', 422, "U+001B"),
        (b'{"text": "a", "model": "other"}', 404, "Known: tagger"),
        (json.dumps({"texts": ["a"] * 65}).encode(), 413, "64"),
        (json.dumps({"text": "a" * 100_001}).encode(), 413, "100,000"),
        (b" " * 1_000_001, 413, "1,000,000"),
    ],
)
def test_bad_bodies_are_refused_with_what_is_wrong(app: Any, body: bytes, status: int, word: str) -> None:
    assert_refused(predict(app, body), status, word)


def test_the_limits_themselves_are_within(app: Any) -> None:
    assert predict(app, {"texts": ["a"] * 64}).status == 200
    assert predict(app, {"text": "a" * 100_000}).status == 200
    assert predict(app, b'{"text":"a"}' + b" " * 999_988).status == 200
    assert predict(app, {"text": "tab\tline\nreturn\r"}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-encoding": "gzip"},
    ],
)
def test_what_is_not_declared_as_json_is_refused_with_the_header_to_send(app: Any, headers: dict[str, str]) -> None:
    assert_refused(predict(app, {"text": "a"}, headers), 415, "Content-Type: application/json")


def test_a_charset_of_utf_8_is_json(app: Any) -> None:
    assert predict(app, {"text": "a"}, {"content-type": 'Application/JSON; charset="UTF-8"'}).status == 200


def test_a_body_that_says_it_is_large_is_not_read(app: Any) -> None:
    async def never() -> Reply:
        return await send(app, "POST", "/predict", headers={"content-length": "1000001"}, chunks=[b"x"], pause=60)

    assert_refused(asyncio.run(asyncio.wait_for(never(), 5)), 413)


def test_a_size_of_very_many_digits_is_read_or_refused(app: Any) -> None:
    assert predict(app, {"text": "a"}, {"content-length": "0" * 5000 + "13"}).status == 200
    assert_refused(predict(app, {"text": "a"}, {"content-length": "1" * 5000}), 413)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"texts": [1] * 50}),
        ("/predict", {f"key {number}": 1 for number in range(50)}),
        ("/generate", {"messages": [1] * 50}),
        ("/generate", {"messages": [{f"key {number}": 1 for number in range(50)}]}),
    ],
)
def test_very_many_mistakes_are_not_described_one_by_one(app: Any, path: str, body: Any) -> None:
    reply = call(app, "POST", path, body)
    assert_refused(reply, 422)
    assert len(reply.json()["detail"]) <= 2


def test_a_body_that_does_not_say_its_size_is_read_up_to_the_limit(app: Any) -> None:
    chunks = [b"x" * 100_000] * 20
    assert_refused(asyncio.run(send(app, "POST", "/predict", chunks=chunks)), 413)


def test_a_body_that_does_not_come_is_given_up() -> None:
    app = create_app(models(), ServeSettings(body_seconds=0.05))
    assert_refused(asyncio.run(send(app, "POST", "/predict", chunks=[b"{", b"}"], pause=1)), 408)


def test_only_so_many_bodies_are_waited_for_at_once() -> None:
    app = create_app(models(), ServeSettings(open_bodies=1, body_seconds=1))

    async def two() -> list[Reply]:
        slow = send(app, "POST", "/predict", chunks=[b'{"text": "a"}'], pause=0.2)
        return await asyncio.gather(slow, send(app, "POST", "/predict", {"text": "a"}))

    slow, refused = asyncio.run(two())
    assert slow.status == 200
    assert_refused(refused, 503)
    assert refused.headers["retry-after"]


def test_unknown_routes_and_methods_name_what_there_is(app: Any) -> None:
    assert_refused(call(app, "GET", f"/{CANARY}"), 404, "/predict")
    reply = call(app, "GET", "/predict")
    assert_refused(reply, 405, "POST")
    assert reply.headers["allow"] == "POST"
    assert_refused(call(app, "GET", "/models/"), 404)


def test_a_tagger_does_not_write(app: Any) -> None:
    assert_refused(call(app, "POST", "/generate", {"prompt": "a"}), 422, "/predict")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": "a", "messages": []},
        {"messages": []},
        {"messages": None},
        {"messages": [{"role": "robot", "content": "a"}]},
        {"messages": [{"role": "user"}]},
        {"prompt": "a", "max_new_tokens": 0},
        {"prompt": "a", "max_new_tokens": 513},
        {"prompt": "a", "max_new_tokens": "9"},
        {"prompt": "a", "stream": 1},
        {"prompt": "a\u0000"},
        {"prompt": "a", "temperature": 1},
    ],
)
def test_bad_requests_to_write_are_refused(app: Any, body: Any) -> None:
    assert_refused(call(app, "POST", "/generate", body), 422)


# --- load


def test_a_full_queue_refuses_before_the_body_is_read() -> None:
    held = Held()
    app = create_app(models(tagger=held), ServeSettings(queue_texts=2, queue_ms=0.001, latency_budget_ms=0.001))

    async def fill() -> tuple[Reply, list[Reply]]:
        held.go.set()
        await send(app, "POST", "/predict", {"text": "measure the pace"})
        held.go.clear()
        accepted = []
        for _ in range(3):
            accepted.append(asyncio.ensure_future(send(app, "POST", "/predict", {"text": "a"})))
            await asyncio.sleep(0.05)
        refused = await asyncio.wait_for(send(app, "POST", "/predict", chunks=[b"{"] * 9, pause=60), 5)
        held.go.set()
        return refused, await asyncio.gather(*accepted)

    refused, answered = asyncio.run(fill())
    assert_refused(refused, 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert [reply.status for reply in answered] == [200, 200, 200]


def test_models_of_another_task_make_no_room() -> None:
    held = Held()
    bases = [*models(tagger=held).bases, ServedBase({"writer": facts("writer", "causal-lm")}, lambda names, texts: [])]
    app = create_app(ServedModels(bases), ServeSettings(queue_texts=1, queue_ms=0.001, latency_budget_ms=0.001))

    async def fill() -> None:
        held.go.set()
        await send(app, "POST", "/predict", {"text": "measure the pace"})
        held.go.clear()
        accepted = []
        for _ in range(2):
            accepted.append(asyncio.ensure_future(send(app, "POST", "/predict", {"text": "a"})))
            await asyncio.sleep(0.05)
        assert app.state.service.retry_after("/predict") is not None
        assert app.state.service.retry_after("/generate") is None
        held.go.set()
        await asyncio.gather(*accepted)

    asyncio.run(fill())


def test_a_request_that_a_stop_does_not_wait_for_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    app = create_app(models(tagger=held))
    sent: list[dict[str, Any]] = []

    async def cut_off() -> None:
        async def answered(scope: Any, receive: Any, take: Any) -> None:
            async def keep(message: dict[str, Any]) -> None:
                sent.append(message)

            await app(scope, receive, keep)

        asking = asyncio.ensure_future(send(answered, "POST", "/predict", {"text": "a"}))
        while not app.state.service.batcher_of("tagger").computing:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()

    with caplog.at_level(logging.INFO, logger="lightft.serving"):
        asyncio.run(cut_off())
    held.go.set()
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["detail"][0]["type"] == "stopping"
    assert json.loads(caplog.records[0].message)["reason"] == "stopping"


def test_an_answer_that_is_late_is_refused() -> None:
    held = Held()
    app = create_app(models(tagger=held), ServeSettings(deadline_seconds=0.05))
    assert_refused(predict(app, {"text": "a"}), 504)
    held.go.set()


def test_a_client_that_goes_away_frees_its_place() -> None:
    held = Held()
    app = create_app(models(tagger=held), ServeSettings(latency_budget_ms=0.001))

    async def leave_while_waiting() -> Reply:
        first = asyncio.ensure_future(send(app, "POST", "/predict", {"text": "first"}))
        await asyncio.sleep(0.05)
        leave = asyncio.Event()
        second = asyncio.ensure_future(send(app, "POST", "/predict", {"text": "second"}, leave=leave))
        await asyncio.sleep(0.05)
        assert app.state.service.batcher_of("tagger").waiting == 1
        leave.set()
        assert (await second).status == 0
        assert app.state.service.batcher_of("tagger").waiting == 0
        held.go.set()
        return await first

    assert asyncio.run(leave_while_waiting()).status == 200
    assert held.read == ["first"]
    assert "lightft_clients_gone_total 1.0" in call(app, "GET", "/metrics").body.decode()


def test_a_model_that_fails_tells_nothing_of_the_text(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(models(tagger=fail))
    with caplog.at_level(logging.INFO, logger="lightft.serving"):
        reply = predict(app, {"text": CANARY})
    assert_refused(reply, 500, "X-Request-Id")
    assert reply.headers["x-request-id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert CANARY not in caplog.text + reply.body.decode()


# --- what is written down


def test_the_log_has_sizes_and_times_and_no_text(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lightft.serving"):
        reply = predict(app, {"texts": [CANARY, "Anna"]})
    [line] = [json.loads(record.message) for record in caplog.records]
    assert line["id"] == reply.headers["x-request-id"]
    assert (line["route"], line["status"], line["texts"], line["characters"]) == ("/predict", 200, 2, len(CANARY) + 4)
    assert line["ms"] > 0
    assert CANARY not in caplog.text


def test_the_log_counts_every_refusal_of_a_full_queue(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    observation = app.state.service.observation

    async def refuse_and_look() -> None:
        for refusals in (5, 3):
            for _ in range(refusals):
                observation.refused_at_the_door("/predict")
            observation.page()
        observation.refused_at_the_door("/generate")
        app.state.service.close()

    with caplog.at_level(logging.INFO, logger="lightft.serving"):
        asyncio.run(refuse_and_look())
    assert [json.loads(record.message)["refused"] for record in caplog.records] == [5, 3, 1]
    assert b'lightft_refusals_total{reason="queue_full"} 9.0' in observation.page()


def test_refusals_of_a_full_queue_are_logged_within_a_second(
    app: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightft.serving.observation._SECONDS_BETWEEN_LINES", 0.01)

    async def refuse_and_wait() -> None:
        for _ in range(2):
            app.state.service.observation.refused_at_the_door("/predict")
        while not caplog.records:
            await asyncio.sleep(0.01)

    with caplog.at_level(logging.INFO, logger="lightft.serving"):
        asyncio.run(refuse_and_wait())
    assert [json.loads(record.message)["refused"] for record in caplog.records] == [2]


def test_the_log_has_the_text_where_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(models(), ServeSettings(log_text=True))
    with caplog.at_level(logging.INFO, logger="lightft.serving"):
        predict(app, {"text": CANARY})
    assert json.loads(caplog.records[0].message)["text"] == [CANARY]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/predict", {"text": "a", "model": CANARY}),
        ("POST", "/predict", {CANARY: 1}),
        ("POST", "/predict", {"text": [CANARY]}),
        ("POST", "/predict", {"texts": [CANARY, 1]}),
        ("POST", "/predict", {"texts": [CANARY] * 65}),
        ("POST", "/predict", {"text": f"{CANARY}\u0001"}),
        ("POST", "/predict", f'{{"text": "{CANARY}'.encode()),
        ("POST", "/generate", {"messages": [{"role": CANARY, "content": CANARY}]}),
        ("POST", "/generate", {"messages": [{"role": "user", "content": CANARY, CANARY: 1}]}),
        ("POST", f"/{CANARY}", {}),
        (CANARY, "/predict", {}),
    ],
)
def test_no_refusal_and_no_log_repeats_what_was_sent(
    app: Any, caplog: pytest.LogCaptureFixture, method: str, path: str, body: Any
) -> None:
    with caplog.at_level(logging.DEBUG):
        reply = call(app, method, path, body)
    assert 400 <= reply.status < 500
    assert CANARY not in reply.body.decode() + caplog.text + str(reply.headers)


# --- anything at all

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "text": ANY_JSON,
        "texts": st.lists(st.text(), max_size=3) | ANY_JSON,
        "model": st.sampled_from(["tagger", "other"]) | ANY_JSON,
        "prompt": ANY_JSON,
        "messages": ANY_JSON,
        "max_new_tokens": ANY_JSON,
    },
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/predict", "/generate"]),
    body=st.binary(max_size=64) | (SHAPED | ANY_JSON).map(lambda value: json.dumps(value).encode()),
)
@example(path="/predict", body=b'{"text": "\\ud83d\\ude00"}')
@example(path="/predict", body=b'{"text": "x", "model": "\\udfff"}')
@example(path="/predict", body=b'{"text": 1e999}')
def test_whatever_is_sent_is_answered_or_refused_in_the_one_shape(app: Any, path: str, body: bytes) -> None:
    reply = call(app, "POST", path, body)
    if reply.status != 200:
        assert 400 <= reply.status < 500
        assert_refused(reply, reply.status)
    else:
        assert path == "/predict"
        assert "model" in reply.json()
