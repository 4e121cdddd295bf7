# What a mover runs: restic, once, and a report of it that outlives the log.
#
#   sh -c THIS backsnap MODE PATIENCE LIMIT RETRY RESTIC-ARGUMENTS...
#
# MODE is backup, init, restore, image, examine, forget, prune, unlock, locks, or one whose
# output is wanted: list, stats. PATIENCE is how many seconds the repository has to answer at
# all, LIMIT how many the work itself may take: restic asks a bucket that does
# not exist again and again, and prints nothing. So that is tried first; by a restore, which
# somebody waits for, only if it has said nothing for a while. RETRY is how long to wait for
# another's lock, 0s for not at all. $BACKSNAP_NAMESPACE stands in for
# {namespace} in the repository's address: here and not in the pod's spec,
# because the address may hold a password. $BACKSNAP_COPY is the tag that all
# copies of the same snapshot carry: one that is whole is not made again.
#
# Kubernetes reads two dollars as one, and a name in parentheses after a dollar
# as a variable of the pod's: neither stands here.
#
# The shell is the container's first process and gets the TERM of a pod that
# is deleted. It hands it on, so that restic removes its lock.
set -u
mode=$1 patience=$2 limit=$3 retry=$4
shift 4
pipe=${TMPDIR:-/tmp}/backsnap.pipe
end='backsnap: end of restic'
chunk=4194304
child='' stopped='' step='' code=0 said='' hasty='' mute=''
newline='
'

trap 'stopped=yes; if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi' TERM INT

# address puts the namespace in its place.
address() {
	mark='{namespace}' before='' rest=${RESTIC_REPOSITORY-}
	while :; do
		case $rest in
		*"$mark"*) ;;
		*) break ;;
		esac
		before=$before${rest%%"$mark"*}${BACKSNAP_NAMESPACE-}
		rest=${rest#*"$mark"}
	done
	if [ -n "$before" ]; then
		RESTIC_REPOSITORY=$before$rest
		export RESTIC_REPOSITORY
	fi
}

# listen hands restic's lines on to the log. What it prints last, to file
# descriptor 3, is what the report needs: how many errors there were, the
# summary, the first three and the last two of the other lines. All in all it
# stays below the 4096 bytes that a pod's status has room for.
listen() {
	errors=0 others=0 summary='' first='' last='' final=''
	while IFS= read -r line; do
		case $line in
		'') continue ;;
		"$end") break ;;
		esac
		printf '%s\n' "$line"
		case $line in
		'{"message_type":"status"'* | '{"message_type":"verbose_status"'*)
			: >"$pipe.alive"
			continue
			;;
		'{"message_type":"summary"'* | '{"message_type":"initialized"'*)
			summary=$line
			continue
			;;
		# All that is worth to be told of a prune, which knows no JSON.
		'total prune: '*)
			summary=$line
			continue
			;;
		'{"message_type":"error"'*) errors=$((errors + 1)) ;;
		# What it says when it leaves snapshots out of a list, and ends with 0.
		'Ignoring '* | 'could not load snapshots: '* | 'error printing snapshots: '*) errors=$((errors + 1)) ;;
		esac
		others=$((others + 1))
		if [ "$others" -le 3 ]; then
			first=$first$(printf '%.600s' "$line")$newline
		else
			last=$final final=$line
		fi
	done
	printf 'errors=%s\n%.1000s\n%s%.600s\n%.600s\n' "$errors" "$summary" "$first" "$last" "$final" >&3
}

# doze waits for a moment. Not every sleep knows parts of a second.
doze() { sleep 0.02 2>/dev/null || sleep 1; }

# alarm stops process $2 after $1 seconds, unless file $4 is there by then, and a
# minute later for good; file $3 says that it has. It is told by TERM that nobody
# needs it any more. (timeout can lose a TERM that comes while it starts, and
# leave its program running: seen. So can this shell before its own trap stands:
# that it does is what $3.armed says.)
alarm() {
	nap=''
	trap 'kill "$nap" 2>/dev/null; exit 0' TERM
	: >"$3.armed"
	for signal in TERM KILL; do
		sleep "$1" &
		nap=$!
		wait "$nap"
		if [ -n "$4" ] && [ -e "$4" ]; then exit 0; fi
		: >"$3"
		kill -s "$signal" "$2"
		set -- 60 "$2" "$3" ''
	done
}

