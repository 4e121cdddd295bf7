# Looks whether what lies in a volume can be read, and says in one line what it
# has found.
#
#   sh -c THIS backsnap MODE
#
# MODE is read, for which it has to be root: the names of all files, and those
# files of which $BACKSNAP_SUMS has the SHA-256. These are one a line: 64 digits,
# a space, and the path from the volume's root, with each byte as \0 and its
# octal digits. Of a device it is the beginning. MODE mount: only whether the
# volume is there, which any user may see.
#
# Kubernetes reads two dollars as one, and a name in parentheses after a dollar
# as a variable of the pod's: neither stands here.
set -u
mode=$1 data=$BACKSNAP_DATA said=/dev/termination-log heard=${TMPDIR:-/tmp}/look.heard failed=${TMPDIR:-/tmp}/look.failed

# no says why the volume will not do. After 3 the Job does not try again.
no() {
	printf '%.1000s\n' "$1" >"$said"
	exit 3
}

if [ -b "$data" ]; then
	if [ "$mode" = read ]; then
		dd if="$data" of=/dev/null bs=1048576 count=1 2>"$heard" || no "the device cannot be read: $(cat "$heard")"
	fi
	echo "looked files=0 sums=0" >"$said"
	exit 0
fi
stat "$data" >/dev/null 2>"$heard" || no "the volume cannot be read: $(cat "$heard")"
if [ "$mode" != read ]; then
	echo "looked files=0 sums=0" >"$said"
	exit 0
fi
files=$({ find "$data" -xdev -type f -print0 || : >"$failed"; } 2>"$heard" | tr -cd '\000' | wc -c)
if [ -e "$failed" ]; then no "the names of its files cannot be read: $(head -n 3 "$heard")"; fi
sums=0
while IFS= read -r line; do
	if [ -z "$line" ]; then continue; fi
	path=$(printf '%b.' "${line#* }")
	path=${path%.}
	sum=$({ sha256sum <"$data/$path"; } 2>"$heard") || no "$path cannot be read: $(cat "$heard")"
	if [ "${sum%% *}" != "${line%% *}" ]; then no "the SHA-256 of $path is ${sum%% *}, and was ${line%% *} when it was written"; fi
	sums=$((sums + 1))
done <<EOF
${BACKSNAP_SUMS-}
EOF
echo "looked files=$((files)) sums=$sums" >"$said"
