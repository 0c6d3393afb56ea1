package sqltext

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrivileges(t *testing.T) {
	for _, s := range []string{
		"GRANT SELECT ON a.* TO b", "revoke all on t from u", "CREATE USER a IDENTIFIED BY 'x'", "create or replace role r", "ALTER USER IF EXISTS a ACCOUNT LOCK",
		"drop ROLE r", "RENAME USER a TO b", "SET PASSWORD FOR a = 'x'", "SET DEFAULT ROLE r TO u", "/*!50700 ALTER USER a */", "-- x\n (GRANT r TO u)",
		"select 1; GRANT r TO u", "CREATE GROUP g", "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO u", "DROP OWNED BY u",
	} {
		require.True(t, Privileges(MySQL, []byte(s)), s)
		require.True(t, Privileges(PostgreSQL|QuotedStrings, []byte(s)) || s[0] == '/', s)
	}
	for _, s := range []string{
		"SELECT user FROM grants", "CREATE TABLE user (a int)", "DROP TABLE role", "ALTER TABLE t ADD role int", "create or replace view user_v as select 1",
		"SET a = 'grant'", "SET NAMES utf8", "CREATE RESOURCE GROUP g", "alter table t alter a set default 1", "INSERT INTO t VALUES ('; GRANT r TO u')", "CREATE", "",
	} {
		require.False(t, Privileges(MySQL, []byte(s)), s)
		require.False(t, Privileges(PostgreSQL, []byte(s)), s)
	}
	for s, want := range map[string]bool{
		resp("ACL", "SETUSER", "bob", ">x"): true, resp("acl", "deluser", "bob"): true, resp("ACL", "LOAD"): true, "ACL SETUSER bob\r\n": true,
		resp("ACL", "LIST"): false, resp("ACL"): false, resp("SET", "setuser", "x"): false, resp("AUTH", "x"): false, "": false,
	} {
		require.Equal(t, want, Privileges(Redis, []byte(s)), s)
	}
	require.True(t, Privileges(MongoDB, []byte(doc(str("grantRolesToUser", "u")))))
	require.False(t, Privileges(MongoDB, []byte(doc(str("usersInfo", "u")))))
	require.False(t, Privileges(MongoDB, nil))
	require.False(t, Privileges(0, []byte("GRANT r TO u")), "an engine that nobody knows")
}
