#!/usr/bin/env bash
# Checks whether this release of the system has new enough versions of these apt packages.
# If not, it prints one line and exits with code 3.
set -euo pipefail

old=()
for package in "$@"; do
  case $package in
    postgresql) needed=15 ;;
    redis-server) needed=7 ;;
    nginx) needed=1.22 ;;
    *) continue ;;
  esac
  found=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
  if [[ ${found#*:} =~ ^([0-9]+)(\.([0-9]+))? ]]; then
    major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[3]:-0}
    if ((major < ${needed%%.*})) ||
      { [[ $needed == *.* ]] && ((major == ${needed%%.*} && minor < ${needed#*.})); }; then
      old+=("$package $major.$minor ($needed is needed)")
    fi
  fi
done
if ((${#old[@]} > 0)); then
  list=$(printf ', %s' "${old[@]}")
  echo "dlsms: this release is too old, it has ${list:2}: use Debian 12, Ubuntu 24.04, or newer" >&2
  exit 3
fi
