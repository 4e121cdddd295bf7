# Removes the dump of one run from its volume: the list first, so that what a
# broken end leaves is no dump, and the next run's to remove.

IFS= read -r BS_RUN || exit 1
IFS= read -r BS_DIR || exit 1

bs_start 60
bs_listed
case $BS_LISTED in
*"\"run\":\"$BS_RUN\""*) rm -f "$BS_DIR/.backsnap-dump.json" || bs_die permission "$BS_DIR/.backsnap-dump.json cannot be removed" ;;
esac
bs_n=0
for bs_f in "$BS_DIR/.backsnap-$BS_RUN"-*.dump; do
	[ -f "$bs_f" ] || continue
	rm -f "$bs_f" || bs_die permission "$bs_f cannot be removed"
	bs_n=$((bs_n + 1))
done
bs_out removed "$bs_n"
