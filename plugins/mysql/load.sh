# Looks at the databases that a dump would be loaded into, or loads one. The
# server has no transaction for that: what fails leaves part of it.

IFS= read -r my_mode || exit 1
IFS= read -r my_limit || exit 1
IFS= read -r my_into || exit 1 # names in hex, as all here; several to look at
if [ "$my_mode" = load ]; then
	IFS= read -r my_from || exit 1 # the one database to be loaded; none: all of the dump
	IFS= read -r my_fresh || exit 1
	bs_wanted
	IFS= read -r my_part || exit 1 # databases or users
fi

# my_there HEX: whether there is such a database.
my_there() {
	case " $MY_DBS " in *" $1 "*) return 0 ;; esac
	return 1
}

# my_content HEX: its KiB, and how many tables, routines and events it has, in
# my_kib and my_objects.
my_content() {
	my_name="CONVERT(x'$1' USING utf8mb4)"
	my_x=$(my_sql "SELECT CEIL(COALESCE(SUM(data_length), 0) / 1024), COUNT(*) + (SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = $my_name)
+ (SELECT COUNT(*) FROM information_schema.events WHERE event_schema = $my_name) FROM information_schema.tables WHERE table_schema = $my_name" 2>&1) || {
		bs_quote "$my_x"
		bs_gist "$my_x"
		bs_die load "look into the database: $BS_GIST"
	}
	my_kib=${my_x%%"$MY_TAB"*} my_objects=${my_x##*"$MY_TAB"}
}

# my_look: says what stands where the dump would go.
my_look() {
	for my_hex in $my_into; do
		if my_there "$my_hex"; then
			my_content "$my_hex"
			bs_out target "$my_hex $my_kib $my_objects"
		else
			bs_out target "$my_hex -1 0"
		fi
	done
	for my_hex in $MY_DBS; do bs_out database "$my_hex"; done
}

# my_identifier HEX: the name as an identifier, in MY_NAME.
my_identifier() {
	bs_bytes "$1"
	MY_NAME="\`$(printf %s "$BS_VALUE" | sed "s/\`/\`\`/g")\`"
}

# my_create makes the database, if it is not there.
my_create() {
	my_identifier "$my_into"
	my_x=$(my_sql "CREATE DATABASE IF NOT EXISTS $MY_NAME" 2>&1) && return 0
	bs_quote "$my_x"
	bs_gist "$my_x"
	bs_die load "create the database: $BS_GIST"
}

# my_plain: standard input, the dump, without its packing. What that leaves unread
# is read all the same, for the sum.
my_plain() {
	case $BS_HEAD in
	1f8b*) gzip -d -c ;;
	28b52ffd*) zstd -q -d -c ;;
	*) cat ;;
	esac
	my_x=$?
	[ "$my_x" != 0 ] || cat >/dev/null
	printf 'bs-unpacked=%s\n' "$my_x" >&6
}

# my_pattern TEXT, my_replacement TEXT: as sed takes it.
my_pattern() {
	printf %s "$1" | sed 's/[][\\.*^$/]/\\&/g'
}

my_replacement() {
	printf %s "$1" | sed 's/[\\&/]/\\&/g'
}

# my_chosen: of the statements those that are to be run. The client itself passes
# over those of other databases: it alone knows what is a statement, and what
# stands in a comment or a string. One of that name in the dump is not meant.
my_chosen() {
	if [ "$my_part" = users ]; then
		grep -v -F -e "$my_known"
	elif [ -z "$my_from" ]; then
		cat
	else
		my_identifier "$my_from"
		my_old=$(my_pattern "$MY_NAME")
		my_identifier "$my_into"
		my_new=$(my_replacement "$MY_NAME")
		set -- -e "/^CREATE DATABASE \\/\\*!32312 IF NOT EXISTS\\*\\/ \`/!b" \
			-e "s/^CREATE DATABASE \\/\\*!32312 IF NOT EXISTS\\*\\/ $my_old \\(.*\\)\$/USE $my_new;\\${BS_NL}ALTER DATABASE $my_new \\1\\${BS_NL}SELECT 'bs-there';/" \
			-e '/^CREATE DATABASE /d'
		[ "$my_from" = "$my_into" ] || set -- -e "s/^USE $(my_pattern "$MY_NAME");\$/USE \`-\`;/" -e "s/^USE $my_old;\$/USE $my_new;/" "$@"
		sed "$@"
	fi
}

# my_client ARGUMENT...: runs the statements of standard input. The options come
# over another pipe.
my_client() {
	exec 4<&0
	printf '%s\n' "$MY_OPTIONS" | {
		exec 3<&0 0<&4 4<&-
		MYSQL_TEST_LOGIN_FILE=/nonexistent "$MY_CLIENT" --defaults-file=/proc/self/fd/3 --default-character-set=utf8mb4 \
			--max-allowed-packet=1G --init-command='SET SESSION lock_wait_timeout = 45' -NB "$@"
	}
}

# my_session ARGUMENT...: prints what the programs said, and how they ended.
my_session() {
	exec 6>&1
	bs_feed '' 2>&6 | my_plain 2>&6 | my_chosen 2>&6 6>&- | {
		my_client "$@" >&6 2>&1
		printf 'bs-loaded=%s\n' $? >&6
	}
}

# my_accounts: those that there are, however they may be quoted, in my_known. They
# stay as they are: the password of root in the dump may be an old one.
my_accounts() {
	my_known=$(my_sql "SELECT CONCAT('\`', REPLACE(user, '\`', '\`\`'), '\`@\`', REPLACE(host, '\`', '\`\`'), '\`') FROM mysql.user
UNION SELECT CONCAT(QUOTE(user), '@', QUOTE(host)) FROM mysql.user" 2>&1) || {
		bs_quote "$my_known"
		bs_gist "$my_known"
		bs_die load "list the users: $BS_GIST"
	}
}

my_load() {
	[ "$MY_ROLE" = primary ] || bs_die unsupported "the server is a replica: it takes no dump"
	bs_lies
	my_known='' BS_SOUGHT=$my_from
	set --
	if [ "$my_part" = users ]; then
		my_accounts
	elif [ -n "$my_from" ]; then
		my_objects=0
		! my_there "$my_into" || my_content "$my_into"
		[ "$my_fresh" != yes ] || [ "$my_objects" = 0 ] || bs_die exists "the database is there and not empty"
		my_create
		bs_bytes "$my_into"
		set -- --one-database -- "$BS_VALUE"
	fi
	bs_said "$(my_session "$@")"
	bs_judge partial partial
}

bs_start "$my_limit"
my_find
my_tools
bs_tools head tee grep tr || bs_die no-tool "the image has no $BS_VALUE"
my_login
my_role
bs_out engine "$MY_ENGINE"
bs_out version "$MY_VERSION"
bs_out role "$MY_ROLE"
if [ "$my_mode" = load ]; then my_load; else my_look; fi
