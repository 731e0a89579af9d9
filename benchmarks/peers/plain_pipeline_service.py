"""What an engineer would write today: FastAPI around transformers' pipeline, one call for each request."""

from __future__ import annotations

import argparse
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline


class Request(BaseModel):
    text: str


def create_app(model: str) -> FastAPI:
    """Return a service that answers with the entities of ``model``, a token-classification checkpoint."""
    app = FastAPI()
    tagger: Any = pipeline("token-classification", model=model, aggregation_strategy="simple")

    @app.post("/predict")
    def predict(request: Request) -> dict[str, Any]:
        # A plain def: FastAPI runs it in its thread pool, so that the service stays responsive.
        entities = tagger(request.text)
        return {
            "entities": [
                {
                    "text": request.text[entity["start"] : entity["end"]],
                    "label": entity["entity_group"],
                    "start": entity["start"],
                    "end": entity["end"],
                    "score": float(entity["score"]),
                }
                for entity in entities
            ]
        }

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    uvicorn.run(create_app(asked.model), port=asked.port, log_level="warning")


if __name__ == "__main__":
    main()
