#!/usr/bin/env bash
# Installs each client into an environment of its own, so that their pins do not clash: tests/clients/install.sh [NAME...]
set -euo pipefail
cd "$(dirname "$0")/../.."
lists=tests/clients/environments

newest_python() { # at least 3.$1; pyenv keeps those that are not chosen off the PATH
    for minor in 13 12 11; do
        for python in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor."*/bin/python3; do
            if [ "$minor" -ge "$1" ] && "$python" -c 'import venv' 2>/dev/null; then
                echo "$python"
                return
            fi
        done
    done
    return 1
}

python_environment() {
    local name=$1 folder=var/clients/$1 python
    case $name in
        wyoming) python=$(newest_python 12) || { echo "$name needs Python 3.12 or newer; it is left out"; return; } ;;
        *) python=${PYTHON:-python3} ;;
    esac
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$lists/$name.txt"
    if [ -f "$lists/$name-no-deps.txt" ]; then
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$lists/$name-no-deps.txt"
    fi
    touch "$folder/.installed"
}

node_environment() {
    mkdir -p var/clients/node
    cp "$lists/package.json" var/clients/node/
    (cd var/clients/node && npm install --ignore-scripts --no-audit --no-fund --silent)
    touch var/clients/node/.installed
}

[ $# -gt 0 ] || set -- openai elevenlabs fish litellm livekit pipecat wyoming open_webui node
for name in "$@"; do
    list=$lists/$name.txt
    if [ "$name" = node ]; then list=$lists/package.json; fi
    if [ "var/clients/$name/.installed" -nt "$list" ]; then continue; fi
    echo "installing $name"
    if [ "$name" = node ]; then node_environment; else python_environment "$name"; fi
done
