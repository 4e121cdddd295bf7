# What the scripts of all plugins share; it stands before each of them. POSIX
# sh, for dash, busybox ash and bash alike. Names in bs_ and BS_ belong to it.
#
# A function answers in the variable that its comment names, since there is no
# `local` and a $(...) would cost a process.

LC_ALL=C
export LC_ALL
umask 077
set -u
unset CDPATH

BS_NL='
'
BS_LINES=0 # of key=value printed
BS_ERROR=''
BS_KEEPER='' # the background process
BS_GUARD=''  # set if it watches the volume
BS_RUN='' BS_DIR='' BS_DATA='' BS_MOUNT=''
BS_FILE=''  # the part being written
BS_FILES='' # those proven
BS_LIST=''  # the same as JSON
BS_FEED=''  # set if a dump comes over standard input
BS_REGRET='' # what undoes what the script has done, should it fail
BS_ME=$(id -u)

IFS= read -r BS_NONCE || exit 1
printf '@bs:%s:BEGIN\n' "$BS_NONCE"

# bs_out KEY VALUE: prints a line. A value that cannot stand on one goes as hex.
bs_out() {
	BS_LINES=$((BS_LINES + 1))
	case $2 in
	*[!\ -~]*) printf '@bs:%s:%s.hex=%s\n' "$BS_NONCE" "$1" "$(printf %s "$2" | od -An -v -tx1 | tr -d ' \n')" ;;
	*) printf '@bs:%s:%s=%s\n' "$BS_NONCE" "$1" "$2" ;;
	esac
}

# bs_die KIND MESSAGE: ends the script.
bs_die() {
	trap '' HUP INT PIPE TERM USR1 USR2 ALRM
	[ -z "$BS_ERROR" ] || exit 1
	BS_ERROR=$1
	bs_undo
	bs_out error "$1 $2"
	exit 1
}

# bs_quote TEXT: the last lines of what a tool said, on standard error.
bs_quote() {
	[ -z "$1" ] || printf '%s\n' "$1" | tail -n 20 >&2
}

# bs_gist TEXT: the line of it that says most, in BS_GIST: the first error, else
# the last one that is not the shell's own.
bs_gist() {
	BS_GIST=''
	set -f
	IFS=$BS_NL
	for bs_x in $1; do
		case $bs_x in
		Killed | Terminated) ;;
		*[Ee]rror:* | *[Ee]rror\ [0-9]* | *ERROR* | *FATAL*)
			BS_GIST=$bs_x
			break
			;;
		*) BS_GIST=$bs_x ;;
		esac
	done
	set +f
	unset IFS
}

# bs_undo removes what this run has written, unless the list names it: then it
# is the dump, however the script ends.
bs_undo() {
	bs_x=$BS_REGRET BS_REGRET=''
	[ -z "$bs_x" ] || "$bs_x"
	[ -n "$BS_FILE" ] || return 0
	bs_listed
	case $BS_LISTED in *"\"$BS_FILE\""*) return 0 ;; esac
	for bs_f in $BS_FILES $BS_FILE .backsnap-dump.json; do rm -f "$BS_DIR/$bs_f.part"; done
	for bs_f in $BS_FILES; do rm -f "$BS_DIR/$bs_f"; done
}

# bs_end says how the script has ended. bash runs it in a subshell too, if a
# signal meets that early.
bs_end() {
	BS_RC=$?
	trap - EXIT
	IFS=' ' read -r bs_pid bs_x </proc/self/stat
	[ "$bs_pid" = $$ ] || exit "$BS_RC"
	trap '' HUP INT PIPE TERM USR1 USR2 ALRM
	bs_alone TERM
	[ "$BS_RC" = 0 ] || bs_undo
	[ "$BS_RC" = 0 ] || [ -n "$BS_ERROR" ] || bs_out error "internal the script ended with $BS_RC"
	printf '@bs:%s:END rc=%s lines=%s\n' "$BS_NONCE" "$BS_RC" "$BS_LINES"
	exit "$BS_RC"
}

