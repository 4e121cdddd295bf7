# Says how many bytes a file has, -1 if it is not there; and, if that is asked
# for, what is in it.

IFS= read -r bs_want || exit 1
IFS= read -r bs_f || exit 1

bs_start 60
if [ -f "$bs_f" ]; then
	bs_n=$(wc -c <"$bs_f") || bs_die permission "$bs_f cannot be read by uid $BS_ME"
	bs_out bytes $((bs_n))
	if [ "$bs_want" = yes ]; then
		BS_LINES=$((BS_LINES + 1))
		printf '@bs:%s:text.hex=%s\n' "$BS_NONCE" "$(od -An -v -tx1 <"$bs_f" | tr -d ' \n')"
	fi
else
	bs_out bytes -1
fi
