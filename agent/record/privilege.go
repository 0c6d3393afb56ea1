package record

import "strings"

// changesPrivileges says that a normalised text of data definition is about who
// may do what. A text that is not known, such as one with a password, is only
// known to be data definition.
func changesPrivileges(text string) bool {
	words := strings.Fields(strings.ToLower(text))
	if len(words) == 0 {
		return false
	}
	switch words[0] {
	case "grant", "revoke":
		return true
	case "create", "alter", "drop", "rename":
		return len(words) > 1 && (words[1] == "user" || words[1] == "role")
	}
	return false
}
