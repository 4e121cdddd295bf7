# Finds the PostgreSQL server of this container and logs in to it. Names in pg_
# and PG_ belong to it, those in PG alone to PostgreSQL's own programs.

# pg_find: the running server's data directory, version and address, in PG_DATA,
# PG_MAJOR, PGHOST and PGPORT. Runs nothing.
pg_find() {
	pg_seen=
	for PG_DATA in "${PGDATA-}" "${POSTGRESQL_DATA_DIR-}" /var/lib/postgresql/data /var/lib/postgresql/data/pgdata \
		/var/lib/postgresql/*/docker /var/lib/postgresql/*/main /bitnami/postgresql/data \
		/home/postgres/pgdata/pgroot/data /pgdata/pg* /var/lib/pgsql/data /var/lib/pgsql/data/userdata; do
		[ -z "$PG_DATA" ] || [ ! -d "$PG_DATA" ] || [ -x "$PG_DATA" ] || pg_seen="permission $PG_DATA may not be read by uid $BS_ME"
		if [ -z "$PG_DATA" ] || [ ! -f "$PG_DATA/PG_VERSION" ]; then continue; fi
		[ -r "$PG_DATA/PG_VERSION" ] || pg_seen="permission $PG_DATA may not be read by uid $BS_ME"
		[ -r "$PG_DATA/postmaster.pid" ] && break
		[ -n "$pg_seen" ] || pg_seen="starting no server runs in $PG_DATA yet"
	done
	if [ ! -r "$PG_DATA/postmaster.pid" ]; then
		[ -z "$pg_seen" ] || bs_die "${pg_seen%% *}" "${pg_seen#* }"
		bs_die no-server "no PostgreSQL server has its data in this container"
	fi
	read -r PG_MAJOR <"$PG_DATA/PG_VERSION"
	case $PG_MAJOR in *.*) bs_die unsupported "PostgreSQL $PG_MAJOR is older than 10" ;; esac
	PGPORT=5432 PGHOST='' pg_listen='' pg_status=''
	{
		read -r pg_pid
		read -r pg_x
		read -r pg_x
		read -r PGPORT
		IFS= read -r PGHOST
		IFS= read -r pg_listen
		read -r pg_x
		read -r pg_status
	} <"$PG_DATA/postmaster.pid"
	[ -d "/proc/$pg_pid" ] || bs_die no-server "the server of $PG_DATA is not in this container (no process $pg_pid)"
	pg_initialises
	[ -n "$PGHOST" ] || PGHOST=${pg_listen%%,*}
	case $PGHOST in '' | '*' | 0.0.0.0 | ::) PGHOST=127.0.0.1 ;; esac
	PATH=/usr/lib/postgresql/$PG_MAJOR/bin:/usr/pgsql-$PG_MAJOR/bin:$PATH:/opt/bitnami/postgresql/bin:/usr/local/bin:/usr/local/pgsql/bin
	PGAPPNAME=backsnap-$BS_NONCE PGCONNECT_TIMEOUT=10
	export PATH PGHOST PGPORT PGAPPNAME PGCONNECT_TIMEOUT
	unset PGSERVICE PGSERVICEFILE PGOPTIONS PGTARGETSESSIONATTRS PGHOSTADDR PGDATABASE PGCLIENTENCODING PGREQUIREPEER PGCHANNELBINDING
}

# pg_initialises: the images' entrypoint first sets a new database up through a
# server that listens to nobody, and only then gives way to the real one.
pg_initialises() {
	pg_x=''
	[ -n "$pg_listen" ] || read -r pg_x </proc/1/comm
	case $pg_x in docker-entrypoi*) bs_die starting "the image is still setting the database up" ;; esac
}

