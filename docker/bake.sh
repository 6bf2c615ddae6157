#!/usr/bin/env bash
# docker/bake.sh MODEL: fetches a checkpoint into the image, so that a worker starts without the network. Empty: nothing, minnow speaks.
# A gated repository wants HF_TOKEN, as a build secret of that name.
set -euo pipefail
model=${1:-}
[ -n "$model" ] || exit 0
if [ -f /run/secrets/HF_TOKEN ]; then HF_TOKEN=$(cat /run/secrets/HF_TOKEN); export HF_TOKEN; fi
fishserve download "$model"
