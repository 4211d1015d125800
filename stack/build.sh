#!/usr/bin/env bash
# go build with these arguments, counting what it compiles: the first build of a clone takes minutes, and go build is silent.
set -euo pipefail

# Asked of git for the version in the binary. In a clone that another user owns, git refuses and go build would fail.
if ! git rev-parse HEAD >/dev/null 2>&1; then set -- -buildvcs=false "$@"; fi

start=$SECONDS
# -v names each package on a line of its own when it had to be compiled; everything else is for the reader.
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
