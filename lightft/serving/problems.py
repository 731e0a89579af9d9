"""Every refusal of the service, in one shape: ``{"detail": [{"loc": [...], "msg": "...", "type": "..."}]}``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

__all__ = ["JSON", "ClientGoneError", "RefusedError", "json_bytes", "json_response", "queue_full", "stopping"]

JSON = "application/json"
_MOST_DETAILS = 20


class RefusedError(Exception):
    """What is wrong with a request, and the status it is answered with.

    No part of it repeats what the client sent: an error may end in logs and on screens where a text must not.

    Args:
        status: HTTP status.
        kind: a word that programs can tell it by.
        message: what is wrong and what to do about it.
        place: where, as Pydantic's ``loc``.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        place: Sequence[str | int] = ("body",),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.details: list[dict[str, Any]] = [{"loc": list(place), "msg": message, "type": kind}]
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: ValidationError, fields: Sequence[str]) -> RefusedError:
        """Return what Pydantic found wrong with a body that may have ``fields``."""
        if error.error_count() > _MOST_DETAILS:
            # Describing each of a hundred thousand would take the time of all other requests.
            return cls(422, "too_many_errors", f"More than {_MOST_DETAILS} fields are wrong. {_known(fields)}")
        found = error.errors(include_url=False, include_context=False, include_input=False)
        kinds = {each["type"] for each in found}
        # Too many of something is a question of size, as the size of the body is.
        status = 400 if "json_invalid" in kinds else 413 if "too_long" in kinds else 422
        refusal = cls(status, "", "")
        refusal.kind = str(found[0]["type"])
        refusal.details = [_detail(each, fields) for each in found]
        return refusal

    def body(self) -> bytes:
        """Return the JSON body."""
        return json_bytes({"detail": self.details})

    def response(self) -> Response:
        """Return the whole answer."""
        return Response(self.body(), self.status, self.headers, JSON)


def queue_full(seconds: int) -> RefusedError:
    """Return the refusal of a request for which there is no room; it may be sent again after ``seconds``."""
    message = "Too many requests are waiting. Send it again after the seconds that the header Retry-After names"
    return RefusedError(503, "queue_full", message, (), {"Retry-After": str(seconds)})


def stopping() -> RefusedError:
    """Return the refusal of a request that comes while the service stops, or that it does not wait for any longer."""
    return RefusedError(503, "stopping", "The service is stopping. Send it again later", (), {"Retry-After": "5"})


class ClientGoneError(Exception):
    """The client went away before its request was whole or answered."""


def json_bytes(value: Any) -> bytes:
    """Return ``value`` as compact JSON; NaN is refused, since JSON has none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def json_response(value: Any, status: int = 200) -> Response:
    """Return an answer of ``value`` as JSON."""
    return Response(json_bytes(value), status, media_type=JSON)


def _detail(found: Any, fields: Sequence[str]) -> dict[str, Any]:
    place, message = list(found["loc"]), found["msg"]
    if found["type"] == "extra_forbidden":
        # The name of an unknown field is the client's own text.
        place, message = place[:-1], f"There is a field that is not known here. {_known(fields)}"
    return {"loc": ["body", *place], "msg": message, "type": found["type"]}


def _known(fields: Sequence[str]) -> str:
    return f"Known: {', '.join(fields)}"
