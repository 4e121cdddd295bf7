# Looks at the PostgreSQL server of this container and changes nothing.

bs_start 60
pg_find
bs_place "$PG_DATA"
pg_tools
pg_login
bs_room "$PG_KIB" $((PG_COUNT + 2))

bs_out engine postgres
bs_out version "$PG_VERSION"
bs_out role "$PG_ROLE"
bs_out datadir "$PG_DATA"
bs_out mount "$BS_MOUNT"
bs_out dir "$BS_DIR"
bs_out uid "$BS_UID"
bs_out gid "$BS_GID"
bs_out tool pg_dump
bs_out toolversion "$PG_TOOL"
bs_out databases "$PG_COUNT"
bs_out estimate $((BS_NEED * 1024))
bs_out size $((BS_SIZE * 1024))
bs_out free $((BS_FREE * 1024))
bs_out reserve $((BS_RESERVE * 1024))
bs_out inodes "$BS_INODES"
[ "$PG_SUPER" = on ] || bs_out warning "$PGUSER is no superuser: the dump fails if it may not read all, and has no passwords of roles"
[ "$BS_DIR" != "$PG_DATA" ] || bs_out warning "the data directory is the top of its volume: pg_basebackup copies the dump too"
pg_warn warning
