#!/bin/bash
# Starts MariaDB as the official image does: the same environment, paths and
# order, so that what works on this image works on that one.
set -euo pipefail
shopt -s nullglob

variables=(ROOT_PASSWORD ROOT_HOST DATABASE USER PASSWORD INITDB_SKIP_TZINFO)

main() {
	case ${1-} in
	-* | '') set -- mariadbd "$@" ;;
	esac
	case $1 in
	mariadbd | mysqld)
		if ! asks_for_help "$@"; then
			prepare "$@"
		fi
		;;
	esac
	exec "$@"
}

asks_for_help() {
	local arg
	for arg; do
		case $arg in
		-\? | --help | --print-defaults | -V | --version) return 0 ;;
		esac
	done
	return 1
}

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

prepare() {
	settings
	datadir=$(configured datadir "$@")
	socket=$(configured socket "$@")
	mkdir -p "$datadir" "${socket%/*}"
	if [ "$(id -u)" = 0 ]; then
		find "$datadir" "${socket%/*}" \! -user mysql -exec chown mysql: '{}' +
		exec gosu mysql "$0" "$@"
	fi
	if [ ! -d "$datadir/mysql" ]; then
		initialize "$@"
	fi
	# The server needs none of them, and a crash dump must not hold them.
	unset {MARIADB,MYSQL}_{ROOT_,}PASSWORD
}

# settings gives every variable of the image its value: its own name comes
# before MySQL's, and NAME_FILE stands for NAME.
settings() {
	local v
	for v in "${variables[@]}"; do
		from_file "MARIADB_$v" "MYSQL_$v"
	done
	: "${MARIADB_ROOT_HOST:=%}"
	export MARIADB_ALLOW_EMPTY_ROOT_PASSWORD="${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:-${MYSQL_ALLOW_EMPTY_PASSWORD-}}"
	export MARIADB_RANDOM_ROOT_PASSWORD="${MARIADB_RANDOM_ROOT_PASSWORD:-${MYSQL_RANDOM_ROOT_PASSWORD-}}"
}

from_file() {
	local name file value=
	for name; do
		file="${name}_FILE"
		if [ -n "${!name-}" ] && [ -n "${!file-}" ]; then
			die "both $name and $file are set, and only one may be"
		fi
		if [ -n "${!file-}" ]; then
			export "$name=$(<"${!file}")"
			unset "$file"
		fi
		value=${value:-${!name-}}
	done
	export "$1=$value"
}

# configured NAME SERVER ARGS...: the value the server itself would use.
configured() {
	local name=$1 help
	shift
	if ! help=$("$@" --verbose --help --log-bin-index=/dev/null 2>/dev/null); then
		"$@" --verbose --help --log-bin-index=/dev/null >/dev/null || :
		die "read the configuration of $1: its reason is above"
	fi
	sed -n "s/^$name  *//p" <<<"$help"
}

