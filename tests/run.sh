#!/usr/bin/env bash
# Runs every check, one after the other, whatever the others find: says which it is at, and ends with a line for each. Fails if one did.
# run.sh BIN: the directory of python's commands.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=$1
step=0
failed=0
summary=()

note() { # NAME EXIT_CODE SECONDS
  local result=passed
  if [ "$2" -ne 0 ]; then
    result="FAILED (exit code $2)"
    failed=1
  fi
  summary+=("$(printf '%-16s %-22s %5d s' "$1" "$result" "$3")")
}

check() { # NAME COMMAND...
  step=$((step + 1))
  printf '[%d/6] ' $step
  local began=$SECONDS
  bash tests/step.sh "$@"
  note "$1" $? $((SECONDS - began))
}

# Hundreds of processes import the same modules. In a fresh clone pytest rewrites the tests and keeps them while the type check has one core.
unset PYTHONDONTWRITEBYTECODE
[ -d tests/__pycache__ ] || "$bin/pytest" --collect-only -q >/dev/null 2>&1 &

began=$SECONDS
check lint "$bin/ruff" check .
check format "$bin/ruff" format --check .
check types "$bin/mypy"
check imports "$bin/lint-imports" --no-cache
check "system packages" bash tests/system.sh
grep -h '^cannot install' var/log/system-packages.log || true

wait # for the rewritten tests
# A process of tests takes up to 1.6 GB. Many tests wait, so that there may be more processes than cores.
memory=$(awk '/MemAvailable/ {print int($2 / 2000000)}' /proc/meminfo 2>/dev/null)
at_once=$((${memory:-3} < 2 ? 2 : ${memory:-3} > 4 ? 4 : ${memory:-3}))
echo "[6/6] tests, $at_once files at a time: some of them wait:"
tests_began=$SECONDS
# Threads come and go in the tests: with an arena of memory for each, glibc keeps hundreds of megabytes that nobody uses.
MALLOC_ARENA_MAX=2 ONEDNN_PRIMITIVE_CACHE_CAPACITY=256 "$bin/pytest" --numprocesses $at_once --dist loadfile --no-loadscope-reorder --durations 15
code=$?
[ $code -eq 5 ] && echo "pytest found no tests: it was started outside the repository, or its options select none"
note tests $code $((SECONDS - tests_began))

echo
printf '%s\n' "${summary[@]}"
echo "all together $((SECONDS - began)) s"
exit $failed
