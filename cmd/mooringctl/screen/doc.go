// Package screen draws what `mooringctl top` and `mooringctl explain` show:
// rates of two looks at an agent's counters, and a page of findings.
//
// What databases and their clients wrote (texts of statements, names, error
// codes) goes through Clean before it reaches a terminal: nothing in it can
// move the cursor, and a wide character takes the two cells it needs.
package screen
