// Package kerneltest starts real database servers for tests that run against a
// real kernel, as root, in the test virtual machine or on a developer's host.
//
// It is imported by test files only. Nothing in it skips: a program that is
// missing fails the test. Whatever it starts or makes is gone when the test
// ends. Its functions are not safe for concurrent use within one test.
//
// To add an engine, write a function that makes its data folder, hands the
// command line to start and waits until the server answers.
package kerneltest
