# The image for trials: Python, PyTorch, and the packages for checkpoints. The trial's code, the harness and the data are
# mounted when a trial starts.
#
#   docker build -t overnight-train:latest .                                            for NVIDIA GPUs
#   docker build -t overnight-train:latest --build-arg TORCH_INDEX=URL --build-arg PACKAGES= .   for a CPU
#
# PyTorch's CUDA wheels include the CUDA libraries. The NVIDIA container toolkit adds the host's driver.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

# torch.compile needs a C compiler on a GPU. PACKAGES= omits it.
ARG PACKAGES="gcc libc6-dev"
RUN if [ -n "${PACKAGES}" ]; then \
        apt-get update && apt-get install -y --no-install-recommends ${PACKAGES} && rm -rf /var/lib/apt/lists/*; \
    fi

# TORCH_INDEX: another index for PyTorch, such as that of its CPU builds.
ARG TORCH_INDEX=""
COPY constraints.txt /opt/train/constraints.txt
RUN python3 -m venv /opt/train \
    && /opt/train/bin/pip install --no-cache-dir --constraint /opt/train/constraints.txt \
        ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch \
    && /opt/train/bin/pip install --no-cache-dir --constraint /opt/train/constraints.txt numpy safetensors \
    && /opt/train/bin/python -c "import numpy, safetensors, torch"

ENV PATH=/opt/train/bin:${PATH}
# A container started by hand has no more rights than a trial.
USER 1000:1000
CMD ["python3"]
