"""Try a trained model in a browser: on a Hugging Face Space, or at home with ``python app.py``.

The folder ``adapter`` next to this file is opened, or what LIGHTFT_MODEL names: an adapter folder, a merged model, a Hub id.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

import lightft

MODEL = os.environ.get("LIGHTFT_MODEL", str(Path(__file__).parent / "adapter"))
EXAMPLES = {
    "token-classification": "Angela Merkel met Ban Ki-moon of the United Nations in New York.",
    "text-classification": "A quiet, beautifully acted film that stays with you.",
    "causal-lm": "Name three cities in Europe.",
}


def build(path: str) -> gr.Interface:
    """Open a model, and return the page that fits its task."""
    predictor = lightft.load(path)
    task = predictor.head.name

    def answer(text: str) -> Any:
        said = predictor(text)
        if task == "token-classification":
            return {"text": text, "entities": [{"entity": s.label, "start": s.start, "end": s.end} for s in said]}
        return said.probabilities if task == "text-classification" else said

    output = {
        "token-classification": lambda: gr.HighlightedText(label="Entities", show_legend=True),
        "text-classification": lambda: gr.Label(label="Probabilities"),
        "causal-lm": lambda: gr.Textbox(label="Answer", lines=8),
    }[task]()
    return gr.Interface(
        answer,
        inputs=gr.Textbox(label="Text", lines=4),
        outputs=output,
        examples=[[EXAMPLES[task]]],
        cache_examples=False,
        flagging_mode="never",
        title=f"{task.replace('-', ' ').capitalize()} with lightft",
    )


if __name__ == "__main__":
    build(MODEL).launch()
