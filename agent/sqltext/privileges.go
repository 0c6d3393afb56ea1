package sqltext

// changers begin statements that make, change or remove what the next word
// names.
var changers = set("create alter drop rename")

// accounts are those who may do something.
var accounts = set("user role group")

// redisRights are what ACL does to change who may do what.
var redisRights = set("setuser deluser load")

// mongoRights are the commands that do.
var mongoRights = set(`createRole createUser dropAllRolesFromDatabase dropAllUsersFromDatabase dropRole dropUser grantPrivilegesToRole
	grantRolesToRole grantRolesToUser revokePrivilegesFromRole revokeRolesFromRole revokeRolesFromUser updateRole updateUser`)

// Privileges says that a statement changes who may do what: it grants or
// revokes, or makes, changes or removes an account or a role, its password
// included. Of several statements in one text it is enough that one does. A text
// that was cut before the words that tell does not seem to. It keeps nothing of
// the text.
func Privileges(d Dialect, text []byte) bool {
	switch d & engines {
	case MySQL, PostgreSQL:
		w, _ := follow(d, text)
		return w.rights
	case Redis:
		cmd, sub, _ := redisCommand(text)
		var a, b [16]byte
		return string(lower(a[:0], cmd[:min(len(cmd), len(a))])) == "acl" &&
			redisRights[string(lower(b[:0], sub[:min(len(sub), len(b))]))]
	case MongoDB:
		s := bsonOf(text)
		cmd, ok := s.next()
		return ok && mongoRights[string(cmd.name)]
	}
	return false
}

// right notes what a word, the n-th of its statement, says of privileges.
func (w *watch) right(s string) {
	switch {
	case w.n == 1:
		w.named = false
		w.rights = w.rights || s == "grant" || s == "revoke"
	case w.first == "set":
		// SET PASSWORD, and MySQL's SET DEFAULT ROLE.
		w.rights = w.rights || w.n == 2 && (s == "password" || s == "default")
	case w.named || !changers[w.first] || s == "or" || s == "replace":
	default:
		w.named = true
		// ALTER DEFAULT PRIVILEGES and DROP OWNED, which revokes, are PostgreSQL's.
		w.rights = w.rights || accounts[s] || w.first == "alter" && s == "default" || w.first == "drop" && s == "owned"
	}
}
