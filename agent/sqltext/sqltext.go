package sqltext

// Dialect is an engine and what is known about the session that sent a text.
// A known fact only makes the result finer; without it the text is read so
// that no literal can survive whatever the fact is.
type Dialect uint8

// The engines.
const (
	MySQL      Dialect = 1 + iota // and its relatives: MariaDB, TiDB, OceanBase, GoldenDB, TDSQL
	PostgreSQL                    // and openGauss, KingbaseES, TDSQL-PG
	Redis                         // RESP bytes, or an inline command
	MongoDB                       // the BSON document of an OP_MSG section of kind 0
)

// What may be known about a session, to be or-ed to MySQL or PostgreSQL.
const (
	// Backslash: a backslash escapes in '..' (MySQL: the status bit
	// SERVER_STATUS_NO_BACKSLASH_ESCAPES is clear; PostgreSQL:
	// standard_conforming_strings is off).
	Backslash Dialect = 1 << (3 + iota)
	// NoBackslash: a backslash in '..' is a character like others.
	NoBackslash
	// SafeCharset: no character of the client's character set has a second
	// byte below 0x80: UTF-8, single bytes, EUC; not GBK, GB18030, Big5, SJIS.
	SafeCharset
	// QuotedNames: ".." is an identifier (MySQL with ANSI_QUOTES).
	QuotedNames
	// QuotedStrings: ".." is a string (MySQL without ANSI_QUOTES, PostgreSQL
	// relatives in a MySQL mode).
	QuotedStrings

	engines Dialect = 7
)

// Engine returns the engine alone, without what is known of a session.
func (d Dialect) Engine() Dialect { return d & engines }

// mark stands where a text was cut or could not be read further.
const mark = "…"

// Key is the digest of text: equal for two texts exactly when, but for the odd
// collision in 64 bits, their normalised token sequences are equal. It stays
// the same over restarts and does not allocate.
func Key(d Dialect, text []byte) uint64 {
	var l lexer
	l.begin(d, text)
	l.run()
	return finish(l.h)
}

// AppendNormalized appends the token sequence of text to dst as valid UTF-8
// without any literal, at most limit bytes of it. What does not fit is cut on
// the border of a token and marked with "…".
func AppendNormalized(dst []byte, d Dialect, text []byte, limit int) []byte {
	if limit < len(mark) {
		return dst
	}
	var l lexer
	l.begin(d, text)
	l.keep, l.slow, l.special = true, true, true
	l.dst, l.base, l.border, l.limit = dst, len(dst), len(dst), limit
	l.run()
	return l.dst
}

// run reads the whole text by the rules of its engine.
func (l *lexer) run() {
	switch l.d & engines {
	case MySQL, PostgreSQL:
		l.sql()
	case Redis:
		l.redis()
	case MongoDB:
		l.mongo()
	default:
		l.literal()
	}
}
