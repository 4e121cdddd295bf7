# Forces everything that the MySQL or MariaDB server of this container has
# acknowledged onto the disk.

bs_start 120
my_find
my_tools
my_login
bs_place "$MY_DATA"
my_barrier
