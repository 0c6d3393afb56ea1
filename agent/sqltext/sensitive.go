package sqltext

// watch follows the words of a text for Sensitive.
type watch struct {
	n     int
	found bool
}

func (w *watch) word(b []byte) {}

// Sensitive says that not even the normalised text may be kept.
func Sensitive(d Dialect, text []byte) bool { return false }