# bs_start SECONDS: from here on the script answers for itself. Its keeper ends
# it when standard input ends, for then the client is gone, or when the time is
# up. While a dump comes over standard input, who reads that sees its end; then
# bs_fed hands it to the keeper.
bs_start() {
	BS_LIMIT=$1
	exec 7<&0 </dev/null
	bs_keep
}

# bs_guard: from here on the keeper watches the volume too, and the time counts
# anew.
bs_guard() {
	bs_alone TERM
	BS_GUARD=1
	bs_keep
}

# bs_keep starts the keeper. The script's own traps come after it: a signal that
# meets a new process while it still has its parent's traps is lost, or runs them.
bs_keep() {
	trap - EXIT HUP INT PIPE TERM USR1 USR2 ALRM
	(bs_keeper) >/dev/null &
	BS_KEEPER=$!
	trap bs_end EXIT
	trap 'exit 141' PIPE
	trap 'bs_die stopped "the script was sent a signal"' HUP INT TERM
	trap 'bs_alone; bs_die lost-client "the client is gone"' USR1
	trap 'bs_alone; bs_die timeout "it took more than $BS_LIMIT s"' USR2
	trap 'bs_alone; bs_die nospace "the volume at $BS_MOUNT ran full while the dump was written"' ALRM
}

# bs_alone [SIGNAL]: until the keeper has ended, by itself or by SIGNAL. It is
# waited for, as it waits for its own children: the first process of a container
# is a server that reaps no orphans.
bs_alone() {
	bs_pid=$BS_KEEPER BS_KEEPER=''
	[ -n "$bs_pid" ] || return 0
	[ $# = 0 ] || kill -s "$1" "$bs_pid" 2>/dev/null
	wait "$bs_pid" 2>/dev/null
}

# bs_keeper gives a sign of life every 15 seconds and stops the script when it
# has to.
bs_keeper() {
	IFS=' ' read -r bs_self bs_x </proc/self/stat
	bs_time=0 bs_nap='' bs_reader=''
	trap '' PIPE # that nobody reads its signs must not end it
	trap 'bs_rest; exit 0' TERM
	trap 'bs_stop USR1' USR1
	trap bs_listen HUP
	[ -n "$BS_FEED" ] || bs_listen
	while [ "$bs_time" -lt "$BS_LIMIT" ]; do
		bs_step=$((BS_LIMIT - bs_time))
		[ "$bs_step" -lt 3 ] || bs_step=3
		sleep "$bs_step" >/dev/null 2>&1 &
		bs_nap=$!
		wait "$bs_nap" 2>/dev/null
		bs_time=$((bs_time + bs_step))
		[ -d "/proc/$$" ] || break
		[ $((bs_time % 15)) != 0 ] || printf '@bs:%s:TICK\n' "$BS_NONCE" >&2
		if [ -n "$BS_GUARD" ] && bs_df -Pk "$BS_DIR" && [ "$BS_AVAIL" -lt $((BS_RESERVE / 2)) ]; then bs_stop ALRM; fi
	done
	bs_stop USR2
}

# bs_listen has a child of the keeper's wait for the end of standard input.
bs_listen() {
	(
		trap - HUP
		while IFS= read -r bs_x; do :; done
		kill -s USR1 "$bs_self"
	) <&7 >/dev/null 2>&1 &
	bs_reader=$!
}

# bs_rest ends the keeper's own children, by the one signal that is never lost.
bs_rest() {
	for bs_pid in $bs_nap $bs_reader; do
		kill -s KILL "$bs_pid" 2>/dev/null
		wait "$bs_pid" 2>/dev/null
	done
}

# bs_stop SIGNAL: sends it to the script and ends what the script runs, for a
# shell takes a signal only when its program is done. First TERM for programs
# that have no children, so that their parents can wait for them; after five
# rounds KILL for all.
bs_stop() {
	trap '' TERM USR1
	bs_rest
	kill -s "$1" $$ 2>/dev/null
	bs_round=0
	while bs_halt; do
		if [ "$bs_round" -lt 5 ]; then
			bs_send TERM "$BS_LEAVES"
			bs_send CONT "$BS_BELOW"
		else
			bs_send KILL "$BS_BELOW"
		fi
		[ "$bs_round" -lt 3 ] || sleep 1
		bs_round=$((bs_round + 1))
	done
	exit 0
}

# bs_halt halts all that bs_below finds, that none starts another meanwhile which
# would be orphaned, and so escape. False if there is nothing.
bs_halt() {
	bs_seen=''
	while bs_below && [ "$BS_BELOW" != "$bs_seen" ]; do
		bs_send STOP "$BS_BELOW"
		bs_seen=$BS_BELOW
	done
	[ -n "$BS_BELOW" ]
}

# bs_send SIGNAL PIDS
bs_send() {
	for bs_pid in $2; do kill -s "$1" "$bs_pid" 2>/dev/null; done
}

# bs_below: the processes below the script that live, its keeper's apart, in
# BS_BELOW; those of them that have no children in BS_LEAVES. False if there are
# none.
bs_below() {
	bs_all=''
	for bs_f in /proc/[0-9]*/stat; do
		{ IFS= read -r bs_s <"$bs_f"; } 2>/dev/null || continue
		bs_pid=${bs_s%% *}
		bs_s=${bs_s##*) } # its name, which may hold anything, is over
		bs_x=${bs_s#* }
		[ "${bs_s%% *}" = Z ] || bs_all="$bs_all $bs_pid:${bs_x%% *}"
	done
	bs_tree=" $$ " bs_parents=' ' BS_BELOW='' BS_LEAVES='' bs_more=1
	while [ -n "$bs_more" ]; do
		bs_more=''
		for bs_x in $bs_all; do
			bs_pid=${bs_x%:*} bs_x=${bs_x#*:}
			case $bs_tree in *" $bs_pid "*) continue ;; *" $bs_x "*) ;; *) continue ;; esac
			[ "$bs_pid" != "$bs_self" ] || continue
			bs_tree="$bs_tree$bs_pid " bs_parents="$bs_parents$bs_x " BS_BELOW="$BS_BELOW $bs_pid" bs_more=1
		done
	done
	for bs_pid in $BS_BELOW; do
		case $bs_parents in *" $bs_pid "*) ;; *) BS_LEAVES="$BS_LEAVES $bs_pid" ;; esac
	done
	[ -n "$BS_BELOW" ]
}

