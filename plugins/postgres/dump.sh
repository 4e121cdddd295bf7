# Dumps every database of the PostgreSQL server of this container, and what they
# share, into files on its own volume.

IFS= read -r BS_RUN || exit 1
IFS= read -r pg_limit || exit 1
IFS= read -r pg_force || exit 1

# pg_failed WHAT TEXT: ends the script for a tool that failed.
pg_failed() {
	bs_quote "$2"
	! bs_full "$BS_PART" || bs_die nospace "$1 came to the cap of $((BS_CAP / 2048)) MiB, which leaves the database its reserve"
	case $2 in
	*"ermission denied"* | *"must be superuser"* | *"must be owner"*) bs_die permission "$1: ${2##*"$BS_NL"}" ;;
	esac
	bs_die dump "$1: ${2##*"$BS_NL"}"
}

# pg_shared: what belongs to no database, as SQL. Only a superuser reads
# passwords of roles.
pg_shared() {
	bs_new 1
	pg_flags=--globals-only
	pg_x=$(pg_globals 2>&1) || {
		pg_flags="--globals-only --no-role-passwords"
		pg_x=$(pg_globals 2>&1) || pg_failed "pg_dumpall of the globals" "$pg_x"
		bs_out warning "the dump has no passwords of roles: $PGUSER may not read them"
	}
	bs_quote "$pg_x"
	tail -n 8 "$BS_PART" | grep -q '^-- PostgreSQL database cluster dump complete' ||
		bs_die verify "pg_dumpall of the globals has not come to its end"
	bs_proven 676c6f62616c73 sql "$(bs_sha256 "$BS_PART")"
}

pg_globals() {
	ulimit -f "$BS_CAP" 2>/dev/null
	# shellcheck disable=SC2086 # two flags
	pg_run pg_dumpall -w -l "$PG_DB" $pg_flags >"$BS_PART"
}

# pg_database N NAME-IN-HEX: one database, read back whole. The sum is computed
# meanwhile.
pg_database() {
	bs_new "$1"
	bs_bytes "$2" "27 5c"
	pg_x=$(pg_archive "dbname='$BS_VALUE'" 2>&1) || {
		bs_bytes "$2"
		pg_failed "pg_dump of $BS_VALUE" "$pg_x"
	}
	bs_quote "$pg_x"
	[ -s "$BS_PART" ] || bs_die verify "pg_dump has written nothing"
	pg_x=$(
		bs_sha256 "$BS_PART" &
		pg_restore -f /dev/null "$BS_PART" 2>&1 && echo whole
		wait
	)
	case $BS_NL$pg_x$BS_NL in
	*"${BS_NL}whole$BS_NL"*) ;;
	*)
		bs_quote "$pg_x"
		bs_die verify "pg_restore cannot read the dump back"
		;;
	esac
	pg_x=$BS_NL$pg_x
	bs_proven "646174616261736520$2" custom "$(printf '%s\n' "$pg_x" | grep -E '^[0-9a-f]{64}')"
}

pg_archive() {
	ulimit -f "$BS_CAP" 2>/dev/null
	pg_run pg_dump -w -Fc -Z1 --lock-wait-timeout=60s -d "$1" >"$BS_PART"
}

bs_start "$pg_limit"
pg_find
bs_place "$PG_DATA"
pg_tools
pg_login
bs_clean
bs_room "$PG_KIB" $((PG_COUNT + 2))
bs_guard

pg_shared
pg_n=1
for pg_name in $PG_DBS; do
	pg_n=$((pg_n + 1))
	pg_database "$pg_n" "$pg_name"
done
bs_commit postgres "$PG_VERSION" pg_dump "$PG_TOOL" "$PG_POSITION"

bs_out engine postgres
bs_out version "$PG_VERSION"
bs_out tool pg_dump
bs_out toolversion "$PG_TOOL"
bs_out mount "$BS_MOUNT"
bs_out dir "$BS_DIR"
bs_out position "$PG_POSITION"
[ "$pg_force" != yes ] || pg_barrier
