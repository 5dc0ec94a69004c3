# The server as an image; docs/how-to/deploy.md says how it is run.
#
#   docker build --tag emotions .                                                     for CPUs
#   docker build --tag emotions --build-arg TORCH_INDEX=https://pypi.org/simple .     for NVIDIA GPUs
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
# Where torch comes from. This index has wheels for CPUs, which take a tenth of the space; those of PyPI hold CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/emotions
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY conf conf
COPY emotion_lightning emotion_lightning
COPY hydra_plugins hydra_plugins
RUN /opt/emotions/bin/python -m pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url "$TORCH_INDEX" ".[explain,onnx,serve]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/emotions /opt/emotions
# What is downloaded with run=hf:… is kept here; nothing else is written.
RUN install --directory --owner 10001 --group 10001 /var/cache/emotions
ENV HF_HOME=/var/cache/emotions/huggingface XDG_CACHE_HOME=/var/cache/emotions
# What NVIDIA's container toolkit lets in: CUDA, and nvidia-smi, by which the GPUs are counted.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /var/cache/emotions
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m CMD ["/opt/emotions/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["/opt/emotions/bin/emotion-serve", "serve.host=0.0.0.0"]
