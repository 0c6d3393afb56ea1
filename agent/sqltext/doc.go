// Package sqltext turns the text of a statement into a 64-bit key, equal for
// statements that differ in literals only, and into a text for people that
// holds no literal.
//
// # Design
//
// November 2026. One lexer emits one token sequence; the sequence goes into a
// hash (Key) and, on demand, into a text (AppendNormalized). So key and text
// cannot disagree. The chunks that are hashed spell the sequence in one way
// only, and nothing of a literal is ever among them.
//
// What is folded: letter case outside quotes; space and comments; a trailing
// semicolon; numbers with their sign, strings of all kinds with their prefixes,
// NULL, TRUE and FALSE (except behind IS and NOT), ?, $1, :name, @name and
// adjacent literals, each to one ?. A run of literals and commas is one ?, so
// the length of a list does not count, and neither does that of a LIMIT. Of
// VALUES and of IN ((..),(..)) only the first row is emitted; the others are
// stepped over. At the end of the text open lists are closed: a text cut inside
// a list has the key of the whole. Quoted identifiers keep their case and quotes.
//
// No literal may survive, although the same bytes are read in different ways by
// different sessions: backslashes (NO_BACKSLASH_ESCAPES,
// standard_conforming_strings), ".." (ANSI_QUOTES), second bytes below 0x80 in
// GBK, GB18030, Big5, SJIS, JOHAB (0x5c is a backslash, 0x60 a backtick; no
// quote ' or " is ever a second byte), comments that only some servers execute,
// q'[..]' and -- of the Oracle modes. The caller may say what it knows (flags of
// Dialect). Where it does not, the rule is: up to the first byte at which the
// readings part, they agree and all is emitted; from there on the lexer is
// blind and emits only placeholders, commas and parentheses, and at the first
// other token ends the sequence with a mark. So VALUES ('it\'s', 5) keeps its
// digest in every session, UPDATE t SET a = 'it\'s' WHERE .. is cut behind the
// literal unless Backslash and SafeCharset are known. Any byte from 0x80 before
// a backslash or backtick counts as a possible first byte.
//
// Hints and code in comments (/*+ */, /*! */, /*M! */, /*T! */) are lexed as
// code; a literal or comment in them that holds the end of the comment blinds.
//
// Redis: the name of the first command of a batch and, for CONFIG and its like,
// what it does, both from fixed lists (a renamed command is a secret); at most
// two placeholders for arguments, none where they may be passwords. MongoDB:
// name, collection, and names of fields in filters and the like; of updates and
// of inserted documents nothing but operators.
//
// What it does not do: two column names that differ make two digests, also if
// digits in them are data; words of a comment that is executed are kept; an
// identifier in quotes is kept even where its author meant a string (PostgreSQL
// WHERE a = "x" is an error there, but its text is seen); PostgreSQL relatives
// in a MySQL mode must be given QuotedStrings, and # is an operator there.
// Keys are not those of MySQL's DIGEST or PostgreSQL's queryid.
package sqltext
