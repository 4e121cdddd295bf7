# Dumps every database of the MySQL or MariaDB server of this container, and its
# users, into files on its own volume.

IFS= read -r BS_RUN || exit 1
IFS= read -r my_limit || exit 1
IFS= read -r my_force || exit 1

my_pack() {
	case $MY_PACK in
	zstd) zstd -q -1 -c ;;
	gzip) gzip -1 -c ;;
	*) cat ;;
	esac
}

my_unpack() {
	case $MY_PACK in
	zstd) zstd -q -d -c ;;
	gzip) gzip -d -c ;;
	*) cat ;;
	esac
}

# my_write COMMAND ARGUMENT...: what it prints, compressed, in BS_PART. Prints
# what was said on standard error, and how either half ended.
my_write() {
	ulimit -f "$BS_CAP" 2>/dev/null
	{
		{
			"$@" 3>&-
			printf '\nmade=%s\n' $? >&3
		} | {
			my_pack 3>&- >"$BS_PART"
			printf '\npacked=%s\n' $? >&3
		}
	} 3>&1
}

# my_part N WHAT COMMAND ARGUMENT...: one file, read back whole to its trailer. A
# table that changes its form or goes away under the dump ends it; then it is
# tried again.
my_part() {
	my_n=$1 my_what=$2
	shift 2
	my_turn=1
	while :; do
		bs_new "$my_n"
		my_ends "$(my_write "$@" 2>&1)"
		[ "$my_made$my_packed" != 00 ] || break
		case $my_said in *1412* | *1146*) ;; *) my_failed ;; esac
		[ "$my_turn" -lt 3 ] || my_failed
		sleep "$my_turn"
		my_turn=$((my_turn + 1))
	done
	bs_quote "$my_said"
	my_prove
	bs_proven "$my_hex" "$MY_FORMAT" "$my_sum"
}

# my_ends TEXT: parts what my_write printed: how the halves ended in my_made and
# my_packed, what the programs said in my_said.
my_ends() {
	my_made=missing my_packed=missing my_said=''
	set -f
	IFS=$BS_NL
	for my_x in $1; do
		case $my_x in
		made=*) my_made=${my_x#made=} ;;
		packed=*) my_packed=${my_x#packed=} ;;
		*) my_said=$my_said${my_said:+$BS_NL}$my_x ;;
		esac
	done
	set +f
	unset IFS
}

# my_failed: ends the script for a program that failed.
my_failed() {
	bs_quote "$my_said"
	! bs_full "$BS_PART" || bs_die nospace "the dump of $my_what came to the cap of $((BS_CAP / 2048)) MiB, which leaves the database its reserve"
	bs_gist "$my_said"
	case $my_said in *"(1044)"* | *"(1142)"* | *"(1227)"* | *"(1045)"*) bs_die permission "dump $my_what: $BS_GIST" ;; esac
	[ "$my_packed" = 0 ] || bs_die dump "dump $my_what: ${BS_GIST:-$MY_PACK ended with status $my_packed}"
	bs_die dump "dump $my_what: ${BS_GIST:-$MY_DUMP ended with status $my_made}"
}

# my_prove: reads BS_PART back, and computes its sum, in my_sum, meanwhile.
my_prove() {
	my_x=$(
		bs_sha256 "$BS_PART" 2>&1 &
		{
			{
				my_unpack <"$BS_PART" 3>&-
				printf '\nread=%s\n' $? >&3
			} | tail -n 1
		} 3>&1 2>&1
		wait
	)
	my_sum=$(printf '%s\n' "$my_x" | grep -E '^[0-9a-f]{64}')
	case $BS_NL$my_x$BS_NL in *"${BS_NL}read=0$BS_NL"*) ;; *)
		my_x=$(printf '%s\n' "$my_x" | grep -v -E -e '^[0-9a-f]{64}' -e '^read=' -e '^$')
		bs_quote "$my_x"
		bs_gist "$my_x"
		bs_die verify "the dump of $my_what cannot be read back: $BS_GIST"
		;;
	esac
	case $BS_NL$my_x in *"$BS_NL-- Dump completed"*) ;; *) bs_die verify "the dump of $my_what has no trailer: it was cut off" ;; esac
}