# call runs restic as step $1 within $2 seconds and leaves its exit code in
# code, 124 if the time was up, and what there is to report in said. A hasty one
# is stopped too, with mute set, if it has said nothing for a while.
call() {
	step=$1 seconds=$2
	shift 2
	mkfifo "$pipe" || exit 1
	# Both ends are held open, so that no opening waits for the other.
	exec 4<>"$pipe"
	listen <"$pipe" 3>"$pipe.said" 4>&- &
	listener=$!
	case $step in
	check | note) out=/dev/null ;;
	find) out=$pipe.out ;;
	list | stats | locks) out=$pipe.answer ;;
	image)
		out=$pipe.image
		mkfifo "$out" || exit 1
		pour <"$out" 4>&- &
		pouring=$!
		;;
	*) out=$pipe ;;
	esac
	restic "$@" >"$out" 2>"$pipe" 4>&- &
	child=$!
	alarm "$seconds" "$child" "$pipe.$step.late" '' >/dev/null 2>&1 4>&- &
	timers=$! mute=''
	if [ -n "$hasty" ]; then
		alarm "$((patience / 3 + 1))" "$child" "$pipe.$step.mute" "$pipe.alive" >/dev/null 2>&1 4>&- &
		timers="$timers $!"
	fi
	# The signal came before there was a child to hand it on to. One that is
	# not yet the program that it will be loses it.
	if [ -n "$stopped" ]; then
		sleep 1
		kill -TERM "$child" 2>/dev/null
	fi
	await "$child"
	ended=$code
	# A restic that is told to end names what it was about as the cause: one
	# that was trying its keys says that the password is wrong (0.19.1).
	if [ -n "$stopped" ] && [ "$ended" -ne 0 ] && [ "$ended" -ne 3 ]; then ended=130; fi
	until [ -e "$pipe.$step.late.armed" ]; do doze; done
	until [ -z "$hasty" ] || [ -e "$pipe.$step.mute.armed" ]; do doze; done
	if [ -e "$pipe.$step.late" ]; then ended=124; fi
	if [ -e "$pipe.$step.mute" ]; then mute=yes; fi
	# An alarm that loses this signal, since it has only just begun, strikes
	# when nobody minds.
	for timer in $timers; do kill -TERM "$timer" 2>/dev/null; done
	if [ "$step" = image ]; then
		# A restic that was ended before it had opened its end never will.
		: <>"$out"
		await "$pouring"
		rm -f "$out"
	fi
	# The pipe does not end before the last program lets go of it that restic
	# may have left behind: the listener is told instead.
	printf '\n%s\n' "$end" >&4
	await "$listener"
	exec 4>&-
	code=$ended child=''
	said=$(cat "$pipe.said")
	rm -f "$pipe" "$pipe.said" "$pipe.$step.late" "$pipe.$step.late.armed" "$pipe.$step.mute" "$pipe.$step.mute.armed" "$pipe.alive"
}

# await waits until process $1 is over, however many signals come between,
# and leaves its exit code in code. What the shell says of processes that were
# ended by a signal is of no use in the log.
await() {
	while :; do
		wait "$1" 2>/dev/null
		code=$?
		kill -0 "$1" 2>/dev/null || return 0
	done
}

check() { call check "$patience" cat config --json --no-lock; }

