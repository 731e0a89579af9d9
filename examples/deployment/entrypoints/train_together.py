"""Train the methods of a recipe one after the other, each in all processes that torchrun started.

    torchrun --standalone --nproc-per-node 2 train_together.py recipe.yaml

What is finished is left alone. When all of it is, the first process compares the runs and writes the reports.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

import torch
from accelerate import PartialState
from train_part import methods_of

from lightft.errors import InvalidSettingError, LightFTError, TrainingError
from lightft.recipe import Recipe, run_recipe
from lightft.sweeping.candidates import seeds_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", help="read the data from here instead of where the recipe says")
    parser.add_argument("--output-dir", help="write the runs here instead of where the recipe says")
    asked = parser.parse_args()
    recipe = Recipe.from_yaml(asked.recipe)
    if recipe.search is not None or recipe.learning_rates == "chosen":
        # Two processes that measure a hair's breadth apart would choose differently, and then wait for each other.
        raise InvalidSettingError("Trials need one process. Run them with lightft run, and give learning_rate here.")

    processes = _processes()
    for method in methods_of(recipe):
        for seed in seeds_of(recipe.seeds):
            alone = replace(method, seeds=(seed,))
            result = run_recipe(alone, data=asked.data, output_dir=asked.output_dir, say=_nothing)
            if result.failed or result.unfinished:
                # At once: torchrun ends the others, which would otherwise wait for this one.
                print(f"Process {processes.process_index}: {result}", file=sys.stderr, flush=True)
                return 1
            if processes.is_main_process:
                print(result.runs[0], flush=True)
    processes.wait_for_everyone()
    is_main = processes.is_main_process
    processes.destroy_process_group()
    if is_main:
        print(run_recipe(recipe, data=asked.data, output_dir=asked.output_dir))
    return 0


def _processes() -> PartialState:
    """Return what the processes know of each other; each gets its own GPU before a model is loaded onto one."""
    processes = PartialState(cpu=not torch.cuda.is_available())
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if processes.num_processes != started:
        raise TrainingError(f"torchrun started {started} processes, but {processes.num_processes} found each other.")
    return processes


def _nothing(line: str) -> None:
    """Say nothing: the first process says for all what each run brought."""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LightFTError as error:
        sys.exit(f"train_together: {error}")
