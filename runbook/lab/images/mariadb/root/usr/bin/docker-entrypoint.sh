#!/bin/sh
# Starts MariaDB as the official image `mysql` does. Where the data folder is empty it is set up first, by a server that
# nobody else reaches: MYSQL_ROOT_PASSWORD (demanded), MYSQL_DATABASE, MYSQL_USER and MYSQL_PASSWORD are honoured then,
# and not looked at again. Passwords go over standard input, never into arguments. Another command than mysqld is run.
set -eu

data=/var/lib/mysql
unfinished=$data/.being-set-up # a setup that was interrupted begins again; there is no data of anybody's yet
socket=/run/mysqld/setup.sock

case "${1:-}" in
-*) set -- mysqld "$@" ;;
esac
[ "${1:-}" = mysqld ] || exec "$@"

say() {
    echo "docker-entrypoint: $*" >&2
}

# A text or a name, as SQL writes it.
text() {
    printf "'%s'" "$(printf %s "$1" | sed -e 's/\\/\\\\/g' -e "s/'/''/g")"
}
name() {
    printf '`%s`' "$(printf %s "$1" | sed -e 's/`/``/g')"
}

ask() {
    mysql --no-defaults --protocol=socket --socket="$socket" --user=root --batch
}

settings() {
    # root at localhost, as whom this is said, comes last.
    echo 'SET @@SESSION.SQL_LOG_BIN = 0;'
    echo "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');"
    echo "DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';"
    echo 'FLUSH PRIVILEGES;'
    echo "CREATE USER 'root'@'%' IDENTIFIED BY $(text "$MYSQL_ROOT_PASSWORD");"
    echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
    if [ -n "${MYSQL_DATABASE:-}" ]; then
        echo "CREATE DATABASE $(name "$MYSQL_DATABASE");"
    fi
    if [ -n "${MYSQL_USER:-}" ] && [ -n "${MYSQL_PASSWORD:-}" ]; then
        echo "CREATE USER $(text "$MYSQL_USER")@'%' IDENTIFIED BY $(text "$MYSQL_PASSWORD");"
        if [ -n "${MYSQL_DATABASE:-}" ]; then
            echo "GRANT ALL ON $(name "$MYSQL_DATABASE" | sed -e 's/[_%]/\\&/g').* TO $(text "$MYSQL_USER")@'%';"
        fi
    fi
    echo "ALTER USER 'root'@'localhost' IDENTIFIED BY $(text "$MYSQL_ROOT_PASSWORD");"
}

set_up() {
    say 'setting up the data folder'
    touch "$unfinished"
    if ! said=$(mariadb-install-db --rpm --user=mysql --datadir="$data" --skip-test-db \
        --auth-root-authentication-method=socket --auth-root-socket-user=root 2>&1); then
        echo "$said" >&2
        exit 1
    fi
    mysqld --skip-networking --socket="$socket" &
    server=$!
    tries=60
    until echo 'SELECT 1;' | ask >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || ! kill -0 "$server" 2>/dev/null; then
            say 'the server for the setup did not start'
            exit 1
        fi
        sleep 1
    done
    settings | ask
    kill "$server"
    wait "$server"
    rm "$unfinished"
    say 'the data folder is set up'
}

mkdir -p "$data"
if [ -e "$unfinished" ]; then
    say 'an earlier setup was interrupted: beginning again'
    rm -rf "$data"/*
fi
if [ -z "$(ls -A "$data")" ] || [ -e "$unfinished" ]; then
    if [ -z "${MYSQL_ROOT_PASSWORD:-}" ]; then
        say 'the data folder is empty and MYSQL_ROOT_PASSWORD is not set'
        exit 1
    fi
    set_up
fi
exec "$@"
