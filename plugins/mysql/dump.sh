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

# my_part N WHAT-IN-HEX COMMAND ARGUMENT...: one file, read back whole to its
# trailer. The sum is computed meanwhile. A table that changes its form or goes
# away under the dump ends it; then it is tried again.
my_part() {
	my_n=$1 my_what=$2
	shift 2
	my_turn=1
	while :; do
		bs_new "$my_n"
		my_x=$BS_NL$(my_write "$@" 2>&1)$BS_NL
		case $my_x in *"${BS_NL}made=0$BS_NL"*) case $my_x in *"${BS_NL}packed=0$BS_NL"*) break ;; esac ;; esac
		case $my_x in *1412* | *1146*) ;; *) my_failed "$my_x" ;; esac
		[ "$my_turn" -lt 3 ] || my_failed "$my_x"
		sleep "$my_turn"
		my_turn=$((my_turn + 1))
	done
	bs_quote "$(printf %s "$my_x" | grep -v -e '^made=0$' -e '^packed=0$' -e '^$')"
	my_prove
	bs_proven "$my_what" "$MY_FORMAT" "$my_sum"
}

# my_prove: reads BS_PART back. Its sum in my_sum.
my_prove() {
	my_x=$BS_NL$(
		bs_sha256 "$BS_PART" &
		{
			{
				my_unpack <"$BS_PART" 3>&-
				printf '\nread=%s\n' $? >&3
			} | tail -n 1
		} 3>&1 2>&1
		wait
	)$BS_NL
	case $my_x in *"${BS_NL}read=0$BS_NL"*) ;; *)
		bs_quote "$my_x"
		bs_die verify "the dump cannot be read back"
		;;
	esac
	case $my_x in *"$BS_NL-- Dump completed"*) ;; *) bs_die verify "the dump has no trailer: it was cut off" ;; esac
	my_sum=$(printf %s "$my_x" | grep -E '^[0-9a-f]{64}')
}

# my_failed TEXT: ends the script for a tool that failed.
my_failed() {
	my_x=$(printf %s "$1" | grep -v -e '^made=' -e '^packed=' -e '^$')
	bs_quote "$my_x"
	! bs_full "$BS_PART" || bs_die nospace "the dump came to the cap of $((BS_CAP / 2048)) MiB, which leaves the database its reserve"
	case $my_x in *"(1044)"* | *"(1142)"* | *"(1227)"* | *"(1045)"*) bs_die permission "$MY_DUMP: ${my_x##*"$BS_NL"}" ;; esac
	[ -n "$my_x" ] || my_x="ended with$(printf %s "$1" | tr '\n' ' ')"
	bs_die dump "$MY_DUMP: ${my_x##*"$BS_NL"}"
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
	my_part 1 646174616261736573 my_run "$MY_DUMP" "$@"
}

# my_users: who may log in, and what they may do.
my_users() {
	if [ "$MY_VENDOR" = mariadb ] && "$MY_DUMP" --help | grep -q -e --system=; then
		my_part 2 7573657273 my_run "$MY_DUMP" --system=users --insert-ignore
	else
		my_part 2 7573657273 my_grants
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
[ "$my_force" != yes ] || my_barrier
