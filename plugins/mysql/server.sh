# Finds the MySQL, MariaDB or Percona server of this container and logs in to
# it. Names in my_ and MY_ belong to it.

MY_TAB=$(printf '\t')

# my_find: the server's socket in MY_SOCKET; empty if it can only be reached over
# TCP. Runs nothing.
my_find() {
	MY_SOCKET=''
	for my_x in "${MYSQL_UNIX_PORT-}" /run/mysqld/mysqld.sock /var/run/mysqld/mysqld.sock /var/lib/mysql/mysql.sock \
		/opt/bitnami/mariadb/tmp/mysql.sock /opt/bitnami/mysql/tmp/mysql.sock /tmp/mysql.sock; do
		if [ -S "$my_x" ]; then
			MY_SOCKET=$my_x
			return 0
		fi
	done
	my_server=''
	for my_x in /proc/[0-9]*/comm; do
		{ read -r my_comm <"$my_x"; } 2>/dev/null || continue
		case $my_comm in mysqld | mariadbd) my_server=$my_comm ;; esac
	done
	[ -n "$my_server" ] || bs_die no-server "no MySQL or MariaDB server runs in this container"
	while read -r my_x my_x my_x my_x my_x my_x my_x my_path; do
		case $my_path in
		/*mysql*.sock | /*maria*.sock)
			if [ -S "$my_path" ]; then
				MY_SOCKET=$my_path
				return 0
			fi
			;;
		esac
	done </proc/net/unix
}

# my_tools: the programs are there. The client in MY_CLIENT, the dump tool in
# MY_DUMP, its version in MY_TOOL, MY_VENDOR says whose it is; what compresses in
# MY_PACK.
my_tools() {
	bs_tools mariadb || bs_tools mysql || bs_die no-tool "the image has neither mariadb nor mysql"
	MY_CLIENT=$BS_VALUE
	bs_tools mariadb-dump || bs_tools mysqldump || bs_die no-tool "the image has neither mariadb-dump nor mysqldump"
	MY_DUMP=$BS_VALUE
	bs_tools df od tail sed || bs_die no-tool "the image has no $BS_VALUE"
	bs_hashes || bs_die no-tool "the image has nothing that computes SHA-256"
	my_x=$("$MY_DUMP" --version) || bs_die no-tool "$MY_DUMP does not run"
	MY_VENDOR=mysql
	case $my_x in *MariaDB*) MY_VENDOR=mariadb ;; esac
	case $my_x in
	*"Distrib "*) my_x=${my_x#*Distrib } ;;
	*" from "*) my_x=${my_x#* from } ;;
	*) my_x=${my_x#*Ver } ;;
	esac
	my_x=${my_x%% *}
	MY_TOOL=${my_x%,}
	MY_PACK=none MY_FORMAT=sql
	if bs_tools zstd; then
		MY_PACK=zstd MY_FORMAT=sql.zst
	elif bs_tools gzip; then
		MY_PACK=gzip MY_FORMAT=sql.gz
	fi
}

# my_run PROGRAM ARGUMENT...: with the login. The options go in over a pipe that
# printf fills, which is a builtin, so that the password stands in no argument
# list and in no file; no other file of options is read.
my_run() {
	my_program=$1
	shift
	printf '%s\n' "$MY_OPTIONS" | MYSQL_TEST_LOGIN_FILE=/nonexistent "$my_program" --defaults-file=/proc/self/fd/0 "$@"
}

my_sql() {
	my_run "$MY_CLIENT" --default-character-set=utf8mb4 --connect-timeout=10 -NB -e "$1"
}

# What is asked of every server. SHOW gives those variables that it has.
MY_FACTS="
SELECT CONCAT('bs db ', LOWER(HEX(s.schema_name)), ' ', CEIL(COALESCE(SUM(t.data_length), 0) / 1024), ' ',
COALESCE(SUM(t.engine IN ('MyISAM', 'Aria', 'MEMORY', 'CSV', 'ARCHIVE', 'MRG_MyISAM')), 0))
FROM information_schema.schemata AS s LEFT JOIN information_schema.tables AS t ON t.table_schema = s.schema_name
WHERE s.schema_name NOT IN ('information_schema', 'performance_schema', 'sys', 'mysql') AND s.schema_name NOT LIKE '#mysql50#%'
GROUP BY s.schema_name ORDER BY s.schema_name;
SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'version_comment', 'datadir', 'read_only', 'super_read_only', 'skip_networking', 'innodb_doublewrite',
'gtid_binlog_pos', 'gtid_executed')"

# my_login: logs in as root, or as the image's user if root's password is in
# nobody's hands: one that is refused is a fault to be told, no reason to dump
# less. MY_OPTIONS is what a client needs then, and MY_ENGINE, MY_VERSION,
# MY_ROLE, MY_DATA, MY_POSITION, MY_DBS and more hold the facts; MY_LIMITED is
# the user if it is not root.
my_login() {
	my_error='' MY_LIMITED=''
	my_user=root
	bs_value MARIADB_ROOT_USER MYSQL_ROOT_USER && my_user=$BS_VALUE
	if bs_value MARIADB_ROOT_PASSWORD MYSQL_ROOT_PASSWORD ||
		bs_content /opt/bitnami/mariadb/secrets/mariadb-root-password ||
		bs_content /opt/bitnami/mysql/secrets/mysql-root-password; then
		my_try "$my_user" "$BS_VALUE" && return 0
	else
		my_try "$my_user" '' && return 0
		bs_value MARIADB_USER MYSQL_USER && MY_LIMITED=$BS_VALUE
		if [ -n "$MY_LIMITED" ] && bs_value MARIADB_PASSWORD MYSQL_PASSWORD; then
			my_try "$MY_LIMITED" "$BS_VALUE" && return 0
		fi
	fi
	bs_quote "$my_error"
	bs_gist "$my_error"
	bs_die login "no login as $my_user: $BS_GIST"
}

# my_try USER PASSWORD: false if the server does not want them. The first
# refusal is kept in my_error.
my_try() {
	MY_OPTIONS="[client]${BS_NL}user=$(my_quote "$1")"
	[ -z "$2" ] || MY_OPTIONS="$MY_OPTIONS${BS_NL}password=$(my_quote "$2")"
	if [ -n "$MY_SOCKET" ]; then
		MY_OPTIONS="$MY_OPTIONS${BS_NL}socket=$(my_quote "$MY_SOCKET")"
	else
		MY_OPTIONS="$MY_OPTIONS${BS_NL}host=127.0.0.1${BS_NL}protocol=tcp"
	fi
	if my_facts=$(my_sql "$MY_FACTS" 2>&1); then
		my_read "$my_facts"
		my_initialises
		return 0
	fi
	my_refused "$my_facts"
	[ -n "$my_error" ] || my_error=$my_facts
	return 1
}

# my_quote TEXT: prints it as a value of an option file.
my_quote() {
	printf '"'
	printf '%s\n' "$1" | sed -e 's/[\\"]/\\&/g' -e '$!s/$/\\n/' | tr -d '\n'
	printf '"'
}

# my_refused TEXT: ends the script if the server takes no connection at all.
my_refused() {
	case $1 in
	*"ERROR 2002"* | *"ERROR 2003"*) bs_die starting "the server runs but takes no connection yet: it starts, or replays its log" ;;
	*"ERROR 1040"* | *"ERROR 1053"* | *"ERROR 2013"* | *"ERROR 1203"*)
		bs_quote "$1"
		bs_gist "$1"
		bs_die unavailable "the server takes no connection: $BS_GIST"
		;;
	esac
}

# my_initialises: the images' entrypoint first sets a new database up through a
# server that listens to nobody, and only then gives way to the real one.
my_initialises() {
	my_x=''
	[ "$MY_LOCAL" != ON ] || read -r my_x </proc/1/comm
	case $my_x in docker-entrypoi*) bs_die starting "the image is still setting the database up" ;; esac
}

# my_read TEXT: what MY_FACTS gave.
my_read() {
	MY_DBS='' MY_COUNT=0 MY_KIB=0 MY_OLD=0 MY_ENGINE=mysql MY_ROLE=primary MY_LOCAL='' MY_POSITION='' MY_DOUBLE=ON
	set -f
	IFS=$BS_NL
	for my_x in $1; do
		unset IFS
		my_v=${my_x#*"$MY_TAB"}
		case $my_x in
		"bs db "*)
			# shellcheck disable=SC2086 # to be split
			set -- $my_x
			MY_DBS="$MY_DBS $3" MY_COUNT=$((MY_COUNT + 1)) MY_KIB=$((MY_KIB + $4)) MY_OLD=$((MY_OLD + $5))
			;;
		version*MariaDB*) MY_ENGINE=mariadb ;; # its comment too
		esac
		case ${my_x%%"$MY_TAB"*} in
		version) MY_VERSION=${my_v%%-*} ;;
		datadir) MY_DATA=${my_v%/} ;;
		read_only | super_read_only) [ "$my_v" = OFF ] || MY_ROLE=replica ;;
		skip_networking) MY_LOCAL=$my_v ;;
		innodb_doublewrite) MY_DOUBLE=$my_v ;;
		gtid_binlog_pos | gtid_executed) MY_POSITION=$(printf %s "$my_v" | sed 's/\\n//g') ;;
		esac
	done
	set +f
	unset IFS
}

# my_role: a server that follows another is a replica, though it may take writes.
my_role() {
	if [ "$MY_ENGINE" = mariadb ]; then
		my_x=$(my_sql "SHOW ALL SLAVES STATUS" 2>/dev/null)
	else
		my_x=$(my_sql "SHOW REPLICA STATUS" 2>/dev/null || my_sql "SHOW SLAVE STATUS" 2>/dev/null)
	fi
	[ -z "$my_x" ] || MY_ROLE=replica
}

# my_estimate: KiB the dump may take, in MY_KIB. It has no indexes; rows as text
# are longer than rows as stored, and compressed half as long at most.
my_estimate() {
	if [ "$MY_PACK" = none ]; then
		MY_KIB=$((MY_KIB * 3 / 2))
	else
		MY_KIB=$((MY_KIB / 2))
	fi
	MY_KIB=$((MY_KIB + MY_COUNT * 64 + 1024))
}

# my_barrier: MariaDB's only statement that forces InnoDB's log onto the disk
# whatever innodb_flush_log_at_trx_commit says; FLUSH ENGINE LOGS, which serves
# in MySQL, does not in MariaDB.
my_barrier() {
	my_how="FLUSH LOCAL ENGINE LOGS"
	my_sql="$my_how"
	if [ "$MY_ENGINE" = mariadb ]; then
		my_how="innodb_log_checkpoint_now"
		my_sql="SET SESSION max_statement_time = 60; SET GLOBAL innodb_log_checkpoint_now = ON"
	fi
	my_forced=yes
	my_x=$(my_sql "$my_sql" 2>&1) || my_forced=no
	bs_sync
	if [ "$my_forced" = no ]; then
		bs_quote "$my_x"
		bs_gist "$my_x"
		my_how=$BS_GIST
	fi
	bs_out barrier "$my_forced"
	bs_out barrier-how "$my_how"
	bs_out barrier-position "$MY_POSITION"
	case $MY_DOUBLE in
	OFF | 0) bs_out barrier-warning "innodb_doublewrite is off: after a crash of the machine pages can be torn" ;;
	esac
	[ "$MY_OLD" = 0 ] || bs_out barrier-warning "$MY_OLD tables are not transactional: in the snapshot they may be damaged"
}
