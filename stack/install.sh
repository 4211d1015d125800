#!/usr/bin/env bash
# Prints and installs the missing programs.
#   run    PostgreSQL, Redis and nginx
#   node   Node, which builds the web client
#   browser  Node, and Chromium with fonts, for the tests of the web client
#   test   all of these, a C compiler for Go's race detector, the programs of the clients in docs/clients,
#          and Prometheus
# It is a shell script because Go can't fetch modules before ca-certificates is installed.
set -euo pipefail

want=${1:?usage: stack/install.sh run|node|browser|test}

# On Debian, the programs of Postgres are not in PATH, and nginx is not in the PATH of an ordinary user.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/usr/local/bin:/opt/homebrew/bin

has_postgres() {
  local dir dirs
  IFS=: read -ra dirs <<<"$PATH"
  for dir in "${dirs[@]}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
    /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
    if [[ -x $dir/postgres && -x $dir/initdb ]]; then return 0; fi
  done
  return 1
}
has_redis() { command -v redis-server >/dev/null || command -v valkey-server >/dev/null; }
has_nginx() { command -v nginx >/dev/null; }
# A compiler without the C library's headers is not enough.
has_cc() {
  printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | "${CC:-gcc}" -x c -o /dev/null - 2>/dev/null
}
has_node() { command -v node >/dev/null && command -v npm >/dev/null; }
has_chromium() {
  command -v chromium || command -v chromium-browser || command -v google-chrome ||
    [[ -d /Applications/Chromium.app || -d "/Applications/Google Chrome.app" ]]
} >/dev/null
# The tests write texts in Chinese. macOS has fonts for all languages.
has_fonts() { ! command -v fc-list >/dev/null || [[ -n $(fc-list :lang=zh) ]]; }
has_protoc() { command -v protoc >/dev/null && command -v grpc_python_plugin >/dev/null; }
# apt installs Python packages for the system's python3, so try that one first.
has_python() {
  local python
  for python in /usr/bin/python3 python3; do
    if "$python" -c 'import grpc, google.protobuf' 2>/dev/null; then return 0; fi
  done
  return 1
}
has_prometheus() {
  command -v prometheus >/dev/null && command -v promtool >/dev/null &&
    { command -v prometheus-node-exporter || command -v node_exporter; } >/dev/null
}
has_certificates() { [[ -s /etc/ssl/certs/ca-certificates.crt || -d /etc/pki/tls/certs || ! -e /etc/debian_version ]]; }

missing=()
if [[ $want == run || $want == test ]]; then
  has_postgres || missing+=(postgresql)
  has_redis || missing+=(redis)
  has_nginx || missing+=(nginx)
fi
if [[ $want != run ]]; then has_node || missing+=(node); fi
if [[ $want == browser || $want == test ]]; then
  has_chromium || missing+=(chromium)
  has_fonts || missing+=(fonts)
fi
if [[ $want == test ]]; then
  has_cc || missing+=(compiler)
  has_protoc || missing+=(protoc)
  has_python || missing+=(python)
  has_prometheus || missing+=(prometheus)
fi
has_certificates || missing+=(certificates)
if ((${#missing[@]} == 0)); then exit 0; fi

fail() {
  echo "dlsms: $*" >&2
  exit 1
}

# packages MANAGER prints the names that the package manager uses for the missing programs.
packages() {
  local name
  for name in "${missing[@]}"; do
    case $1:$name in
      *:postgresql) echo "$([[ $1 == brew ]] && echo postgresql@17 || echo postgresql)" ;;
      apt:redis) echo redis-server ;;
      apt:compiler) echo gcc libc6-dev ;;
      apt:certificates) echo ca-certificates ;;
      apt:node) echo nodejs npm ;;
      apt:protoc) echo protobuf-compiler protobuf-compiler-grpc ;;
      apt:prometheus) echo prometheus prometheus-node-exporter ;;
      *:prometheus) echo prometheus node_exporter ;;
      # Chromium writes a warning without a font. The second font has all Chinese characters in 4 MB.
      apt:chromium) echo chromium fonts-dejavu-core fonts-droid-fallback ;;
      apt:fonts) echo fonts-droid-fallback ;;
      brew:chromium) echo chromium ;;
      apt:python) echo python3 python3-grpcio python3-protobuf ;;
      *:protoc) echo protobuf grpc ;;
      *) echo "$name" ;;
    esac
  done
}

if command -v apt-get >/dev/null; then
  list=($(packages apt))
  command="apt-get update && apt-get install -y --no-install-recommends ${list[*]}"
  as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "missing on this machine: ${list[*]}. Run as root: $command"
    as_root=(sudo)
  fi
  echo "dlsms: missing on this machine: ${list[*]}"
  echo "dlsms: installing with ${as_root[*]:+${as_root[*]} }apt-get"
  echo "dlsms: the services of these packages are not started; DL-SMS runs its own servers on other ports"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive bash -euo pipefail -c '
    # Packages run policy-rc.d before they start a service. Its exit code 101 forbids the start. An existing policy-rc.d
    # stays unchanged.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
      trap "rm -f $policy" EXIT
      printf "#!/bin/sh\nexit 101\n" >$policy
      chmod 755 $policy
    fi
    apt-get update
    "$0" "$@"
    # The service of Prometheus would take port 9090, which is that of make run, after the next boot.
    new=()
    for service in prometheus prometheus-node-exporter; do
      if [[ " $* " == *" $service "* && ! -e /usr/bin/$service ]]; then new+=($service); fi
    done
    apt-get install -y --no-install-recommends "$@"
    if ((${#new[@]} > 0)) && command -v systemctl >/dev/null; then systemctl disable "${new[@]}" || :; fi
  ' "$(dirname "$0")/releases.sh" "${list[@]}" || {
    if (($? == 3)); then exit 1; fi # releases.sh has printed the reason
    fail "the installation failed. Run as root: $command"
  }
elif command -v brew >/dev/null; then
  list=($(packages brew))
  [[ " ${list[*]} " != *" compiler "* ]] || fail "a C compiler is missing. Run: xcode-select --install"
  [[ " ${list[*]} " != *" python "* ]] || fail "Python's gRPC is missing. Run: python3 -m pip install grpcio protobuf"
  echo "dlsms: missing on this machine, installing with brew: ${list[*]}"
  brew install "${list[@]}" || fail "the installation failed. Run: brew install ${list[*]}"
else
  list=$(packages other | tr '\n' ' ')
  fail "missing on this machine: $list- install them (PostgreSQL 15, Redis 7, nginx 1.22, or newer), then run again"
fi
echo "dlsms: installed"
