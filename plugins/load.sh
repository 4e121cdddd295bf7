# The first thing the bootstrap runs: it reads the script proper, whose length in
# bytes stands on the next line, in few large blocks instead of single bytes, and
# never more than is left of it.
IFS= read -r bs_n || exit 1
bs_s=''
while [ "${#bs_s}" -lt "$bs_n" ]; do
	bs_x=$(dd bs="$((bs_n - ${#bs_s}))" count=1 2>/dev/null && printf x)
	[ "${#bs_x}" -gt 1 ] || exit 1
	bs_s=$bs_s${bs_x%x}
done
eval "$bs_s"
