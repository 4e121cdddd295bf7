# Dumps every database of the PostgreSQL server of this container, and what they
# share, into files on its own volume.

IFS= read -r BS_RUN || exit 1
IFS= read -r pg_limit || exit 1
IFS= read -r pg_force || exit 1

# pg_failed WHAT TOOL STATUS TEXT: ends the script for a tool that failed.
pg_failed() {
	bs_quote "$4"
	! bs_full "$BS_PART" || bs_die nospace "the dump of $1 came to the cap of $((BS_CAP / 2048)) MiB, which leaves the database its reserve"
	bs_gist "$4"
	case $4 in
	*"ermission denied"* | *"must be superuser"* | *"must be owner"*) bs_die permission "dump $1: $BS_GIST" ;;
	esac
	bs_die dump "dump $1: ${BS_GIST:-$2 ended with status $3}"
}

# pg_shared: what belongs to no database, as SQL. Only a superuser reads
# passwords of roles.
pg_shared() {
	bs_new 1
	pg_flags=--globals-only
	pg_x=$(pg_globals 2>&1) || {
		pg_flags="--globals-only --no-role-passwords"
		pg_x=$(pg_globals 2>&1) || pg_failed globals pg_dumpall $? "$pg_x"
		bs_out warning "the dump has no passwords of roles: $PGUSER may not read them"
	}
	bs_quote "$pg_x"
	case $BS_NL$(tail -n 8 "$BS_PART") in
	*"$BS_NL-- PostgreSQL database cluster dump complete"*) ;;
	*) bs_die verify "the dump of globals has no trailer: it was cut off" ;;
	esac
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
	bs_bytes "$2"
	pg_what=$BS_VALUE
	bs_bytes "$2" "27 5c"
	pg_x=$(pg_archive "dbname='$BS_VALUE'" 2>&1) || pg_failed "database $pg_what" pg_dump $? "$pg_x"
	bs_quote "$pg_x"
	[ -s "$BS_PART" ] || bs_die verify "the dump of database $pg_what is empty"
	pg_x=$(
		bs_sha256 "$BS_PART" 2>&1 &
		pg_restore -f /dev/null "$BS_PART" 2>&1 && echo whole
		wait
	)
	pg_sum=$(printf '%s\n' "$pg_x" | grep -E '^[0-9a-f]{64}')
	case $BS_NL$pg_x$BS_NL in
	*"${BS_NL}whole$BS_NL"*) ;;
	*)
		pg_x=$(printf '%s\n' "$pg_x" | grep -v -E '^[0-9a-f]{64}')
		bs_quote "$pg_x"
		bs_gist "$pg_x"
		bs_die verify "the dump of database $pg_what cannot be read back: $BS_GIST"
		;;
	esac
	bs_proven "646174616261736520$2" custom "$pg_sum"
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
if [ "$pg_force" = yes ]; then pg_barrier; else bs_sync; fi
bs_clean
