#!/usr/bin/env bash
# Removes .local, and the database that root's .local may only link to.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v flock >/dev/null && [[ -e .local/lock ]] && ! flock --nonblock .local/lock true; then
  echo "dlsms: a run uses .local (pid $(cat .local/lock)): stop it first, with Ctrl-C there or \`kill $(cat .local/lock)\`" >&2
  exit 1
fi
if [[ -L .local/postgres ]]; then
  target=$(readlink .local/postgres)
  # Only what a run has put there.
  if [[ $target == /var/lib/dlsms/* ]]; then rm -rf "$target"; fi
fi
rm -rf .local