# find looks for a copy of the same snapshot, which one may have made that died
# before it was written down. Whether it is whole only the volume tells: restic
# is asked what it would add to it. It leaves found empty where nothing is
# found, else the report's summary of it. RESTIC-ARGUMENTS are those of backup.
find() {
	found='' listed='' before='' id=''
	if [ -z "${BACKSNAP_COPY-}" ]; then return; fi
	call find "$limit" snapshots --json --no-lock --tag "$BACKSNAP_COPY"
	if [ "$code" -ne 0 ]; then return; fi
	listed=$(cat "$pipe.out")
	while :; do
		case $listed in
		*'"id":"'*) ;;
		*) break ;;
		esac
		before=${listed%'"id":"'*}
		id=${listed##*'"id":"'} id=${id%%'"'*}
		if whole "$@"; then
			found='{"message_type":"summary","snapshot_id":"'$id'"'
			for field in total_bytes_processed data_added_packed; do
				case $before in
				*"\"$field\":"*)
					number=${before##*"\"$field\":"}
					found=$found,\"$field\":${number%%[!0-9]*}
					;;
				esac
			done
			found="$found}"
			break
		fi
		if [ -n "$stopped" ]; then return; fi
		listed=$before
	done
	rm -f "$pipe.out"
	code=0
}

# whole reports whether restic would add nothing to snapshot $id. One that was
# read from a program is whole, or restic would not have stored it.
whole() {
	for argument in "$@"; do
		if [ "$argument" = --stdin-from-command ]; then return 0; fi
	done
	command=$1
	shift
	call find "$limit" "$command" --dry-run --parent "$id" "$@"
	if [ "$code" -ne 0 ]; then return 1; fi
	would=$(cat "$pipe.out")
	for none in files_new files_changed dirs_new; do
		case $would in
		*'"'$none'":0,'*) ;;
		*) return 1 ;;
		esac
	done
}

# work runs restic in this mode. If another holds a lock it is waited for, but
# not if that one is called like one of our own movers ($BACKSNAP_MARK): it may
# have died, which the cluster knows, so whoever started us is asked first.
work() {
	call "$mode" "$limit" "$@"
	if [ "$code" -ne 11 ] || [ "$retry" = 0s ] || [ -n "$stopped" ]; then return; fi
	if [ -n "${BACKSNAP_MARK-}" ]; then
		case $said in
		*' on '*"$BACKSNAP_MARK"*) return ;;
		esac
	fi
	command=$1 hasty=''
	shift
	call "$mode" "$limit" "$command" --retry-lock "$retry" "$@"
}

# note leaves a note in the repository that the copy just made is not whole: no
# snapshot tells how restic ended, and who has the repository alone would take
# it for a good one. Its tags stay as they are: to change them takes a lock that
# nobody else may share, and a repository that lets something be replaced.
note() {
	case $said in
	*'"snapshot_id":"'*) ;;
	*) return ;;
	esac
	why=$said
	id=${said#*'"snapshot_id":"'} id=${id%%'"'*}
	errors=${said#errors=} errors=${errors%%"$newline"*}
	printf '%s\n' "$said" >"$pipe.note"
	call note "$limit" backup --retry-lock "$retry" --json --tag backsnap-partial --tag "of=$id" --tag "errors=$errors" \
		--stdin-filename /partial --stdin-from-command -- cat "$pipe.note"
	if [ "$code" -ne 0 ]; then why="$why${newline}no note of that is left in the repository"; fi
	code=3 step=$mode said=$why
	rm -f "$pipe.note"
}

# locks makes all locks the answer, one JSON document after the other. One
# that is gone when it is read is none.
locks() {
	call locks "$patience" list locks --no-lock
	if [ "$code" -ne 0 ]; then return; fi
	ids=$(cat "$pipe.answer")
	: >"$pipe.locks"
	for id in $ids; do
		call locks "$patience" cat lock "$id" --no-lock
		if [ "$code" -eq 0 ]; then
			printf '{"id":"%s","lock":%s}\n' "$id" "$(cat "$pipe.answer")" >>"$pipe.locks"
			continue
		fi
		failed=$code why=$said
		call locks "$patience" list locks --no-lock
		case $code:$(cat "$pipe.answer") in
		0:*"$id"*)
			code=$failed said=$why
			return
			;;
		0:*) ;;
		*) return ;;
		esac
	done
	mv "$pipe.locks" "$pipe.answer"
}

# pass lets process ids run past $1: restic takes a lock of its own host for
# alive while there is a process of that id. In a new container there are few.
pass() {
	if [ "$1" -gt 30000 ]; then return; fi
	while :; do
		: &
		wait "$!"
		if [ "$!" -gt "$1" ]; then return; fi
	done
}

