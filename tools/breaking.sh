#!/usr/bin/env bash
# Compares proto/ with what clients may have generated from: where this branch left main, or on main itself the commit before.
# BASE=v1.0 names another commit. What can't be compared fails, unless there is nothing earlier.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "dlsms: can't tell whether proto/ breaks clients: $*" >&2
  exit 1
}
# A clone may belong to another user, as in CI.
git() { command git -c "safe.directory=$(pwd -P)" "$@"; }

head=$(git rev-parse --verify HEAD) || fail "this is no clone with a commit"
base=
if [[ -n ${BASE:-} ]]; then
  base=$(git rev-parse --verify "$BASE^{commit}") || fail "there is no commit $BASE"
else
  for branch in origin/main main; do
    git rev-parse --quiet --verify "$branch" >/dev/null || continue
    base=$(git merge-base "$head" "$branch") || fail "HEAD and $branch have no commit in common: in a shallow clone, git fetch --unshallow"
    if [[ $base != "$head" ]]; then break; fi
  done
  [[ -n $base ]] || fail "neither origin/main nor main is here: git fetch origin main, or give BASE="
  if [[ $base == "$head" ]]; then
    if [[ -z $(git show --no-patch --format=%P "$head") ]]; then
      [[ $(git rev-parse --is-shallow-repository) == false ]] || fail "the clone is shallow: git fetch --unshallow"
      echo "proto/ has nothing to compare with: this is the first commit"
      exit 0
    fi
    base=$(git rev-parse --verify "$head^1")
  fi
fi

name=$(git show --no-patch --date=short --format='%h (%ad, %s)' "$base")
protos=$(git ls-tree -r --name-only "$base" -- proto)
if [[ -z $protos ]]; then
  echo "proto/ has nothing to compare with: $name has no protos"
  exit 0
fi
rm -rf .local/breaking
mkdir -p .local/breaking
git archive "$base" proto buf.yaml | tar -x -C .local/breaking
.local/bin/buf breaking --against .local/breaking || {
  echo "dlsms: buf breaking failed, compared with $name" >&2
  exit 1
}
echo "proto/ breaks no client of $name: $(wc -l <<<"$protos" | tr -d ' ') files compared"
