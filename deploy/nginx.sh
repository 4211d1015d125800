#!/bin/sh
# Runs nginx with a copy of a configuration. docker-compose.yml and `make run` use this script:
#   nginx.sh CONFIGURATION COPY CERTIFICATES SECONDS [ARGUMENT...]
# nginx would not start with some lines. The copy does not have them:
#   - the lines for IPv6, if the kernel has no IPv6
#   - the lines for TLS, if the directory CERTIFICATES has no certificate.pem
#   - keepalive_min_timeout, if nginx does not know it
# Every SECONDS the script looks for another certificate or key, and lets nginx load it. nginx keeps the old ones if the
# new ones are not valid or are missing. With 0 SECONDS the script does not look.
# NGINX_PROGRAM is the program, by default the nginx in PATH.
set -eu

nginx=${NGINX_PROGRAM:-nginx}
conf=$1 copy=$2 certificates=$3 pause=$4
shift 4

configure() {
  without_ipv6='' without_tls='' without_min=''
  [ -e /proc/net/if_inet6 ] || without_ipv6='/listen \[::\]/d'
  [ -e "$certificates/certificate.pem" ] || without_tls='/ssl/d'
  grep -q keepalive_min_timeout "$(command -v "$nginx")" || without_min='/keepalive_min_timeout/d'
  sed -e "$without_ipv6" -e "$without_tls" -e "$without_min" "$conf" >"$copy"
}

checksum() {
  cat "$certificates/certificate.pem" "$certificates/key.pem" 2>&1 | cksum
}

# follow runs in the background. $$ is the process of this script, which becomes nginx.
follow() {
  loaded=$1 reported=''
  shift
  while sleep "$pause" && kill -0 $$ 2>/dev/null; do
    now=$(checksum)
    [ "$now" != "$loaded" ] || continue
    if [ ! -e "$certificates/certificate.pem" ]; then
      fault='certificate.pem is missing'
    elif fault=$({ configure && "$nginx" -t -c "$copy" "$@"; } 2>&1); then
      kill -HUP $$
      echo 'nginx.sh: nginx loads the new certificate' >&2
      loaded=$now reported=''
      continue
    fi
    # nginx -t also fails while the name of a replica is unknown, so the loop tries again.
    reason=$(printf '%s\n' "$fault" | sed -n 's/.*\[emerg\] [0-9#]*: //p')
    fault=${reason:-$fault}
    if [ "$fault" != "$reported" ]; then
      echo "nginx.sh: can't load a new certificate, nginx keeps the old one: $fault" >&2
      reported=$fault
    fi
  done
}

configure
if [ "$pause" != 0 ]; then
  follow "$(checksum)" "$@" &
fi
exec "$nginx" -c "$copy" "$@" -g 'daemon off;'