# bs_value NAME...: the first of the environment's NAME, or what the file in
# NAME_FILE holds, that is not empty, in BS_VALUE. False if there is none.
bs_value() {
	BS_VALUE=
	for bs_x in "$@"; do
		eval "BS_VALUE=\${$bs_x-} bs_f=\${${bs_x}_FILE-}"
		[ -n "$BS_VALUE" ] && return 0
		if [ -n "$bs_f" ] && bs_content "$bs_f"; then return 0; fi
	done
	return 1
}

# bs_content FILE: what is in it, without the last line's end, in BS_VALUE.
# False if that is nothing.
bs_content() {
	BS_VALUE=
	[ -f "$1" ] && [ -r "$1" ] && BS_VALUE=$(cat "$1") && [ -n "$BS_VALUE" ]
}

# bs_tools NAME...: false if one of them is not there; BS_VALUE is its name.
bs_tools() {
	for BS_VALUE in "$@"; do command -v "$BS_VALUE" >/dev/null 2>&1 || return 1; done
}

# bs_bytes HEX [CHARACTERS]: the bytes, a backslash before each of CHARACTERS
# (hex codes, spaced), in BS_VALUE.
bs_bytes() {
	bs_hex=$1 bs_text=''
	while [ -n "$bs_hex" ]; do
		bs_rest=${bs_hex#??}
		bs_x=${bs_hex%"$bs_rest"}
		bs_hex=$bs_rest
		case " ${2-} " in *" $bs_x "*) bs_text="$bs_text\\0134" ;; esac
		bs_x=$((0x$bs_x))
		bs_text="$bs_text\\0$((bs_x / 64))$((bs_x / 8 % 8))$((bs_x % 8))"
	done
	BS_VALUE=$(printf '%bx' "$bs_text")
	BS_VALUE=${BS_VALUE%x}
}

