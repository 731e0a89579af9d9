"""Train one method of a recipe, with all its seeds: what one task of an array job does.

    python train_part.py recipe.yaml --count      # how many methods there are: the array is 0 to one less
    python train_part.py recipe.yaml --part 2     # train the third; by default Slurm's SLURM_ARRAY_TASK_ID

What is finished is left alone. When every part is, ``lightft run recipe.yaml`` trains nothing: it compares them all.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

from lightft.errors import InvalidSettingError, LightFTError
from lightft.recipe import Recipe, RecipeAdapter, RecipeComparison, run_recipe


def methods_of(recipe: Recipe) -> list[Recipe]:
    """Return a recipe for each method, with grids written out; each writes the runs that the whole would write."""
    return [
        replace(
            recipe,
            adapters=(
                RecipeAdapter(
                    candidate.adapter.kind, candidate.adapter.params, candidate.quantization, name=candidate.name
                ),
            ),
            compare=RecipeComparison(),
            report=(),
        )
        for candidate in recipe.candidates()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--count", action="store_true", help="print how many methods there are, and train nothing")
    parser.add_argument("--part", type=int, help="which method, counted from 0")
    parser.add_argument("--data", help="read the data from here instead of where the recipe says")
    parser.add_argument("--output-dir", help="write the runs here instead of where the recipe says")
    asked = parser.parse_args()
    methods = methods_of(Recipe.from_yaml(asked.recipe))
    if asked.count:
        print(len(methods))
        return 0
    method = methods[_number(asked.part, len(methods))]
    print(f"Training {method.adapters[0].name}.", flush=True)
    result = run_recipe(method, data=asked.data, output_dir=asked.output_dir)
    print(result)
    # Slurm shows a task as failed by its exit status.
    return 1 if result.failed or result.unfinished else 0


def _number(part: int | None, methods: int) -> int:
    """Return which method to train: the one asked for, or the one of this task of an array job."""
    if part is None:
        if "SLURM_ARRAY_TASK_ID" not in os.environ:
            raise InvalidSettingError("No part was asked for, and this is no array job. Add --part 0, or --count.")
        part = int(os.environ["SLURM_ARRAY_TASK_ID"])
    if not 0 <= part < methods:
        raise InvalidSettingError(
            f"There is no part {part}: the recipe has {methods} methods. Submit with --array=0-{methods - 1}."
        )
    return part


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LightFTError as error:
        sys.exit(f"train_part: {error}")
