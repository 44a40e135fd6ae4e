#!/bin/bash
# Starts RabbitMQ with the part of the official image's interface that the platform uses: settings in /etc/rabbitmq, data in
# /var/lib/rabbitmq, which the server's own user gets; any other command runs as it stands.
set -euo pipefail

readonly data=/var/lib/rabbitmq

# The server and its command-line tools know each other by this file. A tool that ran before the server would write it as a user
# of its own, so it is here before either.
write_cookie() {
    local fresh
    fresh=$(mktemp "$data/.erlang.cookie.XXXXXX")
    head --bytes=32 /dev/urandom | sha256sum | cut --delimiter=' ' --fields=1 >"$fresh"
    chmod 0400 "$fresh"
    mv "$fresh" "$data/.erlang.cookie"
}

if [[ $1 == rabbitmq* && $(id -u) == 0 ]]; then
    if [[ $1 == rabbitmq-server ]]; then
        find "$data" ! -user rabbitmq -exec chown --no-dereference rabbitmq:rabbitmq {} +
    fi
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
fi
if [[ $1 == rabbitmq-server && ! -s $data/.erlang.cookie ]]; then
    write_cookie
fi

# A host name with dots needs long node names.
if [[ $(hostname) == *.* ]]; then
    export RABBITMQ_USE_LONGNAME=${RABBITMQ_USE_LONGNAME:-true}
fi

# The start script then gives its process to the server, which gets the signals itself.
export RUNNING_UNDER_SYSTEMD=true
exec "$@"
