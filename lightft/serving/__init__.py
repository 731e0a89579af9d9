"""Serving: trained models behind HTTP, with batches across requests, limits, a key, and figures of what goes on."""

import lightft.serving.packages  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from lightft.serving.app import create_app
from lightft.serving.models import ServedModels
from lightft.serving.server import serve
from lightft.serving.settings import ServeSettings

__all__ = ["ServeSettings", "ServedModels", "create_app", "serve"]
