# syntax=docker/dockerfile:1
# Trains on an NVIDIA GPU. Build at the root of the repository, run in the folder with recipe and data:
#
#   docker build -f examples/deployment/training.Dockerfile -t lightft-training:0.1 .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/workspace" -v lightft-cache:/cache lightft-training:0.1
#
# torch's wheel on PyPI brings CUDA 13 with it, so that of NVIDIA's images the smallest does; the driver must be 580 or
# newer. Whether a tag exists: docker manifest inspect nvidia/cuda:13.0.1-base-ubuntu24.04
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
FROM ${CUDA_IMAGE}

# Versions of packages are the distribution's, which keeps no older ones in its archive.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/lightft/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
RUN python3 -m venv /opt/lightft

WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY lightft lightft
RUN pip install --use-pep517 -c constraints.txt '.[llm,sweep]'
COPY examples/deployment/entrypoints/train_part.py examples/deployment/entrypoints/train_together.py /opt/lightft/entrypoints/

# Any user may write here, since the one who runs the container decides who owns the runs: --user "$(id -u):$(id -g)".
RUN useradd --uid 10001 --no-create-home lightft \
    && mkdir -p /workspace /cache \
    && chmod 1777 /workspace /cache
ENV HF_HOME=/cache \
    HOME=/tmp
VOLUME /cache

USER 10001:10001
WORKDIR /workspace
CMD ["lightft", "run", "recipe.yaml"]
