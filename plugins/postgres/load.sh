# Looks at the databases that a dump would be loaded into, or loads one: in one
# transaction, that is committed only once all of the dump has come and its sum
# is right. The roles that are missing come before, in one of their own.

IFS= read -r pg_mode || exit 1
IFS= read -r pg_limit || exit 1
IFS= read -r pg_into || exit 1 # names in hex, as all here; several to look at
if [ "$pg_mode" = load ]; then
	IFS= read -r pg_from || exit 1
	IFS= read -r pg_fresh || exit 1
	bs_wanted
	IFS= read -r pg_n || exit 1
	bs_take "$pg_n" || exit 1
	pg_globals=$BS_VALUE
fi

# pg_connect HEX: how a program names the database, in PG_CONNECT.
pg_connect() {
	bs_bytes "$1" "27 5c"
	PG_CONNECT="dbname='$BS_VALUE'"
}

# pg_there HEX: whether there is such a database.
pg_there() {
	case " $PG_DBS " in *" $1 "*) return 0 ;; esac
	return 1
}

# What there is in a database that somebody has put there: its KiB, and how many
# relations, functions and schemas.
PG_CONTENT="
SELECT pg_database_size(current_database()) / 1024 || ' ' || (SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')) + (SELECT count(*) FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') + (SELECT count(*) FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public'))"

# pg_content HEX: its KiB and how much there is in it, in pg_kib and pg_objects.
pg_content() {
	pg_connect "$1"
	pg_x=$(pg_run psql -XAtqw -v ON_ERROR_STOP=1 -d "$PG_CONNECT" -c "$PG_CONTENT" 2>&1) || {
		bs_quote "$pg_x"
		bs_gist "$pg_x"
		bs_die load "look into the database: $BS_GIST"
	}
	pg_kib=${pg_x%% *} pg_objects=${pg_x##* }
}

# pg_look: says what stands where the dump would go.
pg_look() {
	for pg_name in $pg_into; do
		if pg_there "$pg_name"; then
			pg_content "$pg_name"
			bs_out target "$pg_name $pg_kib $pg_objects"
		else
			bs_out target "$pg_name -1 0"
		fi
	done
	for pg_name in $PG_DBS; do bs_out database "$pg_name"; done
}

# pg_ask STATEMENTS: what they give. Names are psql's variables, so that nothing
# is quoted here.
pg_ask() {
	bs_bytes "$pg_into"
	pg_name=$BS_VALUE
	bs_bytes "$pg_from"
	printf '%s\n' "$1" | pg_run psql -XAtqw -v ON_ERROR_STOP=1 -v into="$pg_name" -v from="$BS_VALUE" -d "$PG_DB" -f - 2>&1
}

# pg_create makes the database, as that which the dump is of, if it is here. It
# goes again if the load fails.
pg_create() {
	pg_sql='CREATE DATABASE :"into" TEMPLATE template0;'
	! pg_there "$pg_from" || pg_sql="
SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING %L LC_COLLATE %L LC_CTYPE %L', :'into', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype)
FROM pg_database WHERE datname = :'from' \\gexec"
	pg_made=yes
	pg_x=$(pg_ask "$pg_sql") && return 0
	pg_made=''
	bs_quote "$pg_x"
	bs_gist "$pg_x"
	bs_die load "create the database: $BS_GIST"
}

# pg_regret ends what runs in the server still: it would not notice for long that
# nobody waits for it; and drops the database that was made.
pg_regret() {
	pg_x=$(pg_ask "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid();")
	[ -n "$pg_made" ] || return 0
	pg_force='WITH (FORCE)'
	[ "$PG_MAJOR" -ge 13 ] || pg_force=''
	pg_x=$(pg_ask "DROP DATABASE IF EXISTS :\"into\" $pg_force;") || bs_out left "$pg_x"
}

# pg_roles makes those that are missing.
pg_roles() {
	[ -n "$pg_globals" ] || return 0
	pg_x=$(printf '%s\n' 'BEGIN;' "$pg_globals" 'COMMIT;' | pg_run psql -XAtqwb -v ON_ERROR_STOP=1 -d "$PG_DB" -f - 2>&1) && return 0
	bs_quote "$pg_x"
	bs_gist "$pg_x"
	bs_die load "make roles: $BS_GIST"
}

# pg_free fails if somebody holds a table of the database: the load would wait
# for that, however long it takes.
pg_free() {
	pg_x=$(printf '%s\n' "SET lock_timeout = '10s';" 'BEGIN;' "
SELECT format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p') ORDER BY 1 \\gexec" 'ROLLBACK;' |
		pg_run psql -XAtqwb -v ON_ERROR_STOP=1 -d "$PG_CONNECT" -f - 2>&1) && return 0
	bs_quote "$pg_x"
	bs_gist "$pg_x"
	bs_die load "somebody holds a table: $BS_GIST"
}

# pg_session prints what the programs said, and how they ended.
pg_session() {
	exec 6>&1
	case $BS_HEAD in
	5047444d50*) bs_feed '' | pg_archive ;;
	*)
		{
			echo 'BEGIN;'
			bs_feed "${BS_NL}COMMIT;$BS_NL"
		} | pg_text
		;;
	esac
}

# pg_archive loads what pg_dump wrote. What it leaves unread is read all the same,
# for the sum.
pg_archive() {
	# shellcheck disable=SC2086 # two flags
	pg_run pg_restore -w --single-transaction --exit-on-error $pg_flags -d "$PG_CONNECT" >&6 2>&1 6>&-
	pg_x=$?
	[ "$pg_x" != 0 ] || cat >/dev/null
	printf 'bs-loaded=%s\n' "$pg_x" >&6
}

# pg_text runs statements.
pg_text() {
	pg_run psql -Xqwb -v ON_ERROR_STOP=1 -o /dev/null -d "$PG_CONNECT" -f - 2>&6 6>&-
	printf 'bs-loaded=%s\n' $? >&6
}

pg_load() {
	[ "$PG_ROLE" = primary ] || bs_die unsupported "the server is a replica: it takes no dump"
	[ "${#pg_into}" -le 126 ] || bs_die unsupported "the database's name has $((${#pg_into} / 2)) bytes, PostgreSQL takes 63"
	bs_lies
	pg_made='' BS_REGRET=pg_regret
	pg_roles
	pg_flags='--clean --if-exists'
	pg_connect "$pg_into"
	if ! pg_there "$pg_into"; then
		pg_create
		pg_flags=''
	elif [ "$pg_fresh" = yes ]; then
		pg_content "$pg_into"
		[ "$pg_objects" = 0 ] || bs_die exists "the database is there and not empty"
		pg_flags=''
	else
		pg_free
	fi
	pg_connect "$pg_into"
	bs_said "$(pg_session)"
	bs_judge verify load
	BS_REGRET=''
}

bs_start "$pg_limit"
pg_find
bs_owner "$PG_DATA"
pg_tools
bs_tools head tee || bs_die no-tool "the image has no $BS_VALUE"
pg_login
bs_out engine postgres
bs_out version "$PG_VERSION"
bs_out role "$PG_ROLE"
if [ "$pg_mode" = load ]; then pg_load; else pg_look; fi
