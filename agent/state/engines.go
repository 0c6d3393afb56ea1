package state

// Engine names a database engine: by its OpenTelemetry db.system.name where
// there is one, else by its own name in the same form.
type Engine string

// The engines this release knows.
const (
	PostgreSQL Engine = "postgresql"
	OpenGauss  Engine = "opengauss"
	KingbaseES Engine = "kingbase"
	// TDSQLPG is TDSQL's edition with PostgreSQL's protocol.
	TDSQLPG   Engine = "tdsql-pg"
	MySQL     Engine = "mysql"
	MariaDB   Engine = "mariadb"
	Percona   Engine = "percona"
	TiDB      Engine = "tidb"
	OceanBase Engine = "oceanbase"
	GoldenDB  Engine = "goldendb"
	// TDSQL is the edition with MySQL's protocol.
	TDSQL    Engine = "tdsql"
	Redis    Engine = "redis"
	Valkey   Engine = "valkey"
	MongoDB  Engine = "mongodb"
	FerretDB Engine = "ferretdb"
)

// Wire is a protocol that servers and clients speak, named after its first
// engine.
type Wire string

// The wire protocols.
const (
	WirePostgreSQL Wire = "postgresql"
	WireMySQL      Wire = "mysql"
	WireRedis      Wire = "redis"
	WireMongoDB    Wire = "mongodb"
)

// Support says what stands behind an engine's name.
type Support string

// The kinds of support.
const (
	// Certified engines run in Mooring's own tests.
	Certified Support = "certified"
	// Compatible engines are not at hand. Their published protocol is played to
	// the statement timer in tests; the servers themselves were not tried.
	Compatible Support = "protocol-compatible, not certified"
)

// EngineFacts is one row of the table of engines.
type EngineFacts struct {
	Engine  Engine
	Wire    Wire
	Support Support
}

// engineTable is where an engine gets its protocol, and nowhere else.
var engineTable = []EngineFacts{
	{PostgreSQL, WirePostgreSQL, Certified},
	{OpenGauss, WirePostgreSQL, Compatible},
	{KingbaseES, WirePostgreSQL, Compatible},
	{TDSQLPG, WirePostgreSQL, Compatible},
	{MySQL, WireMySQL, Compatible},
	{MariaDB, WireMySQL, Certified},
	{Percona, WireMySQL, Compatible},
	{TiDB, WireMySQL, Compatible},
	{OceanBase, WireMySQL, Compatible},
	{GoldenDB, WireMySQL, Compatible},
	{TDSQL, WireMySQL, Compatible},
	{Redis, WireRedis, Certified},
	{Valkey, WireRedis, Certified},
	{MongoDB, WireMongoDB, Compatible},
	{FerretDB, WireMongoDB, Compatible},
}

// Engines lists the engines this release knows, by family.
func Engines() []EngineFacts { return append([]EngineFacts(nil), engineTable...) }

// Facts returns the row of an engine, and false for one nobody knows.
func (e Engine) Facts() (EngineFacts, bool) {
	for _, f := range engineTable {
		if f.Engine == e {
			return f, true
		}
	}
	return EngineFacts{}, false
}

// Wire returns the protocol of an engine; "" for one nobody knows.
func (e Engine) Wire() Wire {
	f, _ := e.Facts()
	return f.Wire
}