# bs_json HEX: the bytes as a JSON string, in BS_VALUE.
bs_json() {
	bs_hex=$1 bs_clean=''
	while [ -n "$bs_hex" ]; do
		bs_rest=${bs_hex#??}
		bs_x=${bs_hex%"$bs_rest"}
		bs_hex=$bs_rest
		case $bs_x in
		0? | 1? | 22 | 5c) bs_clean=${bs_clean}5c753030$(printf %s "$bs_x" | od -An -v -tx1 | tr -d ' \n') ;;
		*) bs_clean=$bs_clean$bs_x ;;
		esac
	done
	bs_bytes "22${bs_clean}22"
}

# bs_owner DIR: who owns it, in BS_UID and BS_GID.
bs_owner() {
	bs_x=$(ls -nd "$1") || bs_die permission "$1 cannot be read"
	set -f
	# shellcheck disable=SC2086 # to be split
	set -- $bs_x
	set +f
	BS_UID=$3 BS_GID=$4
}

# bs_df FLAGS DIR: the last line of df, in BS_TOTAL, BS_AVAIL and bs_mount. Names
# of devices and mounts may hold spaces, so that it is read around its capacity,
# a percentage or a minus sign. False, and zeros, if that makes no sense.
bs_df() {
	BS_TOTAL=0 BS_AVAIL=0
	bs_line=$(df "$1" "$2" 2>/dev/null) || return 1
	bs_line=${bs_line##*"$BS_NL"}
	bs_mount=/${bs_line#*[%-] /}
	set -f
	# shellcheck disable=SC2086 # to be split
	set -- ${bs_line%%[%-] /*}0
	set +f
	while [ $# -gt 4 ]; do shift; done
	[ $# = 4 ] || return 1
	case $1$3 in *[!0-9]*) return 1 ;; esac
	BS_TOTAL=$1 BS_AVAIL=$3
}

# bs_place DATADIR: where the dumps lie, in BS_DIR: the top of the volume, else
# as near to it as may be written, else DATADIR itself. Also BS_DATA and its
# owner; the size of the volume and its free space in KiB, in BS_SIZE and BS_FREE,
# and its free inodes in BS_INODES, -1 if there is no limit; what is the
# database's and never the dump's, in BS_RESERVE and BS_SPARE.
#
# The reserve is a twentieth of the volume, for the logs the server writes while
# the dump runs; 32 MiB at least, two segments of PostgreSQL's log, which leaves
# a volume of 256 MiB usable; 10 GiB at most, for logs do not grow with the
# volume.
bs_place() {
	BS_DATA=$(cd "$1" && pwd -P) || bs_die permission "$1 may not be entered by uid $BS_ME"
	bs_owner "$BS_DATA"
	bs_df -Pi "$BS_DATA"
	BS_INODES=$BS_AVAIL BS_SPARE=$((BS_TOTAL / 100 + 16))
	[ "$BS_TOTAL" -gt 0 ] || BS_INODES=-1
	bs_df -Pk "$BS_DATA" || bs_die no-tool "df does not work on $BS_DATA"
	BS_SIZE=$BS_TOTAL BS_FREE=$BS_AVAIL BS_RESERVE=$((BS_TOTAL / 20))
	[ "$BS_RESERVE" -ge 32768 ] || BS_RESERVE=32768
	[ "$BS_RESERVE" -le 10485760 ] || BS_RESERVE=10485760
	[ "$bs_mount" != / ] || bs_die no-volume "$BS_DATA lies on no volume"
	BS_MOUNT=$bs_mount
	case $BS_DATA/ in "$BS_MOUNT"/*) ;; *) BS_MOUNT=$BS_DATA ;; esac
	BS_DIR=$BS_MOUNT
	while [ ! -w "$BS_DIR" ] || [ ! -x "$BS_DIR" ]; do
		[ "$BS_DIR" != "$BS_DATA" ] || bs_die permission "no file can be written in $BS_DATA by uid $BS_ME"
		bs_x=${BS_DATA#"$BS_DIR"/}
		BS_DIR=$BS_DIR/${bs_x%%/*}
	done
}

# bs_listed: the list of the dump that stands, in BS_LISTED. Empty if there is
# none.
bs_listed() {
	BS_LISTED=
	[ ! -f "$BS_DIR/.backsnap-dump.json" ] || IFS= read -r BS_LISTED <"$BS_DIR/.backsnap-dump.json"
}

# bs_last: KiB of the dump that stands, 0 if there is none, in BS_LAST.
bs_last() {
	BS_LAST=0
	bs_listed
	for bs_f in "$BS_DIR"/.backsnap-*.dump; do
		case $BS_LISTED in
		*"\"${bs_f##*/}\""*) [ ! -f "$bs_f" ] || BS_LAST=$((BS_LAST + $(wc -c <"$bs_f") / 1024 + 1)) ;;
		esac
	done
}

# bs_room KIB FILES: fails unless a dump of databases that take KIB by estimate
# fits beside the reserve. What the last dump took, against its own estimate,
# says more; the cap holds in any case. The need in BS_NEED.
bs_room() {
	bs_last
	BS_ESTIMATE=$1 BS_NEED=$1
	bs_x=${BS_LISTED#*\"estimateKiB\":}
	bs_x=${bs_x%%,*}
	case $bs_x in
	'' | 0* | *[!0-9]*) ;;
	*)
		bs_grown=$(($1 * 1000 / bs_x)) # in thousandths
		[ "$BS_LAST" = 0 ] || BS_NEED=$((BS_LAST * 13 * bs_grown / 10000))
		;;
	esac
	[ $((BS_NEED + BS_RESERVE)) -le "$BS_FREE" ] ||
		bs_die nospace "the dump needs about $((BS_NEED / 1024 + 1)) MiB and the database $((BS_RESERVE / 1024)) MiB in reserve, but only $((BS_FREE / 1024)) MiB are free on the volume at $BS_MOUNT"
	[ "$BS_INODES" = -1 ] || [ $(($2 + BS_SPARE)) -le "$BS_INODES" ] ||
		bs_die noinodes "the dump needs $2 files and the database $BS_SPARE in reserve, but only $BS_INODES inodes are free on the volume at $BS_MOUNT"
}

