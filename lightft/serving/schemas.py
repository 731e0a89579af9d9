"""What clients send and get, as Pydantic models: requests are read with them, answers are described by them."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema, models_json_schema
from pydantic_core import PydanticCustomError

from lightft.serving.problems import RefusedError
from lightft.serving.settings import ServeSettings

__all__ = [
    "ClassAnswer",
    "EntitiesAnswer",
    "GenerateRequest",
    "ListAnswer",
    "ModelFacts",
    "ModelList",
    "PredictRequest",
    "Refusal",
    "WrittenAnswer",
    "read_generate",
    "read_predict",
    "request_schemas",
]

# Those that XML leaves out as well: tab, line feed and carriage return may stand in a text.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MOST_NEW_TOKENS = 512
_MOST_MESSAGES = 256

# The longest name that a model can have.
_ModelName = Annotated[StrictStr, Field(max_length=100)]

_Request = TypeVar("_Request", bound="_Strict")


class _Strict(BaseModel):
    """A body in which nothing is guessed: no number for a string, no field that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class PredictRequest(_Strict):
    """One text or a list of texts."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["texts"]}]})

    text: StrictStr | SkipJsonSchema[None] = None
    # Of many texts that are none, the first is told: to list them all would take seconds.
    texts: Annotated[list[StrictStr], Field(min_length=1, fail_fast=True)] | SkipJsonSchema[None] = None
    model: _ModelName | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> PredictRequest:
        if (self.text is None) == (self.texts is None):
            raise PydanticCustomError(
                "exactly_one", "Give exactly one of 'text' (a string) and 'texts' (a list of strings)"
            )
        return self


class ChatMessage(_Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: StrictStr


class GenerateRequest(_Strict):
    """A prompt, or a conversation that the model is to go on with."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}]})

    prompt: StrictStr | SkipJsonSchema[None] = None
    messages: (
        Annotated[list[ChatMessage], Field(min_length=1, max_length=_MOST_MESSAGES, fail_fast=True)]
        | SkipJsonSchema[None]
    ) = None
    model: _ModelName | None = None
    max_new_tokens: Annotated[StrictInt, Field(ge=1, le=_MOST_NEW_TOKENS)] = 128
    stream: StrictBool = False

    @model_validator(mode="after")
    def _exactly_one(self) -> GenerateRequest:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError(
                "exactly_one", "Give exactly one of 'prompt' (a string) and 'messages' (a list of messages)"
            )
        return self


class Entity(BaseModel):
    """A stretch ``[start, end)`` of characters of the text."""

    text: str
    label: str
    start: int
    end: int
    score: float


class EntitiesAnswer(BaseModel):
    """The entities of one text."""

    model: str
    entities: list[Entity]


class ClassAnswer(BaseModel):
    """The class of one text."""

    model: str
    label: str
    score: float
    probabilities: dict[str, float]


class ListAnswer(BaseModel):
    """One answer per text, in order."""

    model: str
    results: list[dict[str, Any]]


class WrittenAnswer(BaseModel):
    """What a language model wrote."""

    model: str
    text: str
    new_tokens: int
    finish: Literal["end", "length"]


class ModelFacts(BaseModel):
    """What a model is."""

    name: str
    task: Literal["token-classification", "text-classification", "causal-lm"]
    labels: list[str]
    base: str | None
    adapter: str | None
    parameters: int | None
    max_length: int
    runtime: Literal["torch", "onnx"]
    precision: str


class ModelList(BaseModel):
    """All models of the service; the first is the default."""

    models: list[ModelFacts]


class Detail(BaseModel):
    """One thing that is wrong."""

    loc: list[str | int]
    msg: str
    type: str


class Refusal(BaseModel):
    """Why a request was not answered; it never repeats the request."""

    detail: list[Detail]

    examples: ClassVar[dict[int, str]] = {
        400: "The body is no JSON",
        401: "No key, or a wrong one",
        404: "No model of that name",
        408: "The request was sent too slowly",
        413: "Too large: the body, the number of texts, or their characters",
        415: "The body is not declared as JSON",
        422: "JSON of another shape",
        503: "Too many requests wait, or the service stops; Retry-After says when to come back",
        504: "The answer would come too late",
    }


def read_predict(body: bytes, settings: ServeSettings) -> PredictRequest:
    """Return the request in ``body``.

    Raises:
        RefusedError: 400 no JSON, 413 too many texts or characters, 422 another shape.
    """
    request = _read(PredictRequest, body)
    texts = [request.text] if request.text is not None else request.texts or []
    if len(texts) > settings.max_texts:
        raise RefusedError(
            413, "too_many_texts", f"There are {len(texts)} texts. Send at most {settings.max_texts} at once"
        )
    _check("texts" if request.text is None else "text", texts, settings)
    return request


def read_generate(body: bytes, settings: ServeSettings) -> GenerateRequest:
    """Return the request in ``body``.

    Raises:
        RefusedError: 400 no JSON, 413 too many messages or characters, 422 another shape.
    """
    request = _read(GenerateRequest, body)
    if request.prompt is not None:
        _check("prompt", [request.prompt], settings)
    else:
        _check("messages", [message.content for message in request.messages or ()], settings)
    return request


def request_schemas() -> dict[str, Any]:
    """Return the JSON schemas of what clients send, by name, for the OpenAPI description."""
    _, schemas = models_json_schema(
        [(PredictRequest, "validation"), (GenerateRequest, "validation")], ref_template="#/components/schemas/{model}"
    )
    defined: dict[str, Any] = schemas["$defs"]
    return defined


def _read(kind: type[_Request], body: bytes) -> _Request:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise RefusedError.of(error, tuple(kind.model_fields)) from None


def _check(place: str, texts: list[str], settings: ServeSettings) -> None:
    characters = sum(map(len, texts))
    if characters > settings.max_characters:
        raise RefusedError(
            413,
            "too_many_characters",
            f"There are {characters:,} characters. Send at most {settings.max_characters:,} at once",
            ("body", place),
        )
    for number, text in enumerate(texts):
        control = _CONTROL.search(text)
        if control is not None:
            raise RefusedError(
                422,
                "control_character",
                f"Character {control.start()} is the control character U+{ord(control.group()):04X}. Put a space in its "
                "place: of these only tab, line feed and carriage return are accepted",
                ("body", place, number) if place in ("texts", "messages") else ("body", place),
            )
