#!/bin/sh
# Makes the data directory that the image holds, inside the Debian tree and as the user mysql.
# No server is started: everything is made in bootstrap mode.
set -eu
export PATH=/usr/sbin:/usr/bin:/bin LC_ALL=C
set -- --no-defaults --datadir=/seed/mariadb --innodb-log-file-size=16M --innodb-buffer-pool-size=32M
mariadb-install-db "$@" --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >/seed/mariadb.log 2>&1 ||
	{ cat /seed/mariadb.log >&2; exit 1; }
mariadbd "$@" --bootstrap 2>/seed/mariadb.log <<SQL || { cat /seed/mariadb.log >&2; exit 1; }
USE mysql;
FLUSH PRIVILEGES;
CREATE USER root@'%';
GRANT ALL PRIVILEGES ON *.* TO root@'%' WITH GRANT OPTION;
CREATE DATABASE shop;
SQL
