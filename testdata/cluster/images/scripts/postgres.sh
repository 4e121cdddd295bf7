#!/bin/bash
# Starts PostgreSQL as the official image does: the same environment, paths and
# order, so that what works on this image works on that one.
set -euo pipefail
shopt -s nullglob

main() {
	case ${1-} in
	-* | '') set -- postgres "$@" ;;
	esac
	if [ "$1" = postgres ] && ! asks_for_help "$@"; then
		settings
		directories
		if [ "$(id -u)" = 0 ]; then
			exec gosu postgres "$0" "$@"
		fi
		if [ -s "$PGDATA/PG_VERSION" ]; then
			printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
		else
			initialize "$@"
		fi
	fi
	exec "$@"
}

asks_for_help() {
	local arg
	for arg; do
		case $arg in
		-\? | --help | --describe-config | -V | --version) return 0 ;;
		esac
	done
	return 1
}

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# settings gives every variable of the image its value; NAME_FILE stands for NAME.
settings() {
	from_file POSTGRES_PASSWORD ''
	from_file POSTGRES_USER postgres
	from_file POSTGRES_DB "$POSTGRES_USER"
	from_file POSTGRES_INITDB_ARGS ''
	: "${POSTGRES_HOST_AUTH_METHOD:=}"
}

from_file() {
	local file="$1_FILE"
	if [ -n "${!1-}" ] && [ -n "${!file-}" ]; then
		die "both $1 and $file are set, and only one may be"
	fi
	local value=${!1:-$2}
	if [ -n "${!file-}" ]; then
		value=$(<"${!file}")
	fi
	export "$1=$value"
	unset "$file"
}

# directories makes them, and gives them to the server where root may.
directories() {
	mkdir -p "$PGDATA"
	chmod 0700 "$PGDATA" || :
	mkdir -p /var/run/postgresql || :
	chmod 03775 /var/run/postgresql 2>/dev/null || :
	if [ -n "${POSTGRES_INITDB_WALDIR-}" ]; then
		mkdir -p "$POSTGRES_INITDB_WALDIR"
		chmod 0700 "$POSTGRES_INITDB_WALDIR"
	fi
	if [ "$(id -u)" = 0 ]; then
		find "$PGDATA" ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} /var/run/postgresql \
			\! -user postgres -exec chown postgres '{}' +
	fi
}

initialize() {
	if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
		die 'the database is not initialized and the superuser has no password: set POSTGRES_PASSWORD to a non-empty value' \
			'(or POSTGRES_HOST_AUTH_METHOD=trust, which lets everyone in)'
	fi
	create_cluster
	allow_hosts "$@"
	export PGPASSWORD=$POSTGRES_PASSWORD
	# It listens on the socket alone: nobody must take it for the real one.
	pg_ctl -D "$PGDATA" -o "$(quoted "${@:2}") -c listen_addresses='' -p ${PGPORT:-5432}" -w start
	create_database
	process /docker-entrypoint-initdb.d/*
	pg_ctl -D "$PGDATA" -m fast -w stop
	unset PGPASSWORD
	printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

quoted() {
	if [ "$#" -gt 0 ]; then
		printf '%q ' "$@"
	fi
}

# create_cluster runs initdb, which wants a user with a name: a uid that has
# none gets one for as long as this takes.
create_cluster() {
	local names=() args
	if ! getent passwd "$(id -u)" >/dev/null; then
		local wrapper
		for wrapper in /usr/lib/*/libnss_wrapper.so; do
			names=(NSS_WRAPPER_PASSWD="$(mktemp)" NSS_WRAPPER_GROUP="$(mktemp)")
			printf 'postgres:x:%s:%s:PostgreSQL:%s:/bin/false\n' "$(id -u)" "$(id -g)" "$PGDATA" >"${names[0]#*=}"
			printf 'postgres:x:%s:\n' "$(id -g)" >"${names[1]#*=}"
			names+=(LD_PRELOAD="$wrapper")
		done
	fi
	# The arguments are words in the shell's quoting, as in the official image.
	eval "args=(${POSTGRES_INITDB_WALDIR:+--waldir \"\$POSTGRES_INITDB_WALDIR\"} $POSTGRES_INITDB_ARGS)"
	env "${names[@]}" initdb -D "$PGDATA" --username="$POSTGRES_USER" \
		--pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${args[@]}"
	if [ "${#names[@]}" -gt 0 ]; then
		rm -f "${names[0]#*=}" "${names[1]#*=}"
	fi
	printf "\nlisten_addresses = '*'\n" >>"$PGDATA/postgresql.conf"
}

allow_hosts() {
	local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -D "$PGDATA" -C password_encryption "${@:2}")}
	printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

sql() {
	PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc "$@"
}

create_database() {
	if [ -z "$(sql -d postgres -v db="$POSTGRES_DB" -tA <<<"SELECT 1 FROM pg_database WHERE datname = :'db'")" ]; then
		sql -d postgres -v db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
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
		*.sql) sql -d "$POSTGRES_DB" -f "$f" ;;
		*.sql.gz) gunzip -c "$f" | sql -d "$POSTGRES_DB" ;;
		*.sql.xz) xzcat "$f" | sql -d "$POSTGRES_DB" ;;
		*.sql.zst) zstd -dc "$f" | sql -d "$POSTGRES_DB" ;;
		*) printf '%s: ignoring %s\n' "$0" "$f" ;;
		esac
	done
}

main "$@"
