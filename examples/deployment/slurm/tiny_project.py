"""Write a project that trains in seconds: a tiny random BERT, sentences, and a recipe of three methods.

python tiny_project.py FOLDER [--epochs 20] [--seeds 2]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lightft.contracts.tiny_models import Pair, examples, save_base

TASK = "text-classification"
ROWS = {"train": 64, "validation": 16, "test": 16}
RECIPE = """\
model: {{name: base, dtype: float32}}
data: {{source: data, task: text-classification}}
adapters:
  - head-only
  - {{kind: lora, r: [2, 4]}}
seeds: {seeds}
training: {{epochs: {epochs}, batch_size: 8, progress: false}}
compare: {{baseline: head-only}}
report: [runs/report.md]
output_dir: runs
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()

    (asked.folder / "data").mkdir(parents=True, exist_ok=True)
    save_base(Pair("bert", TASK), asked.folder / "base", with_head=False)
    sentences = iter(examples(TASK, sum(ROWS.values())))
    for split, count in ROWS.items():
        rows = [next(sentences) for _ in range(count)]
        lines = [json.dumps({"id": row.id, "text": row.text, "label": row.target}) for row in rows]
        (asked.folder / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = RECIPE.format(seeds=asked.seeds, epochs=asked.epochs)
    (asked.folder / "recipe.yaml").write_text(recipe, encoding="utf-8")


if __name__ == "__main__":
    main()
