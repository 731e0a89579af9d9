"""Recipes: a whole analysis, from data to report, as one YAML file or one Python value."""

from lightft.recipe.parts import RecipeAdapter, RecipeComparison, RecipeData, RecipeModel
from lightft.recipe.recipe import Recipe
from lightft.recipe.running import run_recipe

__all__ = ["Recipe", "RecipeAdapter", "RecipeComparison", "RecipeData", "RecipeModel", "run_recipe"]