# pg_tools: the programs are there; pg_dump's version in PG_TOOL.
pg_tools() {
	bs_tools psql pg_dump pg_dumpall pg_restore df od || bs_die no-tool "the image has no $BS_VALUE"
	bs_hashes || bs_die no-tool "the image has nothing that computes SHA-256"
	PG_TOOL=$(pg_dump --version) || bs_die no-tool "pg_dump does not run"
	PG_TOOL=${PG_TOOL#*PostgreSQL) }
	PG_TOOL=${PG_TOOL%% *}
}

# pg_run PROGRAM ARGUMENT...: as the server's user if PG_AS says how.
pg_run() {
	case $PG_AS in
	gosu | su-exec) "$PG_AS" "$BS_UID:$BS_GID" "$@" ;;
	setpriv) setpriv --reuid="$BS_UID" --regid="$BS_GID" --clear-groups "$@" ;;
	*) "$@" ;;
	esac
}

# What is asked of every server, in one go. Names go as hex, bytes as they are:
# the cast would take a backslash for an escape.
PG_FACTS="
SELECT 'bs version ' || current_setting('server_version')
UNION ALL SELECT 'bs role ' || CASE WHEN pg_is_in_recovery() THEN 'replica' ELSE 'primary' END
UNION ALL SELECT 'bs super ' || current_setting('is_superuser')
UNION ALL SELECT 'bs fsync ' || current_setting('fsync')
UNION ALL SELECT 'bs pages ' || current_setting('full_page_writes')
UNION ALL SELECT 'bs position ' || CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
UNION ALL SELECT 'bs db ' || encode(decode(replace(datname::text, E'\\\\', E'\\\\\\\\'), 'escape'), 'hex') || ' ' ||
CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) / 1024 ELSE 0 END
FROM (SELECT * FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname) AS d"

# pg_login: logs in as the superuser; where only the image's user is known, as
# that one. A password that is refused is a fault to be told, no reason to dump
# less. PGUSER and PGPASSWORD stand in the environment then, and PG_VERSION,
# PG_ROLE, PG_SUPER, PG_FSYNC, PG_PAGES, PG_POSITION and PG_DBS hold the facts.
pg_login() {
	PG_AS='' pg_error=''
	pg_user=postgres
	if bs_value POSTGRESQL_POSTGRES_PASSWORD POSTGRES_POSTGRES_PASSWORD ||
		bs_content /opt/bitnami/postgresql/secrets/postgres-password; then
		pg_password=$BS_VALUE
	else
		bs_value POSTGRES_USER POSTGRESQL_USERNAME POSTGRES_USERNAME POSTGRESQL_USER && pg_user=$BS_VALUE
		bs_value POSTGRES_PASSWORD POSTGRESQL_PASSWORD PGPASSWORD_SUPERUSER PGPASSWORD ||
			bs_content /opt/bitnami/postgresql/secrets/password || BS_VALUE=''
		pg_password=$BS_VALUE
	fi
	pg_try "$pg_user" "$pg_password" && return 0
	if [ "$BS_ME" = 0 ] && [ "$BS_UID" != 0 ]; then
		for PG_AS in gosu su-exec setpriv; do
			bs_tools "$PG_AS" || continue
			pg_try "$pg_user" "$pg_password" && return 0
			break
		done
	fi
	bs_quote "$pg_error"
	bs_gist "$pg_error"
	bs_die login "no login as $pg_user: $BS_GIST"
}

# pg_try USER PASSWORD: false if the server does not want them. The first
# refusal is kept in pg_error.
pg_try() {
	PGUSER=$1 PGPASSWORD=$2
	export PGUSER PGPASSWORD
	[ -n "$PGPASSWORD" ] || unset PGPASSWORD
	for PG_DB in postgres template1 "${POSTGRES_DB:-${POSTGRESQL_DATABASE:-postgres}}"; do
		if pg_facts=$(pg_run psql -XAtqw -d "$PG_DB" -c "$PG_FACTS" 2>&1); then
			pg_read "$pg_facts"
			return 0
		fi
		case $pg_facts in *"database \"$PG_DB\""*) ;; *) break ;; esac
	done
	pg_refused "$pg_facts"
	[ -n "$pg_error" ] || pg_error=$pg_facts
	return 1
}

