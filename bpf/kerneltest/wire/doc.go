// Package wire builds messages of the MySQL, PostgreSQL, Redis and MongoDB
// protocols as published, and plays conversations of them between a fake server
// and a fake client over a real socket pair, so that what the statement timer
// makes of a protocol can be tested without the server that speaks it.
//
// It is for tests only. A Scenario is a list of steps: bytes that one side sends
// and the other receives, by the system calls and in the pieces that the real
// server uses. What must be counted of it stands beside it in Want. It does not
// check that messages make sense: some scenarios are about those that do not.
//
// To add a scenario, write a function that returns it and add it to the list of
// its protocol.
package wire
