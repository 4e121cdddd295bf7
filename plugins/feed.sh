# What the scripts share that load a dump.

# bs_wanted: reads what is to be loaded: how long it is, its sum, and the file it
# lies in, in BS_BYTES, BS_SUM and BS_PATH; its first and its last bytes in hex,
# in BS_HEAD and BS_TAIL. Without a file all but the last of them come over
# standard input, later.
bs_wanted() {
	IFS= read -r BS_BYTES && IFS= read -r BS_SUM && IFS= read -r BS_PATH && IFS= read -r BS_HEAD && IFS= read -r BS_TAIL || exit 1
	[ -n "$BS_PATH" ] || BS_FEED=yes
}

# bs_take BYTES: as many of standard input, without a NUL among them, in
# BS_VALUE. False if there are fewer.
bs_take() {
	BS_VALUE=''
	while [ "${#BS_VALUE}" -lt "$1" ]; do
		bs_x=$(dd bs="$(($1 - ${#BS_VALUE}))" count=1 2>/dev/null && printf x)
		[ "${#bs_x}" -gt 1 ] || return 1
		BS_VALUE=$BS_VALUE${bs_x%x}
	done
}

# bs_lies: fails unless the file, if there is one, is the dump.
bs_lies() {
	[ -n "$BS_PATH" ] || return 0
	[ -f "$BS_PATH" ] || bs_die no-dump "$BS_PATH is not there any more"
	bs_x=$(bs_sha256 "$BS_PATH") || bs_die permission "$BS_PATH cannot be read by uid $BS_ME"
	[ "${bs_x%% *}" = "$BS_SUM" ] || bs_die verify "$BS_PATH is not the dump that the record tells of: its SHA-256 is ${bs_x%% *}"
	BS_HEAD=$(head -c 8 "$BS_PATH" | od -An -v -tx1 | tr -d ' \n')
	BS_TAIL=$(tail -c 64 "$BS_PATH" | od -An -v -tx1 | tr -d ' \n')
}

# bs_raw HEX: prints the bytes, whatever they are.
bs_raw() {
	bs_hex=$1 bs_text=''
	while [ -n "$bs_hex" ]; do
		bs_rest=${bs_hex#??}
		bs_x=$((0x${bs_hex%"$bs_rest"}))
		bs_hex=$bs_rest
		bs_text="$bs_text\\0$((bs_x / 64))$((bs_x / 8 % 8))$((bs_x % 8))"
	done
	printf %b "$bs_text"
}

# bs_feed [MORE]: prints the dump, and MORE. Its last bytes come only once its sum
# is known and right: whoever reads it finds it cut off otherwise, and keeps
# nothing. The sum goes to 6.
bs_feed() {
	exec 9>&1
	bs_n=$((BS_BYTES - ${#BS_TAIL} / 2))
	bs_x=$(
		exec 5>&1
		{
			bs_body | tee /proc/self/fd/9 || echo bs-broken >&5
			bs_raw "$BS_TAIL"
		} | bs_sums
	)
	case $bs_x in *bs-broken*) return 0 ;; esac
	printf 'bs-sum=%s\n' "$bs_x" >&6
	[ "${bs_x%% *}" = "$BS_SUM" ] || return 0
	bs_raw "$BS_TAIL"
	printf %s "${1-}"
}

# bs_body: the dump without its last bytes. Once they are here the keeper watches
# standard input.
bs_body() {
	if [ -n "$BS_PATH" ]; then
		head -c "$bs_n" "$BS_PATH"
	else
		head -c "$bs_n" <&7
		kill -s HUP "$BS_KEEPER" 2>/dev/null
	fi
}

# bs_said TEXT: parts what a load printed: how its halves ended, in the variables
# bs_unpacked and bs_loaded, whether what it looked for was there, in bs_there,
# the sum of what has arrived, in bs_arrived, and what the programs said, in
# BS_SAID.
bs_said() {
	bs_unpacked=0 bs_loaded=missing bs_arrived=missing bs_there='' BS_SAID=''
	set -f
	IFS=$BS_NL
	for bs_x in $1; do
		case $bs_x in
		bs-unpacked=*) bs_unpacked=${bs_x#bs-unpacked=} ;;
		bs-loaded=*) bs_loaded=${bs_x#bs-loaded=} ;;
		bs-there) bs_there=yes ;;
		bs-sum=*)
			bs_arrived=${bs_x#bs-sum=}
			bs_arrived=${bs_arrived%% *}
			;;
		*) BS_SAID=$BS_SAID${BS_SAID:+$BS_NL}$bs_x ;;
		esac
	done
	set +f
	unset IFS
	bs_quote "$BS_SAID"
	bs_gist "$BS_SAID"
}

# bs_judge CUT FAILED: the kinds of the errors. It fails unless all of the dump
# has come and was taken, and what was sought in it was there.
bs_judge() {
	case $bs_arrived in
	"$BS_SUM") ;;
	missing) [ "$bs_loaded" != 0 ] || bs_die internal "nothing says what has arrived" ;;
	*) bs_die "$1" "what has come is not the dump that the record tells of: it was cut off or changed on its way" ;;
	esac
	[ "$bs_loaded" = 0 ] || bs_die "$2" "${BS_GIST:-the program that loads ended with status $bs_loaded}"
	[ "$bs_unpacked" = 0 ] || bs_die "$2" "${BS_GIST:-the dump cannot be unpacked}"
	[ -z "${BS_SOUGHT-}" ] || [ -n "$bs_there" ] || bs_die no-dump "the dump holds no database of that name"
}