# my_databases NAME-IN-HEX...: all of them, of one moment. No GTID goes into the
# dump: MySQL would lock all tables for it, behind the longest query.
my_databases() {
	my_names=$*
	set -- --single-transaction --quick --hex-blob --routines --events --triggers --no-tablespaces \
		--default-character-set=utf8mb4 --max-allowed-packet=1G
	[ "$MY_VENDOR" = mariadb ] || set -- "$@" --set-gtid-purged=OFF
	set -- "$@" --databases --
	for my_name in $my_names; do
		bs_bytes "$my_name"
		set -- "$@" "$BS_VALUE"
	done
	my_hex=646174616261736573
	my_part 1 databases my_run "$MY_DUMP" "$@"
}

# my_users: who may log in, and what they may do.
my_users() {
	my_hex=7573657273
	if [ "$MY_VENDOR" = mariadb ] && "$MY_DUMP" --help | grep -q -e --system=; then
		my_part 2 users my_run "$MY_DUMP" --system=users --insert-ignore
	else
		my_part 2 users my_grants
	fi
}

# my_grants: the same for servers whose dump tool does not know how. First all
# users, for they may be each other's roles.
my_grants() {
	my_set="/*!80017 SET SESSION print_identified_with_as_hex = ON */;"
	my_who="CONCAT(QUOTE(user), '@', QUOTE(host), ';') FROM mysql.user WHERE user NOT LIKE 'mysql.%' AND NOT (user = 'root' AND host = 'localhost') ORDER BY user, host"
	my_create=$(my_sql "SELECT 'SHOW CREATE USER', $my_who") || return 1
	my_grant=$(my_sql "SELECT 'SHOW GRANTS FOR', $my_who") || return 1
	my_create=$(my_raw "$my_set$my_create") || return 1
	my_grant=$(my_raw "$my_grant") || return 1
	printf '%s\n' "$my_create" | sed -e '/^$/d' -e 's/^CREATE USER /CREATE USER IF NOT EXISTS /' -e 's/$/;/'
	printf '%s\n' "$my_grant" | sed -e '/^$/d' -e 's/$/;/'
	printf '%s\n' '-- Dump completed'
}

# my_raw STATEMENTS: what they give, as it is. They go in over a pipe too, since
# an argument may not be long; the options then come over another one.
my_raw() {
	printf '%s\n' "$1" | {
		exec 5<&0
		printf '%s\n' "$MY_OPTIONS" | MYSQL_TEST_LOGIN_FILE=/nonexistent "$MY_CLIENT" --defaults-file=/proc/self/fd/4 \
			--default-character-set=utf8mb4 -NB --raw 4<&0 0<&5 5<&-
	}
}

bs_start "$my_limit"
my_find
my_tools
my_login
bs_place "$MY_DATA"
bs_clean
my_estimate
bs_room "$MY_KIB" 3
[ "$MY_COUNT" != 0 ] || [ -z "$MY_LIMITED" ] || bs_die empty "$MY_LIMITED sees no database"
bs_guard

# shellcheck disable=SC2086 # to be split
[ "$MY_COUNT" = 0 ] || my_databases $MY_DBS
[ -n "$MY_LIMITED" ] || my_users
bs_commit "$MY_ENGINE" "$MY_VERSION" "$MY_DUMP" "$MY_TOOL" "$MY_POSITION"

bs_out engine "$MY_ENGINE"
bs_out version "$MY_VERSION"
bs_out tool "$MY_DUMP"
bs_out toolversion "$MY_TOOL"
bs_out mount "$BS_MOUNT"
bs_out dir "$BS_DIR"
bs_out position "$MY_POSITION"
[ -z "$MY_LIMITED" ] || bs_out warning "root cannot log in: the dump has what $MY_LIMITED can see, and no users"
[ "$MY_COUNT" != 0 ] || bs_out warning "there is no database besides the server's own"
[ "$MY_OLD" = 0 ] || bs_out warning "$MY_OLD tables are not transactional: in the dump they are not of one moment"
if [ "$my_force" = yes ]; then my_barrier; else bs_sync; fi
bs_clean
