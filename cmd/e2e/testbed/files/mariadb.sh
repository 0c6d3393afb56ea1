#!/bin/sh
# Starts MariaDB as the pod's first process, on an empty volume with the data directory of the image.
set -eu
data=/var/lib/mysql/main
if [ ! -e "$data/ibdata1" ]; then
	rm -rf "$data" "$data.new"
	cp -r /seed/mariadb "$data.new"
	mv "$data.new" "$data"
fi
exec mariadbd --no-defaults --datadir="$data" --bind-address=0.0.0.0 --socket=/tmp/mysqld.sock --pid-file=/tmp/mysqld.pid \
	--skip-name-resolve --innodb-buffer-pool-size=48M --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0 \
	--performance-schema=off --key-buffer-size=1M --aria-pagecache-buffer-size=4M --innodb-buffer-pool-dump-at-shutdown=0 "$@"
