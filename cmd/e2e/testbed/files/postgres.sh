#!/bin/sh
# Starts PostgreSQL as the pod's first process. On an empty volume a primary begins with the data
# directory of the image, and a replica (ROLE=replica) with a copy of PRIMARY_HOST.
set -eu
export PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin
data=${PGDATA:-/var/lib/postgresql/data/main}
if [ ! -s "$data/PG_VERSION" ]; then
	rm -rf "$data" "$data.new"
	if [ "${ROLE:-primary}" = replica ]; then
		until pg_isready -q -h "$PRIMARY_HOST" -U postgres; do sleep 1; done
		pg_basebackup -h "$PRIMARY_HOST" -U postgres -D "$data.new" -X stream -c fast --no-sync
		: >"$data.new/standby.signal"
	else
		umask 077 && cp -r /seed/postgres "$data.new"
	fi
	chmod 700 "$data.new"
	mv "$data.new" "$data"
fi
if [ "${ROLE:-primary}" = replica ]; then
	set -- -c "primary_conninfo=host=$PRIMARY_HOST user=postgres application_name=$(hostname)" "$@"
fi
exec postgres -D "$data" "$@"
