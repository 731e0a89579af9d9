"""Classify sentences as positive or negative, with the head alone and with LoRA, and compare the two.

python examples/classify_sentiment.py
python examples/classify_sentiment.py --data reviews.csv --model path/to/model
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelComparator, ModelLoader


def main() -> None:
    options = parse_options()

    data = lightft.load_data(options.data, task="text-classification")
    if options.rows is not None:
        data = data.head(train=options.rows, validation=options.rows, test=options.rows)
    print(data, end="\n\n")
    loader = ModelLoader(options.model, task="text-classification", labels=data.labels)

    runs = [
        LoRATrainer(
            loader, adapter=adapter, epochs=options.epochs, max_length=128, output_dir=options.out / adapter.kind
        ).fit(data, resume=True)
        for adapter in (AdapterSpec("head-only"), AdapterSpec("lora", r=16, alpha=32))
    ]

    comparison = ModelComparator().compare(runs, baseline="head-only")
    print(comparison, end="\n\n")
    print("report:", comparison.save(options.out / "report.html"))

    classify = lightft.load(options.out / "lora" / "adapter")
    for text in ("A warm, funny and moving film.", "Two hours that I will never get back."):
        answer = classify(text)
        print(f"{text} {answer.label} ({answer.score:.2f})")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Text classification: the head alone against LoRA.")
    parser.add_argument(
        "--data", default="sst2", help="file, folder, Hub data set or short name; columns text and label"
    )
    parser.add_argument("--model", default="distilbert/distilbert-base-uncased", help="Hub model, folder or package:…")
    parser.add_argument("--out", type=Path, default=Path("runs/sentiment"), help="where runs and report are written")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the training texts")
    parser.add_argument("--rows", type=int, help="only so many texts of each split, for a quick try")
    return parser.parse_args()


if __name__ == "__main__":
    main()
