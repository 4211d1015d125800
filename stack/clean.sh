#!/usr/bin/env bash
# Removes .local. If .local/postgres links to a database of this checkout, it also removes the database.
# stack/owner.go describes the owner of a database.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "dlsms: $*" >&2
  exit 1
}

[[ -e .local || -L .local ]] || exit 0
if [[ -d .local && ! -w .local ]]; then fail "this user can't remove $PWD/.local: run as the user who owns it"; fi

if [[ -e .local/lock ]]; then
  pid=$(cat .local/lock)
  running="a run uses .local (pid $pid): stop it first, with Ctrl-C there or \`kill $pid\`"
  if command -v flock >/dev/null; then
    exec 9<.local/lock
    flock --nonblock 9 || fail "$running" # hold the lock until everything is deleted
  elif [[ $pid == [1-9]* && $(ps -o comm= -p "$pid") == *dlsms* ]]; then
    fail "$running"
  fi
fi

# ours TARGET succeeds if the database belongs to this checkout, or to a checkout that was deleted.
ours() {
  local owner
  [[ -f $1/owner ]] || return 1
  owner=$(tail -n +2 "$1/owner")
  [[ $owner == "$(pwd -P)/.local" ]] || ! cmp -s "$1/owner" "$owner/postgres/owner"
}

if [[ -L .local/postgres ]]; then
  target=$(readlink .local/postgres)
  if ! [[ $target =~ ^/var/lib/dlsms/[0-9a-f]+-[^/]+$ && -d $target ]]; then
    : # a run did not create this link
  elif ours "$target"; then
    rm -rf "$target"
  else
    echo "dlsms: $target is kept: it belongs to $(tail -n +2 "$target/owner" 2>/dev/null || echo "an earlier version")"
  fi
fi
rm -rf .local
