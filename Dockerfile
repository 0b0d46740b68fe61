# The same steps as scripts/install, in an image: scripts/build, then for instance
#   mkdir -p runs && docker run --rm --user "$(id -u)" -v "$PWD/runs:/runs" mnist-jax \
#     --config=configs/digits_cnn_v1.py --output-dir=/runs/first
# CPU by default; for an NVIDIA GPU: scripts/build --build-arg EXTRAS=cuda, and docker run --gpus all
FROM python:3.12-slim
ARG EXTRAS=""
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mnist_jax mnist_jax
COPY configs configs
RUN python3 -m venv --without-pip .venv
RUN python3 -m pip --python .venv/bin/python install --quiet --disable-pip-version-check --no-cache-dir \
    --constraint constraints.txt --editable ".${EXTRAS:+[$EXTRAS]}"
# Any user may run it, as the owner of a mounted folder: caches go where all may write.
RUN useradd --create-home --uid 1000 trainer && mkdir --mode 1777 /runs /data
USER trainer
ENV DATA_DIR=/data OUTPUT_DIR=/runs/output HOME=/tmp
ENTRYPOINT [".venv/bin/python", "-m", "mnist_jax.train"]
