"""The routes of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, NoReturn, TypeVar

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from lightft.records import Answer, Classified, Message, Span
from lightft.serving import schemas
from lightft.serving.demo import DEMO_PATHS, add_demo
from lightft.serving.docs_page import docs_page
from lightft.serving.generation import Written
from lightft.serving.guard import Guard
from lightft.serving.models import ServedModels
from lightft.serving.observation import Observed
from lightft.serving.problems import ClientGoneError, RefusedError, json_bytes, json_response
from lightft.serving.service import GENERATE, PREDICT, Service
from lightft.serving.settings import ServeSettings

__all__ = ["create_app"]

_NEEDS_NO_KEY = frozenset({"/health", *DEMO_PATHS})
_VERSION = version("lightft")
_T = TypeVar("_T")
_Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(models: ServedModels, settings: ServeSettings | None = None) -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        models: what it serves.
        settings: its limits.
    """
    service = Service(models, settings or ServeSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        service.close()

    app = FastAPI(
        title="lightft",
        version=_VERSION,
        summary="Trained models, answering texts",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    _add_facts(app, service)
    predict, generate = _add_predict(app, service), _add_generate(app, service)
    add_demo(app)
    _describe_requests(app)
    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    _add_refusals(app, paths)
    app.add_middleware(
        Guard,
        settings=service.settings,
        key=service.key,
        open_paths=_NEEDS_NO_KEY,
        admitted_by=service.admit,
        endpoints={PREDICT: predict, GENERATE: generate},
    )
    app.add_middleware(Observed, observation=service.observation, routes=lambda: paths)
    return app


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get("/", summary="What this service is and serves")
    async def facts() -> Response:
        return json_response(
            {
                "name": "lightft",
                "version": _VERSION,
                "default_model": service.models.default,
                "models": service.models.to_json(),
            }
        )

    @app.get("/health", summary="Whether the process lives; needs no key")
    async def health() -> Response:
        return json_response({"status": "alive"})

    @app.get(
        "/ready", summary="Whether requests are accepted", responses={503: {"description": "Starting or stopping"}}
    )
    async def ready() -> Response:
        return json_response({"status": service.status}, 200 if service.status == "ready" else 503)

    @app.get("/models", summary="The models, and what they are", response_model=schemas.ModelList)
    async def all_models() -> Response:
        return json_response({"models": service.models.to_json()})

    @app.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.observation.page(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(
            docs_page(app.openapi()),
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )


def _add_predict(app: FastAPI, service: Service) -> _Endpoint:
    @app.post(
        PREDICT,
        summary="The entities or the class of one text, or of each text of a list",
        response_model=schemas.EntitiesAnswer | schemas.ClassAnswer | schemas.ListAnswer,
        responses=_refusals(400, 401, 404, 408, 413, 415, 422, 503, 504),
        openapi_extra=_body_of("PredictRequest"),
    )
    async def predict(request: Request) -> Response:
        asked = schemas.read_predict(await request.body(), service.settings)
        texts = [asked.text] if asked.text is not None else asked.texts or []
        model = service.chosen(asked.model, can_write=False)
        _note(request, service, model=model, texts=len(texts), characters=sum(map(len, texts)), text=texts)
        answers = await _while_client_waits(request, service.batcher_of(model).answer(model, texts))
        service.observation.answered(texts=len(texts))
        results = [_answer_as_json(text, answer) for text, answer in zip(texts, answers, strict=True)]
        return json_response({"model": model, **(results[0] if asked.text is not None else {"results": results})})

    return predict


def _add_generate(app: FastAPI, service: Service) -> _Endpoint:
    @app.post(
        GENERATE,
        summary="What a language model writes, whole or as server-sent events",
        response_model=schemas.WrittenAnswer,
        responses=_refusals(400, 401, 404, 408, 413, 415, 422, 503, 504),
        openapi_extra=_body_of("GenerateRequest"),
    )
    async def generate(request: Request) -> Response:
        asked = schemas.read_generate(await request.body(), service.settings)
        model = service.chosen(asked.model, can_write=True)
        messages = (
            [Message("user", asked.prompt)]
            if asked.prompt is not None
            else [Message(message.role, message.content) for message in asked.messages or ()]
        )
        contents = [message.content for message in messages]
        _note(request, service, model=model, characters=sum(map(len, contents)), text=contents)
        events = service.writer_of(model).write(model, messages, asked.max_new_tokens)
        # Refusals come before the first event, while the status can still say so.
        await _while_client_waits(request, anext(events))
        if asked.stream:
            return StreamingResponse(_as_events(request, service, events), media_type="text/event-stream")
        written = await _while_client_waits(request, _last(events))
        _note_written(request, service, written)
        return json_response(
            {"model": model, "text": written.text, "new_tokens": written.new_tokens, "finish": written.finish}
        )

    return generate


def _answer_as_json(text: str, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Classified):
        return {"label": answer.label, "score": answer.score, "probabilities": answer.probabilities}
    spans: Sequence[Span] = answer if isinstance(answer, list) else []
    return {
        "entities": [
            {
                "text": text[span.start : span.end],
                "label": span.label,
                "start": span.start,
                "end": span.end,
                "score": span.score,
            }
            for span in spans
        ]
    }


async def _as_events(request: Request, service: Service, events: AsyncIterator[str | Written]) -> AsyncIterator[bytes]:
    """Yield server-sent events; one with ``detail`` tells of an error that came after the first."""
    try:
        async for event in events:
            if isinstance(event, Written):
                _note_written(request, service, event)
                yield _event({"done": True, "new_tokens": event.new_tokens, "finish": event.finish})
            else:
                yield _event({"text": event})
    except RefusedError as refusal:
        request.scope["lightft"]["reason"] = refusal.kind
        yield _event({"detail": refusal.details})


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json_bytes(value) + b"\n\n"


async def _last(events: AsyncIterator[str | Written]) -> Written:
    async for event in events:
        if isinstance(event, Written):
            return event
    raise AssertionError("a writer ends with what it wrote")


async def _while_client_waits(request: Request, work: Awaitable[_T]) -> _T:
    """Return the result of ``work``, which is cancelled when the client goes away.

    Raises:
        ClientGoneError: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    gone.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        if gone.done() and not gone.cancelled():
            raise ClientGoneError from None
        raise
    finally:
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _note(request: Request, service: Service, *, text: Sequence[str], **facts: Any) -> None:
    """Keep for the log what the request is; its text only where that was asked for."""
    request.scope["lightft"] |= {**facts, "text": list(text)} if service.settings.log_text else facts


def _note_written(request: Request, service: Service, written: Written) -> None:
    service.observation.answered(tokens=written.new_tokens)
    _note(request, service, text=[written.text], new_tokens=written.new_tokens)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Refusal, "description": schemas.Refusal.examples[status]} for status in statuses}


def _body_of(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": True, "content": content}}


def _describe_requests(app: FastAPI) -> None:
    """Put into the OpenAPI description what requests hold: routes read them by themselves, before FastAPI would."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        described = describe()
        described["components"]["schemas"] |= schemas.request_schemas()
        return described

    app.openapi = openapi  # type: ignore[method-assign]


def _add_refusals(app: FastAPI, paths: frozenset[str]) -> None:
    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> NoReturn:
        if error.status_code == 405:
            raise RefusedError(
                405, "method", f"Use {(error.headers or {}).get('Allow', 'another method')} here", (), error.headers
            )
        raise RefusedError(404, "no_route", f"There is nothing here. Routes: {', '.join(sorted(paths))}", ())
