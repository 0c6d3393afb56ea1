// Package sqltext turns the text of a statement into a 64-bit key, equal for
// statements that differ in literals only, and into a text for people that
// holds no literal.
package sqltext
