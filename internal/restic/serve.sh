# Hands out files of the volume at $BACKSNAP_DATA, read-only, on standard output.
# It comes over standard input, and after it, one a line: a nonce; MODE; a size
# in bytes; how many paths; these, relative to the volume's root, none for all of it,
# with each byte as \0 and its octal digits. Standard input stays open until
# all has been taken: its end says that nobody waits any more.
#
# MODE is survey, which says what there is, and which files are larger than that
# size; tar, archives, one behind the other, of the paths, without files that are
# larger, unless it is 0; or raw, the one file as it is. What it says itself
# are lines of standard error, the last one how it ended: without that line the
# stream was cut.
set -u
LC_ALL=C
export LC_ALL
umask 077
IFS= read -r nonce && IFS= read -r mode && IFS= read -r limit || exit 2

tell() { printf 'backsnap %s %s\n' "$nonce" "$1" >&2; }

set --
IFS= read -r count || exit 2
while [ "$#" -lt "$count" ]; do
	IFS= read -r word || exit 2
	word=$(printf '%b.' "$word")
	set -- "$@" "./${word%.}"
done
if [ "$count" -eq 0 ]; then set .; fi

here=${TMPDIR:-/tmp}/serve.$$
mkdir "$here" || exit 2
exec 7<&0 </dev/null
(
	while IFS= read -r word; do :; done
	kill -TERM "$$"
) <&7 >/dev/null 2>&1 &
watcher=$!
exec 7<&-
children=''
# shellcheck disable=SC2086 # process ids
trap 'kill $children "$watcher" 2>/dev/null; rm -rf "$here"; exit 143' TERM
cd "$BACKSNAP_DATA" || exit 2

# finish says how it ended, with what else is known.
finish() {
	kill "$watcher" 2>/dev/null
	wait "$watcher" 2>/dev/null
	rm -rf "$here"
	tell "end exit=$1 $2"
	exit "$1"
}

# inside: no folder on the way to $1 is a symbolic link, which might lead out.
inside() {
	way=$1
	while :; do
		case $way in
		./*/*) way=${way%/*} ;;
		*) return 0 ;;
		esac
		if [ -L "$way" ]; then return 1; fi
	done
}

# survey says what there is below the paths, and which of them are not there.
survey() {
	n=0 wrong=0
	for path in "$@"; do
		n=$((n + 1))
		if ! inside "$path"; then
			tell "link $n"
			wrong=4
		elif ! [ -e "$path" ] && ! [ -L "$path" ]; then
			tell "missing $n"
			wrong=4
		fi
	done
	if [ "$wrong" -ne 0 ]; then finish "$wrong" ''; fi
	# The kind of a file is all of its mode but the last three digits.
	if ! find "$@" -exec stat -c '%f %s' {} + >"$here/all" ||
		! counts=$(awk '{ kind = substr($1, 1, length($1) - 3); n[kind]++; if (kind == "8") bytes += $2 }
			END { printf "files=%.0f bytes=%.0f folders=%.0f links=%.0f pipes=%.0f sockets=%.0f devices=%.0f",
				n["8"], bytes, n["4"], n["a"], n["1"], n["c"], n["2"] + n["6"] }' "$here/all") ||
		! find "$@" -type f -size +"$limit"c -print0 >"$here/large" ||
		! large=$(od -An -v -tx1 <"$here/large"); then
		finish 1 ''
	fi
	tell "large $(printf '%s' "$large" | tr -d ' \n')"
	finish 0 "$counts"
}

# send runs a command; what it prints is counted and summed on its way out.
send() {
	mkfifo "$here/out" "$here/sum" "$here/size" || finish 1 ''
	sha256sum <"$here/sum" >"$here/sum.is" &
	children=$!
	wc -c <"$here/size" >"$here/size.is" &
	children="$children $!"
	tee "$here/sum" "$here/size" <"$here/out" &
	children="$children $!"
	"$@" >"$here/out" &
	children="$! $children"
	code=0
	for child in $children; do
		wait "$child" || code=1
	done
	children=''
	read -r sum word <"$here/sum.is" && read -r size <"$here/size.is" || code=1
	finish "$code" "bytes=${size:-0} sha256=${sum:-none}"
}

case $mode in
survey) survey "$@" ;;
raw) send cat "$1" ;;
tar) if [ "$limit" -eq 0 ]; then send tar -c -f - "$@"; fi ;;
*) finish 2 '' ;;
esac
# busybox tar knows no other way to leave files out.
send find "$@" ! '(' -type f -size +"$limit"c ')' -exec tar -c -f - --no-recursion {} +
