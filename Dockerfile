# docker build -t iquitos_rl .
# mkdir -p outputs
# docker run -it --user "$(id -u):$(id -g)" -v "$PWD/outputs:/work/outputs" iquitos_rl train sac --quick
#
# Docker would make a missing folder as root, and the image's user could not write to it.
#
# The image has PyTorch for CUDA and runs without a GPU too; with one, add `--gpus all` to `docker run`. For the smaller
# PyTorch for CPUs add `--build-arg TORCH_INDEX=ADDRESS`, the address that PyTorch's page of installation gives for it.
# Not built by the tests: they run where no container can be built.
FROM python:3.13-slim
ARG TORCH_INDEX=
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY iquitos_rl iquitos_rl
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --no-cache-dir ".[citylearn]" \
    && pip install --no-cache-dir --no-deps citylearn==3.0.2 \
    && useradd --uid 1000 user && mkdir /work && chown user /work
# Whoever --user names has no home and no name in the image.
ENV HOME=/tmp LOGNAME=user
USER user
WORKDIR /work
ENTRYPOINT ["iquitos-rl"]
