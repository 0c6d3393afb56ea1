package sqltext

// watch follows the words of a text for Sensitive.
type watch struct {
	first string
	n     int
	found bool
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
	s := lower(buf[:0], b)
	if w.n++; w.n == 1 {
		w.first = string(s)
	}
	switch {
	case w.n > 1 && !plainStarts[w.first] && accountWords[string(s)]:
		w.found = true
	case string(s) == "identified":
		w.found = true
	case w.n == 2 && w.first == "start" && (string(s) == "slave" || string(s) == "replica"):
		w.found = true
	}
}

// Sensitive says that not even the normalised text of a statement may be kept:
// it makes or changes users, passwords or connections that hold one, or logs
// in. It would rather say so once too often.
func Sensitive(d Dialect, text []byte) bool {
	switch d & engines {
	case MySQL, PostgreSQL:
		var l lexer
		var w watch
		l.begin(d, text)
		l.slow, l.special, l.watch = true, true, &w
		l.run()
		return w.found || l.gaveUp && w.n > 0 && !plainStarts[w.first]
	case Redis:
		cmd, sub, _ := redisCommand(text)
		return redisSecret(cmd, sub)
	case MongoDB:
		return mongoSecret(text)
	}
	return true
}