initialize() {
	if [ -z "$MARIADB_ROOT_PASSWORD$MARIADB_ALLOW_EMPTY_ROOT_PASSWORD$MARIADB_RANDOM_ROOT_PASSWORD" ]; then
		die 'the database is not initialized and root has no password: set MARIADB_ROOT_PASSWORD' \
			'(or MARIADB_ALLOW_EMPTY_ROOT_PASSWORD, or MARIADB_RANDOM_ROOT_PASSWORD)'
	fi
	printf 'Initializing database files\n'
	mariadb-install-db --datadir="$datadir" --rpm --auth-root-authentication-method=normal --skip-test-db \
		--default-time-zone=SYSTEM --enforce-storage-engine= --skip-log-bin --expire-logs-days=0 \
		--loose-innodb_buffer_pool_load_at_startup=0 --loose-innodb_buffer_pool_dump_at_shutdown=0 "${@:2}"
	printf 'Database files initialized\n'
	start "$@"
	users
	process /docker-entrypoint-initdb.d/*
	printf 'Stopping temporary server\n'
	kill "$server"
	wait "$server"
	unset MYSQL_PWD
	printf '\nMariaDB init process done. Ready for start up.\n\n'
}

# start runs the server on its socket alone: nobody must take it for the real one.
start() {
	"$@" --skip-networking --socket="$socket" --skip-slave-start --default-time-zone=SYSTEM \
		--expire-logs-days=0 --loose-innodb_buffer_pool_load_at_startup=0 &
	server=$!
	local i
	for ((i = 0; i < 300; i++)); do
		if MYSQL_PWD='' client --database=mysql <<<'SELECT 1' >/dev/null 2>&1; then
			printf 'Temporary server started.\n'
			return
		fi
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	die 'start the temporary server: it did not answer'
}

client() {
	mariadb --protocol=socket --socket="$socket" --user=root --host=localhost --comments "$@"
}

# sql runs what the user asks for, in the database that was made.
sql() {
	client ${MARIADB_DATABASE:+--database="$MARIADB_DATABASE"}
}

literal() {
	local s=${1//\\/\\\\}
	printf "'%s'" "${s//\'/\'\'}"
}

identifier() {
	printf '\140%s\140' "${1//\`/\`\`}"
}

# users gives root its password, and makes the database and the user that were
# asked for. The statements go over standard input: they hold passwords.
users() {
	if [ -z "$MARIADB_INITDB_SKIP_TZINFO" ]; then
		mariadb-tzinfo-to-sql --skip-write-binlog /usr/share/zoneinfo 2>/dev/null | MYSQL_PWD='' client --database=mysql
	fi
	if [ -n "$MARIADB_RANDOM_ROOT_PASSWORD" ]; then
		MARIADB_ROOT_PASSWORD=$(od -An -vN24 -tx1 /dev/urandom | tr -d ' \n')
		printf 'GENERATED ROOT PASSWORD: %s\n' "$MARIADB_ROOT_PASSWORD"
	fi
	MYSQL_PWD='' client --database=mysql < <(statements)
	export MYSQL_PWD=$MARIADB_ROOT_PASSWORD
}

statements() {
	local password grantee
	password=$(literal "$MARIADB_ROOT_PASSWORD")
	printf "SET SESSION sql_mode = '', SESSION sql_log_bin = 0;\n"
	printf 'ALTER USER root@localhost IDENTIFIED BY %s;\n' "$password"
	# The installation leaves root without a password under these names.
	printf "DROP USER IF EXISTS root@'127.0.0.1', root@'::1';\n"
	printf "EXECUTE IMMEDIATE CONCAT('DROP USER IF EXISTS root@', QUOTE(LOWER(@@hostname)));\n"
	if [ "$MARIADB_ROOT_HOST" != localhost ]; then
		grantee="root@$(literal "$MARIADB_ROOT_HOST")"
		printf 'CREATE USER %s IDENTIFIED BY %s;\n' "$grantee" "$password"
		printf 'GRANT ALL ON *.* TO %s WITH GRANT OPTION;\n' "$grantee"
	fi
	if [ -n "$MARIADB_DATABASE" ]; then
		printf 'CREATE DATABASE IF NOT EXISTS %s;\n' "$(identifier "$MARIADB_DATABASE")"
	fi
	if [ -n "$MARIADB_USER" ] && [ -n "$MARIADB_PASSWORD" ]; then
		grantee="$(literal "$MARIADB_USER")@'%'"
		printf 'CREATE USER %s IDENTIFIED BY %s;\n' "$grantee" "$(literal "$MARIADB_PASSWORD")"
		if [ -n "$MARIADB_DATABASE" ]; then
			printf 'GRANT ALL ON %s.* TO %s;\n' "$(identifier "${MARIADB_DATABASE//_/\\_}")" "$grantee"
		fi
	fi
}

# process FILE...: runs what the user put beside the entrypoint, in this shell
# if the file may not be executed.
process() {
	local f
	for f; do
		printf '%s: processing %s\n' "$0" "$f"
		case $f in
		*.sh)
			if [ -x "$f" ]; then
				"$f"
			else
				# shellcheck disable=SC1090 # the user's own file
				. "$f"
			fi
			;;
		*.sql) sql <"$f" ;;
		*.sql.gz) gunzip -c "$f" | sql ;;
		*.sql.xz) xzcat "$f" | sql ;;
		*.sql.zst) zstd -dc "$f" | sql ;;
		*) printf '%s: ignoring %s\n' "$0" "$f" ;;
		esac
	done
}

main "$@"
