#!/usr/bin/env bash
# docker/install.sh EXTRA DIRECTORY: a virtual environment with fishserve[EXTRA], pinned, from the source tree this script lies in.
set -euo pipefail
extra=$1 directory=$2
source_tree=$(cd "$(dirname "$0")/.." && pwd)
python3 -m venv "$directory"
"$directory/bin/pip" install --no-cache-dir --disable-pip-version-check --constraint "$source_tree/constraints.txt" "$source_tree[$extra]"
"$directory/bin/python" -c 'import inference, saas, worker'