# pg_refused TEXT: ends the script if the server takes no connection at all. Its
# words may be in any language; then the state in postmaster.pid and pg_isready
# must do.
pg_refused() {
	bs_gist "$1"
	case $1 in
	*"in recovery mode"* | *"not yet accepting connections"* | *"onsistent recovery state"*)
		bs_die recovery "the server replays its log"
		;;
	*"starting up"*) bs_die starting "the server is starting up" ;;
	*"shutting down"* | *"not accepting connections"* | *"too many clients"* | *"remaining connection slots"* | *"onnection refused"* | *"No such file or directory"* | *"timeout expired"*)
		bs_quote "$1"
		bs_die unavailable "the server takes no connection: $BS_GIST"
		;;
	esac
	case $pg_status in starting*) bs_die starting "the server is starting up" ;; esac
	bs_tools pg_isready || return 0
	pg_isready -q || [ $? != 1 ] || bs_die unavailable "the server takes no connection: $BS_GIST"
}

# pg_read TEXT: what PG_FACTS gave.
pg_read() {
	PG_DBS='' PG_COUNT=0 PG_KIB=1024
	set -f
	IFS=$BS_NL
	for pg_x in $1; do
		IFS=' '
		# shellcheck disable=SC2086 # to be split
		set -- $pg_x
		[ "${1-}" = bs ] || continue
		case $2 in
		version) PG_VERSION=$3 ;;
		role) PG_ROLE=$3 ;;
		super) PG_SUPER=$3 ;;
		fsync) PG_FSYNC=$3 ;;
		pages) PG_PAGES=$3 ;;
		position) PG_POSITION=${3-} ;;
		db)
			PG_DBS="$PG_DBS $3" PG_COUNT=$((PG_COUNT + 1))
			# An empty database takes 7 MiB, of which nothing is dumped;
			# compressed, and without indexes, a dump is half the rest at most.
			[ "$4" -le 7168 ] || PG_KIB=$((PG_KIB + ($4 - 7168) / 2))
			PG_KIB=$((PG_KIB + 64))
			;;
		esac
	done
	set +f
	unset IFS
}

# pg_warn KEY: prints as KEY what makes the server itself unsafe.
pg_warn() {
	[ "$PG_FSYNC" = on ] || bs_out "$1" "fsync is off: after a crash of the machine the data directory can be lost"
	[ "$PG_PAGES" = on ] || bs_out "$1" "full_page_writes is off: after a crash of the machine the data directory can be lost"
}

# pg_barrier: a transaction of its own that waits for the disk takes every
# earlier one with it, those not waited for too. "local", since no replica shall
# hold us up. CHECKPOINT makes the recovery of the snapshot short, no more.
pg_barrier() {
	pg_forced=no pg_how="a replica acknowledges nothing of its own" pg_x=$PG_POSITION
	if [ "$PG_ROLE" != replica ]; then
		pg_x=$(pg_run psql -XAtqw -v ON_ERROR_STOP=1 -d "$PG_DB" -c "SET synchronous_commit = local" -c "SET statement_timeout = '60s'" \
			-c "SELECT 'bs ' || pg_logical_emit_message(true, 'backsnap', '$BS_NONCE')" -c CHECKPOINT -c "SELECT 'bs checkpoint'" 2>&1)
		pg_how=pg_logical_emit_message
		case $pg_x in *"bs checkpoint"*) pg_how="$pg_how, CHECKPOINT" ;; esac
		case $pg_x in
		*"bs "*/*)
			pg_forced=yes
			pg_x=${pg_x#*bs }
			pg_x=${pg_x%%"$BS_NL"*}
			;;
		*)
			bs_quote "$pg_x"
			bs_gist "$pg_x"
			pg_how=$BS_GIST pg_x=''
			;;
		esac
	fi
	bs_sync
	[ ! -L "$PG_DATA/pg_wal" ] || sync -f "$PG_DATA/pg_wal/." 2>/dev/null || sync
	bs_out barrier "$pg_forced"
	bs_out barrier-how "$pg_how"
	bs_out barrier-position "$pg_x"
	pg_warn barrier-warning
}
