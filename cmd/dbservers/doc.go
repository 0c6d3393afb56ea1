// Package dbservers holds the database servers that are built for the tests: a
// module of its own, so that nothing of them reaches the product's.
package dbservers
