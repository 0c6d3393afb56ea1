-- The account of active probes, on the primary. It needs no more for its role and
-- its delay in seconds; pg_read_all_stats tells the delay in bytes as the WAL
-- receiver was told it.
CREATE ROLE mooring LOGIN PASSWORD 'choose one' CONNECTION LIMIT 2;
GRANT pg_read_all_stats TO mooring;
-- pg_hba.conf must let it in by password: "local all mooring scram-sha-256" for
-- the unix socket that the agent takes, "host all mooring 127.0.0.1/32
-- scram-sha-256" where there is none, before any line with peer or ident.

-- Only for write: Replicated. In the database that the policy names.
CREATE SCHEMA mooring;
CREATE TABLE mooring.heartbeat (id text PRIMARY KEY, ts timestamptz NOT NULL, seq bigint NOT NULL);
GRANT USAGE ON SCHEMA mooring TO mooring;
GRANT SELECT, INSERT, UPDATE ON mooring.heartbeat TO mooring;
