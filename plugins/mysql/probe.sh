# Looks at the MySQL or MariaDB server of this container and changes nothing.

bs_start 60
my_find
my_tools
my_login
my_role
bs_place "$MY_DATA"
my_estimate
bs_room "$MY_KIB" 3

bs_out engine "$MY_ENGINE"
bs_out version "$MY_VERSION"
bs_out role "$MY_ROLE"
bs_out datadir "$MY_DATA"
bs_out mount "$BS_MOUNT"
bs_out dir "$BS_DIR"
bs_out uid "$BS_UID"
bs_out gid "$BS_GID"
bs_out tool "$MY_DUMP"
bs_out toolversion "$MY_TOOL"
bs_out databases "$MY_COUNT"
bs_out estimate $((BS_NEED * 1024))
bs_out size $((BS_SIZE * 1024))
bs_out free $((BS_FREE * 1024))
bs_out reserve $((BS_RESERVE * 1024))
bs_out inodes "$BS_INODES"
[ -z "$MY_LIMITED" ] || bs_out warning "root cannot log in: $MY_LIMITED dumps what it can see, and no users"
[ "$MY_OLD" = 0 ] || bs_out warning "$MY_OLD tables are not transactional: in the dump they are not of one moment"
