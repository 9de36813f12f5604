# Two images: `docker build --target cpu .` and `docker build --target cuda .`

FROM python:3.12-slim AS wheel
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
COPY --from=wheel /wheels /wheels
RUN useradd --create-home gqn && mkdir /work && chown gqn /work
WORKDIR /work

# torch without CUDA: a tenth of the size.
FROM base AS cpu
RUN pip install --index-url https://download.pytorch.org/whl/cpu "torch>=2.13" \
    && pip install "$(echo /wheels/*.whl)[train,render,plot,video,tensorboard]"
USER gqn
CMD ["gqn", "--help"]

# torch's wheels from PyPI bring CUDA; the host needs its driver and the NVIDIA container toolkit. gcc is for --compile.
FROM base AS cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && pip install "$(echo /wheels/*.whl)[train,render,plot,video,tensorboard]"
USER gqn
CMD ["gqn", "--help"]