# bs_full FILE: whether it has come to the cap.
bs_full() {
	[ $(($(wc -c <"$1") / 512)) -ge "$BS_CAP" ]
}

# bs_new N: an empty file for part N, in BS_PART. Its name is not that of a
# dump that stands, should the same run come twice. BS_CAP is what it may take,
# in blocks of 512 bytes, as ulimit counts.
bs_new() {
	bs_n=$1
	while [ -e "$BS_DIR/.backsnap-$BS_RUN-$bs_n.dump" ]; do bs_n=$((bs_n + 1000)); done
	BS_FILE=.backsnap-$BS_RUN-$bs_n.dump
	BS_PART=$BS_DIR/$BS_FILE.part
	[ ! -e "$BS_PART" ] || rm -f "$BS_PART" 2>/dev/null
	(
		set -C
		: >"$BS_PART"
	) || bs_die permission "$BS_PART cannot be written"
	bs_own "$BS_PART"
	BS_CAP=$(((BS_FREE - BS_RESERVE) * 2))
	[ "$BS_CAP" -gt 0 ] || bs_die nospace "the volume at $BS_MOUNT has only its reserve left"
}

# bs_own FILE: gives it to the owner of the data directory.
bs_own() {
	[ "$BS_ME" != 0 ] || [ "$BS_UID:$BS_GID" = 0:0 ] || chown "$BS_UID:$BS_GID" "$1" || bs_die permission "$1 cannot be given to $BS_UID:$BS_GID"
}

