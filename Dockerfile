# syntax=docker/dockerfile:1
# Targets: server (HTTP), cluster (Ray Serve), worker (RunPod's queue), saas (no torch). docs/runpod.md and docs/saas.md say how to build and deploy them.
# TORCH_CUDA chooses torch's build, and the base image with it, which refuses a driver that is too old for both:
# cu130 takes driver 580 or newer; cu129 570, Blackwell included; cu126 560 (data centre cards 535), up to Hopper.
ARG TORCH_CUDA=cu130

FROM nvidia/cuda:12.6.3-base-ubuntu24.04 AS cuda-cu126
FROM nvidia/cuda:12.9.1-base-ubuntu24.04 AS cuda-cu129
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS cuda-cu130

# hadolint ignore=DL3006
FROM cuda-${TORCH_CUDA} AS base
# The base image is pinned; the security updates of its packages are welcome.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv tini ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 fishserve
ENV PATH=/opt/fishserve/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/models FISHSERVE_VOICES_DIR=/voices FISHSERVE_CACHE_DIR=/models/laid-out
RUN install -d -o fishserve -g fishserve /models /voices

# Triton builds the launchers of its kernels where it runs them.
FROM base AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o fishserve -g fishserve /opt/triton
ENV TRITON_CACHE_DIR=/opt/triton

# What the packages are installed from comes first: an edit of the code reinstalls none of them.
FROM base AS build
ARG TORCH_CUDA
ENV TORCH_CUDA=${TORCH_CUDA}
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE /src/
COPY docker/install.sh /src/docker/install.sh

FROM build AS build-server
RUN /src/docker/install.sh packages server,s3,otel /opt/fishserve
COPY . /src
RUN /src/docker/install.sh fishserve server,s3,otel /opt/fishserve

FROM build AS build-worker
RUN /src/docker/install.sh packages worker,otel /opt/fishserve
COPY . /src
RUN /src/docker/install.sh fishserve worker,otel /opt/fishserve

FROM gpu AS server
ARG MODEL=
COPY --from=build-server /opt/fishserve /opt/fishserve
COPY docker/bake.sh /usr/local/bin/bake
USER 10001
RUN --mount=type=secret,id=HF_TOKEN,uid=10001 bake "${MODEL}"
# Never the CPU in silence: a container without a usable GPU says so and ends.
ENV FISHSERVE_HOST=0.0.0.0 FISHSERVE_DEVICE=cuda FISHSERVE_CHECKPOINT=${MODEL}
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s CMD ["sh", "-c", "curl -fs http://127.0.0.1:${FISHSERVE_PORT:-${PORT:-8080}}/ready"]
ENTRYPOINT ["tini", "--"]
CMD ["fishserve", "serve"]

FROM build AS build-cluster
RUN /src/docker/install.sh packages cluster,s3,otel /opt/fishserve
COPY . /src
RUN /src/docker/install.sh fishserve cluster,s3,otel /opt/fishserve

# Every node of a Ray cluster runs this image; KubeRay says with which command, and its probes need wget.
FROM gpu AS cluster
ARG MODEL=
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-cluster /opt/fishserve /opt/fishserve
COPY docker/bake.sh /usr/local/bin/bake
USER 10001
RUN --mount=type=secret,id=HF_TOKEN,uid=10001 bake "${MODEL}"
ENV RAY_USAGE_STATS_ENABLED=0 FISHSERVE_HOST=0.0.0.0 FISHSERVE_DEVICE=cuda FISHSERVE_CHECKPOINT=${MODEL}
# 8080 is that of `fishserve cluster run`, 8000 that of the manifest for KubeRay.
EXPOSE 8080 8000
ENTRYPOINT ["tini", "--"]
CMD ["fishserve", "cluster", "run"]

FROM gpu AS worker
ARG MODEL=
COPY --from=build-worker /opt/fishserve /opt/fishserve
COPY docker/bake.sh /usr/local/bin/bake
USER 10001
RUN --mount=type=secret,id=HF_TOKEN,uid=10001 bake "${MODEL}"
ENV FISHSERVE_DEVICE=cuda FISHSERVE_CHECKPOINT=${MODEL}
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "worker"]

# The SaaS API runs where there is no GPU: no CUDA here, and the app beside it.
FROM python:3.12-slim-bookworm AS base-saas
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tini ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 fishserve
ENV PATH=/opt/fishserve/bin:$PATH PYTHONUNBUFFERED=1

# The app imports what it shares with the playground by a path inside the source tree.
FROM node:22-bookworm-slim AS build-app
WORKDIR /src/saas/web
COPY saas/web/package.json saas/web/package-lock.json saas/web/.npmrc /src/saas/web/
RUN npm ci --no-audit --no-fund
COPY saas/web /src/saas/web
COPY inference/server/page/shared /src/inference/server/page/shared
RUN npm run build

FROM base-saas AS build-saas
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE /src/
COPY docker/install.sh /src/docker/install.sh
RUN /src/docker/install.sh packages saas,otel /opt/fishserve
COPY . /src
COPY --from=build-app /src/saas/web/dist /src/saas/web/dist
RUN /src/docker/install.sh fishserve saas,otel /opt/fishserve

FROM base-saas AS saas
COPY --from=build-saas /opt/fishserve /opt/fishserve
USER 10001
ENV FISHSERVE_SAAS_HOST=0.0.0.0
EXPOSE 8090
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["sh", "-c", "curl -fs http://127.0.0.1:${FISHSERVE_SAAS_PORT:-8090}/healthz"]
ENTRYPOINT ["tini", "--"]
CMD ["fishserve", "saas"]
