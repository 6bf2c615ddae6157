#!/usr/bin/env bash
# step.sh NAME COMMAND...: says what it does and how long that took. What the command writes goes to var/log/NAME.log, and is shown only if it fails.
set -uo pipefail
name=$1
shift
log=var/log/${name// /-}.log
mkdir -p var/log
printf '%s ... ' "$name"
SECONDS=0
"$@" >"$log" 2>&1 </dev/null
code=$?
if [ $code -eq 0 ]; then
  echo "done in $SECONDS s"
else
  echo "FAILED after $SECONDS s with exit code $code; $log:"
  cat "$log"
fi
exit $code
