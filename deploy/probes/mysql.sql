-- The account of active probes, on the primary. "localhost" is the unix socket that
-- the agent takes; add '127.0.0.1' where TLS is asked for or there is no socket.
-- A refused login is tried once more and no third time, so FAILED_LOGIN_ATTEMPTS of 3
-- is not reached by a wrong secret; 5 leaves room for a second one.
CREATE USER mooring@localhost IDENTIFIED BY 'choose one' WITH MAX_USER_CONNECTIONS 2;
-- MySQL, and MariaDB before 10.5:
GRANT REPLICATION CLIENT ON *.* TO mooring@localhost;
-- MariaDB from 10.5 on, instead:
-- GRANT REPLICA MONITOR ON *.* TO mooring@localhost;

-- Only for write: Replicated.
CREATE DATABASE mooring;
CREATE TABLE mooring.heartbeat (
  id varchar(255) PRIMARY KEY,
  ts timestamp(6) NOT NULL DEFAULT current_timestamp(6),
  seq bigint unsigned NOT NULL
) ENGINE=InnoDB;
GRANT SELECT, INSERT, UPDATE ON mooring.heartbeat TO mooring@localhost;
