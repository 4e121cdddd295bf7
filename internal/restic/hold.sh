# Keeps a pod running in which files of a volume are handed out by serve.sh.
#
#   sh -c THIS backsnap IDLE
#
# It ends, well, IDLE seconds after the last serve.sh has, or on TERM: so it
# goes also when whoever started it has died.
#
# Kubernetes reads two dollars as one, and a name in parentheses after a dollar
# as a variable of the pod's: neither stands here.
set -u
idle=0
trap 'exit 0' TERM INT
while [ "$idle" -lt "$1" ]; do
	sleep 5 &
	wait "$!"
	idle=$((idle + 5))
	# They have a folder each, named after their process.
	for client in "${TMPDIR:-/tmp}"/serve.*; do
		if kill -0 "${client##*.}" 2>/dev/null; then idle=0; fi
	done
done
