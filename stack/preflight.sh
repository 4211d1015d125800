#!/usr/bin/env bash
# `make` runs this first. It checks the owner of the checkout, whether .local is writable, and Go.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "dlsms: $*" >&2
  exit 1
}
owner() { ls -ld "$1" | awk '{ print $3 }'; }

# If root ran make, make would leave files here and in Go's caches that the owner of the checkout can't replace.
if [[ -e .local ]]; then
  [[ -O .local ]] ||
    fail "$PWD/.local belongs to the user $(owner .local/): run as $(owner .local/)," \
      "or let that user remove it with \`make clean\`"
elif [[ ! -O . ]]; then
  fail "$PWD belongs to the user $(owner .): run as $(owner .)"
fi
why=$(mkdir -p .local/bin 2>&1) || fail "can't make $PWD/.local/bin: ${why##*: }"
[[ -w .local/bin ]] || fail "this user can't write to $PWD/.local/bin: make it writable, or remove it"

command -v go >/dev/null || fail "Go is missing: install Go 1.26 or newer, see https://go.dev/doc/install"
why=$(go list -m 2>&1) || fail "this Go is too old ($why): install Go 1.26 or newer, see https://go.dev/doc/install"
