#!/usr/bin/env bash
# Compares proto/ with an earlier commit and fails if a change breaks clients that were generated from it.
# The earlier commit is the one where this branch left main; on main, it is the parent commit.
# BASE=v1.0 names another commit. Without an earlier commit the script passes; if it can't compare, it fails.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "dlsms: can't compare proto/ with an earlier commit: $*" >&2
  exit 1
}
# In CI, the clone may belong to another user.
git() { command git -c "safe.directory=$(pwd -P)" "$@"; }

head=$(git rev-parse --verify HEAD) || fail "this is no clone with a commit"
base=
if [[ -n ${BASE:-} ]]; then
  base=$(git rev-parse --verify "$BASE^{commit}") || fail "there is no commit $BASE"
else
  for branch in origin/main main; do
    git rev-parse --quiet --verify "$branch" >/dev/null || continue
    base=$(git merge-base "$head" "$branch") ||
      fail "HEAD and $branch have no common commit: in a shallow clone, run git fetch --unshallow"
    if [[ $base != "$head" ]]; then break; fi
  done
  [[ -n $base ]] || fail "neither origin/main nor main is here: run git fetch origin main, or set BASE"
  if [[ $base == "$head" ]]; then
    if [[ -z $(git show --no-patch --format=%P "$head") ]]; then
      [[ $(git rev-parse --is-shallow-repository) == false ]] ||
        fail "the clone is shallow: run git fetch --unshallow"
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