# answer puts what restic has printed into the log, packed, between two lines
# that nobody else knows, with all that shows whether it has come through whole.
answer() {
	if ! gzip -c <"$pipe.answer" >"$pipe.gz" || ! base64 <"$pipe.gz" >"$pipe.text" ||
		! sum=$(sha256sum <"$pipe.answer") || ! bytes=$(wc -c <"$pipe.answer") || ! count=$(wc -l <"$pipe.text"); then
		code=1 said='the image lacks what packs an answer: gzip, base64, sha256sum, wc'
		return
	fi
	printf 'backsnap answer %s begins\n' "$BACKSNAP_NONCE"
	cat "$pipe.text"
	printf 'backsnap answer %s ends lines=%d bytes=%d sha256=%s\n' "$BACKSNAP_NONCE" "$count" "$bytes" "${sum%% *}"
}

# seek adds to the report which of the paths in $BACKSNAP_PATHS are not there
# now: restic is content if a pattern matches nothing. One is a line, and has each byte
# as \0 and its octal digits.
seek() {
	paths=${BACKSNAP_PATHS-} number=0
	while [ -n "$paths" ]; do
		number=$((number + 1)) path=${paths%%"$newline"*}
		paths=${paths#"$path"} paths=${paths#"$newline"}
		path=$(printf '%b.' "$path")
		path=$BACKSNAP_DATA/${path%.}
		if ! [ -e "$path" ] && ! [ -L "$path" ]; then
			said="$said${newline}missing path=$number"
		fi
	done
}

# count adds to the report how many regular files there are now and how many
# bytes, which is to be what the copy holds. A hard link counts each time, as
# it did when the copy was made.
count() {
	if ! command find "$BACKSNAP_DATA" -type f -exec stat -c %s {} + >"$pipe.sizes" ||
		! counted=$(awk '{ n++; bytes += $1 } END { printf "counted files=%.0f bytes=%.0f", n, bytes }' "$pipe.sizes"); then
		code=1 counted='the image lacks what counts files: find, stat, awk'
	fi
	said=$said$newline$counted
	rm -f "$pipe.sizes"
}

# pour writes the image that comes on standard input onto the device, and
# leaves how many bytes it has and their SHA-256 in $pipe.poured; where it could
# not, why stands in $pipe.why. A chunk of zeros is not written where the device
# has zeros already: a thin volume stays thin. What the device has is read, not
# assumed; zeros are known by the sum that busybox is quickest at.
pour() {
	index=0 size=0 next=0
	rm -f "$pipe.poured" "$pipe.sum"
	began=$(date +%s)
	mkfifo "$pipe.sum" || return
	zeros=$(dd if=/dev/zero bs="$chunk" count=1 2>"$pipe.why" | md5sum)
	sha256sum <"$pipe.sum" >"$pipe.digest" &
	summing=$!
	exec 5>"$pipe.sum"
	while dd bs="$chunk" count=1 iflag=fullblock of="$pipe.chunk" 2>"$pipe.why"; do
		got=$(stat -c %s "$pipe.chunk") || return
		if [ "$got" -eq 0 ]; then
			exec 5>&-
			wait "$summing" || return
			dd if=/dev/null of="$BACKSNAP_DATA" conv=notrunc,fsync 2>"$pipe.why" || return
			printf '%d %s\n' "$size" "$(cut -d ' ' -f 1 "$pipe.digest")" >"$pipe.poured"
			return
		fi
		cat "$pipe.chunk" >&5 || return
		if [ "$(md5sum <"$pipe.chunk")" != "$zeros" ] || [ "$(device "$index" 1 2>/dev/null | md5sum)" != "$zeros" ]; then
			dd if="$pipe.chunk" of="$BACKSNAP_DATA" bs="$chunk" seek="$index" conv=notrunc 2>"$pipe.why" || return
		fi
		# A file that is cut to be written again is forced onto the disk.
		rm -f "$pipe.chunk"
		index=$((index + 1)) size=$((size + got)) now=$(date +%s)
		if [ "$now" -ge "$next" ]; then
			next=$((now + 2))
			printf '{"message_type":"status","seconds_elapsed":%d,"total_bytes":%d,"bytes_restored":%d}\n' "$((now - began))" "$BACKSNAP_SIZE" "$size"
		fi
	done
}

# device reads $2 chunks of the device, from the $1th on.
device() { dd if="$BACKSNAP_DATA" bs="$chunk" skip="$1" count="$2" iflag=fullblock; }

# prove reads the device back, as much of it as was written, and adds to the
# report how much that was, if it is what restic has sent.
prove() {
	rm -f "$pipe.image" "$pipe.sum" "$pipe.digest" "$pipe.chunk"
	if [ "$code" -ne 0 ] && [ -e "$pipe.poured" ]; then return; fi
	if [ ! -e "$pipe.poured" ]; then
		# restic ends too when nobody takes what it sends: that is not why.
		if [ "$code" -eq 0 ] || [ "$code" -eq 1 ] || [ "$code" -eq 141 ]; then
			code=1 said=$(grep -v -e ' records ' -e copied "$pipe.why" | tail -n 1)
			said="write the device: ${said:-the image lacks what it takes: cut, date, dd, head, md5sum, sha256sum, stat}"
		fi
		return
	fi
	read -r size digest <"$pipe.poured"
	whole=$((size / chunk)) rest=$((size % chunk))
	back=$({
		if [ "$whole" -gt 0 ]; then device 0 "$whole"; fi
		if [ "$rest" -gt 0 ]; then device "$whole" 1 | head -c "$rest"; fi
	} 2>"$pipe.why" | sha256sum | cut -d ' ' -f 1)
	if [ -z "$digest" ] || [ "$back" != "$digest" ]; then
		code=1 said="the device holds another image than was written to it: SHA-256 $back, want $digest"
		return
	fi
	said="$said${newline}counted files=1 bytes=$size"
}

address
case $mode in
backup)
	check
	if [ "$code" -eq 0 ]; then find "$@"; fi
	if [ "$code" -eq 0 ] && [ -n "$found" ]; then
		said="errors=0$newline$found"
	elif [ "$code" -eq 0 ]; then
		work "$@"
		if [ "$code" -eq 3 ] && [ -z "$stopped" ]; then note; fi
	fi
	;;