# bs_sha256 FILE: prints its sum.
bs_sha256() {
	bs_sums <"$1"
}

# bs_sums: prints the sum of standard input.
bs_sums() {
	if command -v sha256sum >/dev/null 2>&1; then
		sha256sum
	elif command -v openssl >/dev/null 2>&1; then
		openssl dgst -sha256 -r
	else
		busybox sha256sum
	fi
}

# bs_hashes: whether bs_sha256 has a tool.
bs_hashes() {
	bs_tools sha256sum || bs_tools openssl || bs_tools busybox
}

# bs_proven WHAT-IN-HEX FORMAT SUM: the part in BS_PART is good.
bs_proven() {
	bs_sum=${3%% *}
	case $bs_sum in
	*[!0-9a-f]*) bs_sum= ;;
	esac
	[ ${#bs_sum} = 64 ] || bs_die verify "$BS_FILE has no SHA-256"
	bs_size=$(wc -c <"$BS_PART") || bs_die verify "$BS_FILE is gone"
	bs_size=$((bs_size))
	[ "$bs_size" -gt 0 ] || bs_die verify "$BS_FILE is empty"
	BS_FREE=$((BS_FREE - bs_size / 1024 - 1))
	bs_out part "$BS_FILE $2 $bs_size $bs_sum $1"
	bs_json "$1"
	BS_LIST="$BS_LIST${BS_LIST:+,}{\"what\":$BS_VALUE,\"file\":\"$BS_FILE\",\"format\":\"$2\",\"bytes\":$bs_size,\"sha256\":\"$bs_sum\"}"
	BS_FILES="$BS_FILES $BS_FILE"
}

# bs_sync: everything on the volume of the dumps is on its disk.
bs_sync() {
	sync -f "$BS_DIR" 2>/dev/null || sync
}

# bs_commit ENGINE VERSION TOOL TOOLVERSION POSITION: the parts get their names,
# and the rename of the list, once all is on the disk, makes them the dump.
bs_commit() {
	for bs_f in $BS_FILES; do
		mv -f "$BS_DIR/$bs_f.part" "$BS_DIR/$bs_f" || bs_die dump "$bs_f cannot be renamed"
	done
	bs_f=$BS_DIR/.backsnap-dump.json
	printf '{"version":1,"run":"%s","finished":"%s","engine":"%s","serverVersion":"%s","tool":"%s","toolVersion":"%s","position":"%s","estimateKiB":%s,"parts":[%s]}\n' \
		"$BS_RUN" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" "$2" "$3" "$4" "$5" "$BS_ESTIMATE" "$BS_LIST" >"$bs_f.part" || bs_die nospace "$bs_f cannot be written"
	bs_own "$bs_f.part"
	bs_sync
	mv -f "$bs_f.part" "$bs_f" || bs_die dump "$bs_f cannot be renamed"
}

# bs_clean removes every dump that the list does not name: those it replaces, and
# what dead runs left; and lists elsewhere. A list that is not whole is left
# alone, with all beside it.
bs_clean() {
	bs_listed
	case $BS_LISTED in '' | *'"parts":['*']}') ;; *) return 0 ;; esac
	set --
	for bs_x in "$BS_MOUNT" "$BS_DIR" "$BS_DATA"; do
		for bs_f in "$bs_x"/.backsnap-*.dump "$bs_x"/.backsnap-*.part "$bs_x/.backsnap-dump.json"; do
			case $bs_x:$BS_LISTED in "$BS_DIR":*"\"${bs_f##*/}\""*) continue ;; esac
			[ "$bs_f" != "$BS_DIR/.backsnap-dump.json" ] || continue
			[ ! -f "$bs_f" ] || set -- "$@" "$bs_f"
		done
	done
	[ $# = 0 ] || rm -f "$@"
}
