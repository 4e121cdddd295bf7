# Forces everything that the PostgreSQL server of this container has
# acknowledged onto the disk.

bs_start 120
pg_find
bs_place "$PG_DATA"
pg_login
pg_barrier