examine | forget | prune)
	check
	if [ "$code" -eq 0 ]; then work "$@"; fi
	;;
list | stats)
	check
	if [ "$code" -eq 0 ]; then work "$@"; fi
	if [ "$code" -eq 0 ]; then answer; fi
	;;
locks)
	locks
	if [ "$code" -eq 0 ]; then answer; fi
	;;
unlock)
	check
	if [ "$code" -eq 0 ]; then
		pass "${BACKSNAP_PID:-0}"
		work "$@"
	fi
	if [ "$code" -eq 0 ]; then locks; fi
	if [ "$code" -eq 0 ]; then
		step=unlock
		answer
	fi
	;;
restore)
	hasty=yes
	work "$@"
	hasty=''
	if [ "$code" -ne 0 ] && [ -n "$mute" ] && [ -z "$stopped" ]; then
		check
		if [ "$code" -eq 0 ]; then work "$@"; fi
	fi
	if [ "$code" -eq 0 ]; then seek; fi
	if [ "$code" -eq 0 ]; then count; fi
	;;
image)
	check
	if [ "$code" -eq 0 ]; then
		work "$@"
		prove
	fi
	;;
init)
	# First init: it makes a bucket that is not there, for which check would
	# wait in vain. It refuses where a repository is, and check knows why.
	call init "$limit" "$@"
	if [ "$code" -ne 0 ] && [ -z "$stopped" ]; then
		failed=$code why=$said
		check
		case $code in
		0 | 12) ;;
		*) step=init code=$failed said=$why ;;
		esac
	fi
	;;
*) exit 2 ;;
esac
rm -f "$pipe.answer" "$pipe.locks" "$pipe.gz" "$pipe.text" "$pipe.poured" "$pipe.why"
printf 'backsnap step=%s exit=%s\n%s\n' "$step" "$code" "$said" >/dev/termination-log
exit "$code"
