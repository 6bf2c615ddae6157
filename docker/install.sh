#!/usr/bin/env bash
# docker/install.sh packages|fishserve EXTRAS DIRECTORY: a virtual environment with what fishserve[EXTRAS] needs, pinned, then fishserve itself,
# from the source tree this script lies in. `packages` needs pyproject.toml and constraints.txt alone, so that an image keeps that layer.
# TORCH_CUDA, such as cu126, names another of torch's builds than PyPI's, which is the one for CUDA 13.0.
set -euo pipefail
what=$1 extra=$2 directory=$3
source_tree=$(cd "$(dirname "$0")/.." && pwd)
pip=("$directory/bin/pip" install --no-cache-dir --disable-pip-version-check --constraint "$source_tree/constraints.txt")
if [ "$what" = packages ]; then
  python3 -m venv "$directory"
  wanted=$(mktemp)
  "$directory/bin/python" - "$source_tree/pyproject.toml" "$extra" >"$wanted" <<'PYTHON'
import re, sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
def of(extra):
    for requirement in project["optional-dependencies"][extra]:
        if own := re.fullmatch(r"fishserve\[(.*)\]", requirement):
            for other in own[1].split(","):
                yield from of(other)
        else:
            yield requirement
print("\n".join([*project["dependencies"], *(one for extra in sys.argv[2].split(",") for one in of(extra))]))
PYTHON
  if [ "${TORCH_CUDA:-cu130}" != cu130 ] && grep -q '^torch' "$wanted"; then
    torch=$(grep '^torch==' "$source_tree/constraints.txt")
    "${pip[@]}" --extra-index-url "https://download.pytorch.org/whl/$TORCH_CUDA" "$torch+$TORCH_CUDA"
  fi
  "${pip[@]}" --requirement "$wanted"
  rm "$wanted"
else
  "${pip[@]}" "$source_tree[$extra]"
  (cd / && "$directory/bin/python" -c 'import fishserve, inference, saas, worker')
fi
