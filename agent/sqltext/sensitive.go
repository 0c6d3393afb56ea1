package sqltext

// watch follows the words of a text for Sensitive and Privileges.
type watch struct {
	first string
	n     int
	found bool
	// named says that the word was met that tells what is made, changed or
	// removed; rights, that privileges are changed.
	named, rights bool
}

// plainStarts begin statements that read or write rows: a column of theirs may
// be called password.
var plainStarts = set("select insert update delete replace merge with table values explain analyze begin commit rollback start use show prepare execute declare fetch close")

// accountWords name what has or is a password, behind CREATE, ALTER and others.
var accountWords = set(`user role login group password identified encrypted passwd credential server subscription mapping secret
	master_password source_password connection wallet profile`)

// word takes the next word of the text.
func (w *watch) word(b []byte) {
	var buf [32]byte
	if len(b) > len(buf) {
		b = b[:len(buf)]
	}
	s := string(lower(buf[:0], b))
	if w.n++; w.n == 1 {
		w.first = s
	}
	w.right(s)
	switch {
	case w.n > 1 && !plainStarts[w.first] && accountWords[s]:
		w.found = true
	case s == "identified":
		w.found = true
	case w.n == 2 && w.first == "start" && (s == "slave" || s == "replica"):
		w.found = true
	}
}

// follow reads the words of a text of MySQL or PostgreSQL, and says whether that
// ended before the text did.
func follow(d Dialect, text []byte) (w watch, gaveUp bool) {
	var l lexer
	l.begin(d, text)
	l.slow, l.special, l.watch = true, true, &w
	l.run()
	return w, l.gaveUp
}

// Sensitive says that not even the normalised text of a statement may be kept:
// it makes or changes users, passwords or connections that hold one, or logs
// in. It would rather say so once too often.
func Sensitive(d Dialect, text []byte) bool {
	switch d & engines {
	case MySQL, PostgreSQL:
		w, gaveUp := follow(d, text)
		return w.found || gaveUp && w.n > 0 && !plainStarts[w.first]
	case Redis:
		cmd, sub, _ := redisCommand(text)
		return redisSecret(cmd, sub)
	case MongoDB:
		return mongoSecret(text)
	}
	return true
}
