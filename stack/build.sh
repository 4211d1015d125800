#!/usr/bin/env bash
# Runs go build with these arguments and shows the number of compiled packages.
# The first build of a clone takes minutes, and go build prints nothing.
set -euo pipefail

# go build asks git for the version. If another user owns the clone, git refuses and go build would fail.
if ! git rev-parse HEAD >/dev/null 2>&1; then set -- -buildvcs=false "$@"; fi

start=$SECONDS
# With -v, go build prints each compiled package on its own line. All other lines are for the user.
go build -v "$@" 2>&1 | {
  count=0
  while IFS= read -r line; do
    if [[ $line =~ ^[^[:space:]:]+$ && $line != \#* ]]; then
      count=$((count + 1))
      if [[ -t 1 ]]; then
        printf '\rbuild    | %d packages, %d s' "$count" $((SECONDS - start))
      elif ((count % 50 == 0)); then
        echo "build    | $count packages, $((SECONDS - start)) s"
      fi
    else
      printf '%s\n' "$line"
    fi
  done
  if [[ -t 1 ]] && ((count > 0)); then echo; fi
}
