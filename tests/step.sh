#!/usr/bin/env bash
# step.sh [--progress] NAME COMMAND...: says what it does and how long that took. What the command writes goes to var/log/NAME.log, and is shown only if it
# fails; with --progress it goes to the terminal, where there is one.
set -uo pipefail
progress=
if [ "$1" = --progress ]; then
  shift
  [ -t 1 ] && progress=1
fi
name=$1
shift
log=var/log/${name// /-}.log
mkdir -p var/log
printf '%s ... ' "$name"
SECONDS=0
if [ -n "$progress" ]; then
  echo
  "$@" </dev/null
else
  "$@" >"$log" 2>&1 </dev/null
fi
code=$?
if [ $code -eq 0 ]; then
  echo "done in $SECONDS s"
else
  echo "FAILED after $SECONDS s with exit code $code; $log:"
  [ -n "$progress" ] || cat "$log"
fi
exit $code
