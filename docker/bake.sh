#!/usr/bin/env bash
# docker/bake.sh MODEL: fetches a checkpoint into the image, so that a worker starts without the network. Empty: none, minnow speaks.
# A gated repository wants HF_TOKEN, as a build secret of that name.
# It also compiles the kernels of the model, or of FishSpeech 1.5's shape, for the usual GPUs, into TRITON_CACHE_DIR.
set -euo pipefail
model=${1:-}
if [ -f /run/secrets/HF_TOKEN ]; then HF_TOKEN=$(cat /run/secrets/HF_TOKEN); export HF_TOKEN; fi
[ -z "$model" ] || fishserve download "$model"
[ -z "${TRITON_CACHE_DIR:-}" ] || fishserve warm "$TRITON_CACHE_DIR" ${model:+--checkpoint "$model"}
