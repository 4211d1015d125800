#!/bin/sh
# Backs up and restores the database of DL-SMS in containers, with Compose v2 or Compose 1.29.
#   deploy/database.sh backup [FILE]    write a dump to a new file; the system continues to run
#   deploy/database.sh restore FILE     replace the database with a dump
# COMPOSE_FILE names the file if it is not docker-compose.yml. docs/operating/backup.md has the details.
set -eu

usage='usage: deploy/database.sh backup [FILE] | deploy/database.sh restore FILE'
log() { echo "database: $*"; }
fail() {
  echo "database: $*" >&2
  exit 1
}

if docker compose version >/dev/null 2>&1; then
  docker_compose='docker compose'
elif command -v docker-compose >/dev/null; then
  docker_compose='docker-compose'
else
  fail "Docker Compose is missing: install the plugin docker-compose-v2"
fi
# shellcheck disable=SC2086 # two words
compose() { $docker_compose "$@"; }
# inside runs a program in the container of Postgres. Without -T, Compose would change the bytes of a dump.
inside() { compose exec -T postgres "$@"; }
# sql runs statements in a database, each argument in its own transaction, and prints the rows.
sql() {
  database=$1
  shift
  for statement; do
    set -- "$@" --command "$statement"
    shift
  done
  inside env PGOPTIONS=-cclient_min_messages=warning \
    psql -U dlsms -d "$database" --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 "$@" </dev/null
}

backup() {
  [ ! -e "$file" ] || fail "$file exists, and a backup never replaces a file: choose another name, or remove the file"
  umask 077
  set -C # do not write to a file that exists
  partial=$file.$$.partial
  log "writing $file"
  inside pg_dump -U dlsms --format=custom dlsms >"$partial" </dev/null ||
    fail "pg_dump failed, and no file was written: see the lines above"
  # The dump came through a pipe. Read all of it, to detect that its end is missing.
  inside pg_restore --file=/dev/null <"$partial" || fail "the dump is not complete, and no file was written: try again"
  [ ! -e "$file" ] || fail "another backup has written $file: choose another name"
  mv "$partial" "$file"
  partial=
  log "done after $(($(date +%s) - begin)) s: $file has $(wc -c <"$file" | tr -d ' ') bytes"
  log "the file has personal data and password hashes: keep it where only operators can read it"
}

restore() {
  { [ -f "$file" ] && [ -r "$file" ]; } || fail "can't read the file $file: choose a file that \`backup\` wrote"
  contents=$(inside pg_restore --list <"$file") ||
    fail "$file is not a readable dump, and nothing is changed: choose a file that \`backup\` wrote"
  for table in database_identity goose_db_version reservation_events; do
    case $contents in
      *" TABLE DATA public $table "*) ;;
      *) fail "$file is a dump of another database, without the table $table: choose a file that \`backup\` wrote" ;;
    esac
  done
  services=$(compose config --services)
  apps=$(echo "$services" | grep -vxE 'postgres|redis|nginx|gateway|prometheus|node-exporter|grafana|jaeger')
  proxy=$(echo "$services" | grep -xE 'nginx|gateway')
  unchanged="$file is not restored, and the database is unchanged: see the lines above"

  # The replicas continue to run on the old database until the new one is complete.
  log "reading $file into a new database"
  created=yes
  sql postgres 'DROP DATABASE IF EXISTS dlsms_restoring WITH (FORCE)' \
    'DROP DATABASE IF EXISTS dlsms_replaced WITH (FORCE)' \
    'CREATE DATABASE dlsms_restoring TEMPLATE template0' || fail "$unchanged"
  id=$(sql postgres "SELECT oid FROM pg_database WHERE datname = 'dlsms_restoring'") || fail "$unchanged"
  inside pg_restore -U dlsms -d dlsms_restoring --single-transaction --no-owner --no-privileges \
    <"$file" || fail "$unchanged"
  log "migrating the new database"
  compose run --rm -T --no-deps -e 'DATABASE_URL=postgres://dlsms@postgres:5432/dlsms_restoring?sslmode=disable' \
    "$(echo "$apps" | head -n 1)" migrate </dev/null || fail "$unchanged"
  sql dlsms_restoring ANALYZE || fail "$unchanged"

  log "stopping the replicas"
  stopped=$apps
  # shellcheck disable=SC2086 # a list
  compose stop $apps || fail "$unchanged"
  # A session of psql or of a monitor would prevent the change of names. Several statements in one
  # argument are one transaction. If another restore has begun in the meantime, dlsms_restoring is its
  # database, which is incomplete.
  sql postgres "DO \$\$ BEGIN PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
      WHERE datname IN ('dlsms', 'dlsms_restoring'); END \$\$" \
    "ALTER DATABASE dlsms RENAME TO dlsms_replaced; ALTER DATABASE dlsms_restoring RENAME TO dlsms;
    DO \$\$ BEGIN
      IF NOT EXISTS (SELECT FROM pg_database WHERE datname = 'dlsms' AND oid = $id) THEN
        RAISE 'another restore has begun: wait for its end';
      END IF;
    END \$\$" || fail "$unchanged"
  created=
  log "starting the replicas"
  start_apps || fail "the database is restored, but the replicas do not start: see \`$docker_compose logs\`"
  sql postgres 'DROP DATABASE dlsms_replaced WITH (FORCE)' ||
    log "the replaced database dlsms_replaced remains until the next restore"
  wait_until_healthy
  log "done after $(($(date +%s) - begin)) s: the system serves the data of $file"
}

# start_apps starts the stopped replicas. They may get other addresses, so nginx must resolve their names again.
start_apps() {
  # shellcheck disable=SC2086 # a list
  compose start $stopped || return 1
  stopped=
  compose exec -T "$proxy" nginx -c /tmp/nginx.conf -s reload </dev/null ||
    log "nginx is not reloaded: if it runs, run \`$docker_compose exec $proxy nginx -c /tmp/nginx.conf -s reload\`"
}

wait_until_healthy() {
  limit=$(($(date +%s) + 120))
  for app in $apps; do
    until [ "$(docker inspect --format '{{.State.Health.Status}}' "$(compose ps -q "$app")")" = healthy ]; do
      [ "$(date +%s)" -lt "$limit" ] ||
        fail "the database is restored, but $app is not healthy after 120 s: see \`$docker_compose logs $app\`"
      sleep 1
    done
  done
}

# finish undoes an incomplete step. It runs at each exit, also after Ctrl-C.
finish() {
  if [ -n "$partial" ]; then rm -f "$partial"; fi
  if [ -n "$created" ]; then sql postgres 'DROP DATABASE IF EXISTS dlsms_restoring WITH (FORCE)' || true; fi
  if [ -n "$stopped" ]; then start_apps || true; fi
}

verb=${1:-}
file=${2:-}
case $verb:$# in
  backup:1) file=dlsms-$(date -u +%Y%m%dT%H%M%SZ).dump ;;
  backup:2 | restore:2) ;;
  *) fail "$usage" ;;
esac
case $file in
  '') fail "$usage" ;;
  /*) ;;
  *) file=$PWD/$file ;;
esac
cd "$(dirname "$0")/.."
begin=$(date +%s)
partial='' created='' stopped=''
trap finish EXIT
trap 'exit 130' HUP INT TERM
inside true </dev/null >/dev/null 2>&1 || fail "Postgres does not run: start it with \`$docker_compose up -d postgres\`"
"$verb"
