# The image in which trials run: Python, PyTorch and what a checkpoint needs, and nothing of this project: the code of a
# trial, its frozen harness and its data are mounted when it starts.
#
#   docker build -t overnight-train:latest .                                            for NVIDIA GPUs
#   docker build -t overnight-train:latest --build-arg TORCH_INDEX=URL --build-arg PACKAGES= .   for a CPU
#
# PyTorch's wheels for CUDA bring the CUDA libraries along; the driver comes from the host by the NVIDIA container toolkit.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

# torch.compile compiles small launchers with a C compiler. Not needed on a CPU: PACKAGES= leaves it out.
ARG PACKAGES="gcc libc6-dev"
RUN if [ -n "${PACKAGES}" ]; then \
        apt-get update && apt-get install -y --no-install-recommends ${PACKAGES} && rm -rf /var/lib/apt/lists/*; \
    fi

# TORCH_INDEX: another index for PyTorch, such as the one of its builds for CPUs.
ARG TORCH_INDEX=""
COPY constraints.txt /opt/train/constraints.txt
RUN python3 -m venv /opt/train \
    && /opt/train/bin/pip install --no-cache-dir --constraint /opt/train/constraints.txt \
        ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch \
    && /opt/train/bin/pip install --no-cache-dir --constraint /opt/train/constraints.txt numpy safetensors \
    && /opt/train/bin/python -c "import numpy, safetensors, torch"

ENV PATH=/opt/train/bin:${PATH}
# Whoever starts this image by hand is no more than a trial is.
USER 1000:1000
CMD ["python3"]
