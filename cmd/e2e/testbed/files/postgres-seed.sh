#!/bin/sh
# Makes the data directory that the image holds, inside the Debian tree and as the user postgres.
# No server is started: the extension is made in single-user mode.
set -eu
export PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin LC_ALL=C
initdb -D /seed/postgres -U postgres -A trust --locale=C -E UTF8 --wal-segsize=4 --no-sync >/dev/null
cat /seed/postgresql.conf >>/seed/postgres/postgresql.conf
printf 'local all all trust\nhost all all all trust\nhost replication all all trust\n' >/seed/postgres/pg_hba.conf
echo 'CREATE EXTENSION pg_stat_statements;' | postgres --single -c dynamic_shared_memory_type=mmap -D /seed/postgres postgres >/dev/null
