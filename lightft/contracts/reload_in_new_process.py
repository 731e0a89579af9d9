"""Load every adapter below a folder and print, as JSON, whether each gives the logits saved beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import lightft


def compare_with_saved(folder: Path) -> dict[str, dict[str, object]]:
    """Return, by folder, whether the adapter in it answers as it did when it was saved, and how far off it is if not."""
    return {seen.parent.name: _compared(seen) for seen in sorted(folder.glob("*/seen.pt"))}


def _compared(seen_file: Path) -> dict[str, object]:
    seen = torch.load(seen_file, weights_only=True)
    try:
        predictor = lightft.load(seen_file.parent / "adapter", device="cpu")
        with torch.inference_mode():
            logits = predictor.model(**seen["batch"]).logits
    except Exception as error:  # one adapter that cannot be opened must not hide the others
        return {"equal": False, "error": f"{type(error).__name__}: {error}"}
    if torch.equal(logits, seen["logits"]):
        return {"equal": True}
    return {"equal": False, "difference": float((logits - seen["logits"]).abs().max())}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compare_with_saved(Path(sys.argv[1]))) + "\n")
