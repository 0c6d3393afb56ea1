package digest

import "strings"

// operationOf returns the operation of a normalised text by its first word, as
// the kernel tells it (bpf/headers/query_text.h), until a record says it. The
// words are those of SQL; anything else is "other".
func operationOf(normalized []byte) string {
	text := strings.TrimLeft(string(normalized[:min(len(normalized), 32)]), " (")
	end := strings.IndexFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
	if end >= 0 {
		text = text[:end]
	}
	switch word := strings.ToLower(text); word {
	case "select", "insert", "update", "delete", "replace", "call", "set", "show", "copy", "fetch", "prepare":
		return word
	case "with", "table", "values":
		return "select"
	case "create", "alter", "drop", "truncate", "rename", "grant", "revoke", "comment":
		return "ddl"
	case "begin", "start", "commit", "rollback", "end", "savepoint", "release", "abort":
		return "txn"
	}
	return "other"
}
