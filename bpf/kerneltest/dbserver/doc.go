// Package dbserver starts real database servers for tests, the demonstration
// and the benchmark: PostgreSQL, MariaDB, Redis and Valkey from the trees of
// several Debian releases, and two servers built from Go modules, each in a
// data directory, cgroup and network namespace of its choice.
//
// It is not linked into anything that ships. A server runs until Stop; when
// the process that started it dies, the kernel kills the server.
package dbserver
