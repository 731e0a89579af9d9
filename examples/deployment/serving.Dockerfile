# syntax=docker/dockerfile:1
# Serves a model over HTTP on a CPU. Build at the root of the repository:
#
#   docker build -f examples/deployment/serving.Dockerfile -t lightft-serving:0.1 .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop=ALL --security-opt no-new-privileges --stop-timeout 40 \
#       -p 127.0.0.1:8000:8000 -e LIGHTFT_API_KEY -v "$PWD/runs/lora/model:/model:ro" lightft-serving:0.1
#
# /model is a merged model, or what `lightft export --to onnx` wrote. An adapter's folder does as well where its base can
# be found: mount the base where the adapter's lightft.json says it is.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# The wheel of torch on PyPI brings gigabytes of CUDA along; this index has the same version for CPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/lightft/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/lightft
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-deps --index-url "$TORCH_INDEX" -c constraints.txt torch
COPY lightft lightft
# pip's work is done once all is installed; nothing is to be added to a running container.
RUN pip install --use-pep517 -c constraints.txt '.[serve,onnx]' \
    && python -m pip uninstall -y pip
COPY examples/deployment/entrypoints/healthcheck.py examples/deployment/entrypoints/with_api_key.sh /opt/lightft/entrypoints/

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin lightft
COPY --from=build /opt/lightft /opt/lightft
# Nothing is fetched at run time, and nothing written but to /tmp.
ENV PATH=/opt/lightft/bin:$PATH \
    HF_HUB_OFFLINE=1 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/lightft/entrypoints/healthcheck.py"]
ENTRYPOINT ["/opt/lightft/entrypoints/with_api_key.sh"]
CMD ["lightft", "serve", "/model", "--host", "0.0.0.0", "--port", "8000"]
