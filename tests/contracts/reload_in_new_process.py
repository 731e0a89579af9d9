"""Load every adapter below a folder and print, as JSON, whether each gives the logits saved beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import lightft

results: dict[str, dict[str, object]] = {}
for seen_file in sorted(Path(sys.argv[1]).glob("*/seen.pt")):
    seen = torch.load(seen_file, weights_only=True)
    try:
        predictor = lightft.load(seen_file.parent / "adapter")
        with torch.inference_mode():
            logits = predictor.model(**seen["batch"]).logits
    except Exception as error:
        results[seen_file.parent.name] = {"equal": False, "error": f"{type(error).__name__}: {error}"}
        continue
    equal = torch.equal(logits, seen["logits"])
    results[seen_file.parent.name] = (
        {"equal": True} if equal else {"equal": False, "difference": float((logits - seen["logits"]).abs().max())}
    )
sys.stdout.write(json.dumps(results) + "\n")
