"""Imports what a service needs beside lightft, or says how to install it."""

from lightft.extras import package_of_extra

for _package in ("fastapi", "httptools", "prometheus_client", "uvicorn"):
    package_of_extra(_package, "serve", "A service needs FastAPI and uvicorn")
