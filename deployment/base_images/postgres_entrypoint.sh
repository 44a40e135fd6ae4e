#!/bin/bash
# Starts PostgreSQL with the part of the official image's interface that the platform uses: POSTGRES_USER, POSTGRES_DB,
# POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, PGDATA, and flags for the server.
#
# A database is made in $PGDATA/.initialising and moved up when it is complete, PG_VERSION last. So a folder with PG_VERSION
# holds a whole database, and .initialising without it is what a crash left.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

# The password, for the process that makes the database; root may read a secret that user postgres may not.
read_password() {
    if [[ -n ${POSTGRES_PASSWORD:-} && -n ${POSTGRES_PASSWORD_FILE:-} ]]; then
        fail "both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set; keep one."
    fi
    if [[ -n ${POSTGRES_PASSWORD_FILE:-} ]]; then
        [[ -r $POSTGRES_PASSWORD_FILE ]] || fail "POSTGRES_PASSWORD_FILE names $POSTGRES_PASSWORD_FILE, which cannot be read."
        POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
        unset POSTGRES_PASSWORD_FILE
    fi
    if [[ -z ${POSTGRES_PASSWORD:-} ]]; then
        fail "there is no database in $PGDATA yet, and none is made without a password: set POSTGRES_PASSWORD_FILE."
    fi
    export POSTGRES_PASSWORD
}

own_folders() {
    mkdir -p "$PGDATA" /run/postgresql
    chmod 0700 "$PGDATA"
    find "$PGDATA" /run/postgresql ! -user postgres -exec chown --no-dereference postgres:postgres {} +
}

clear_leftovers() {
    if [[ -d $unfinished ]]; then
        echo "an earlier start was interrupted while it made the database; making it anew"
        find "$PGDATA" -mindepth 1 -delete
    elif [[ -n $(ls -A "$PGDATA") ]]; then
        fail "$PGDATA holds files but no database; let PGDATA name an empty folder, such as a new one below it."
    fi
}

make_database() {
    local user=${POSTGRES_USER:-postgres}
    local name=${POSTGRES_DB:-$user}
    mkdir "$unfinished"
    # As in the official image, whoever is inside the container needs no password on the socket; all others do.
    initdb --pgdata="$unfinished" --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --auth-local=trust --auth-host=scram-sha-256 --set=listen_addresses='*' --no-instructions
    echo 'host all all all scram-sha-256' >>"$unfinished/pg_hba.conf"
    if [[ $name != postgres ]]; then
        printf 'CREATE DATABASE "%s"\n' "${name//\"/\"\"}" |
            postgres --single -D "$unfinished" -c exit_on_error=on postgres >/dev/null
    fi
}

publish_database() {
    find "$unfinished" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv --target-directory="$PGDATA" {} +
    sync --file-system "$PGDATA"
    mv "$unfinished/PG_VERSION" "$PGDATA/PG_VERSION"
    sync --file-system "$PGDATA"
}

if [[ $# == 0 || ${1:0:1} == - ]]; then
    set -- postgres "$@"
fi
case "$1 ${2:-}" in
"postgres --version" | "postgres -V" | "postgres --help" | "postgres -?" | "postgres --describe-config") exec "$@" ;;
"postgres "*) ;;
*) exec "$@" ;;
esac

readonly unfinished=$PGDATA/.initialising
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    read_password
fi
if [[ $(id -u) == 0 ]]; then
    own_folders
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    clear_leftovers
    make_database
    publish_database
fi
rm -rf "$unfinished"
unset POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
exec "$@"
