package wire

import (
	"fmt"
	"strings"
)

// RESP is a command as clients of Redis send it.
func RESP(words ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return []byte(b.String())
}

// Redis are the scenarios of RESP2 and RESP3.
func Redis() []Scenario {
	say := func(text string) Step { return Server([]byte(text)) }
	ok := say("+OK\r\n")
	list := []Scenario{
		{Name: "commands one by one", Steps: []Step{Client(RESP("SET", "k", "v")), ok, Client(RESP("GET", "k")), say("$1\r\nv\r\n"), Client([]byte("PING\r\n")), say("+PONG\r\n")},
			Want: map[string]uint64{"write": 1, "read": 1, "ping": 1}},
		{Name: "a pipeline", Steps: []Step{Client(join(RESP("GET", "a"), RESP("GET", "b"), RESP("GET", "c"))), say("$-1\r\n$-1\r\n$-1\r\n")},
			Want: map[string]uint64{"read": 1}, Detail: Detail{Statements: 3}},
		{Name: "MULTI in one go", Steps: []Step{Client(join(RESP("MULTI"), RESP("SET", "k", "v"), RESP("EXEC"))), say("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")},
			Want: map[string]uint64{"txn": 1}, Detail: Detail{Statements: 3}},
		{Name: "MULTI step by step", Steps: []Step{Client(RESP("MULTI")), ok, Client(RESP("INCR", "k")), say("+QUEUED\r\n"), Client(RESP("EXEC")), say("*1\r\n:1\r\n")},
			Want: map[string]uint64{"txn": 2, "write": 1}},
		{Name: "a subscription", Steps: []Step{Client(RESP("SUBSCRIBE", "c")), say("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"),
			say("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n")}, Want: map[string]uint64{}, Detail: Detail{Stream: true}},
		{Name: "MONITOR", Steps: []Step{Client(RESP("MONITOR")), ok, say("+1 [0 x] \"GET\" \"k\"\r\n")}, Want: map[string]uint64{}, Detail: Detail{Stream: true}},
		{Name: "a replica", Steps: []Step{Client(RESP("PSYNC", "?", "-1")), say("+FULLRESYNC x 0\r\n"), say("$3\r\nabc")}, Want: map[string]uint64{}, Detail: Detail{Stream: true}},
		{Name: "a pop that waits", Steps: []Step{Client(RESP("BLPOP", "k", "0")), say("*2\r\n$1\r\nk\r\n$1\r\nv\r\n")},
			Want: map[string]uint64{}},
		{Name: "an error", Steps: []Step{Client(RESP("INCR", "k")), say("-WRONGTYPE Operation\r\n")}, Want: map[string]uint64{"write!": 1}, Detail: Detail{Codes: []string{"WRONGTYPE"}}},
		{Name: "an error of RESP3", Steps: []Step{Client(RESP("INCR", "k")), say("!13\r\nWRONGTYPE bad\r\n")}, Want: map[string]uint64{"write!": 1},
			Detail: Detail{Codes: []string{"WRONGTYPE"}}},
		{Name: "RESP3", Steps: []Step{Client(RESP("HELLO", "3")), say("%1\r\n$5\r\nproto\r\n:3\r\n"), Client(RESP("HGETALL", "h")), say("%1\r\n$1\r\na\r\n#t\r\n"),
			say(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nh\r\n")}, Want: map[string]uint64{"auth": 1, "read": 1}},
		{Name: "a login", Steps: []Step{Client(RESP("AUTH", "secret")), say("-WRONGPASS no\r\n"), Client(RESP("GET", "k")), say("-NOAUTH no\r\n")},
			Want: map[string]uint64{"auth!": 1, "read!": 1}, Detail: Detail{Codes: []string{"WRONGPASS", "NOAUTH"}}},
		{Name: "a long value in pieces", Steps: []Step{Client(RESP("SET", "k", strings.Repeat("v", 40000))[:16384], RESP("SET", "k", strings.Repeat("v", 40000))[16384:]), ok},
			Want: map[string]uint64{"write": 1}},
	}
	for i := range list {
		list[i].Calls = ReadWrite
	}
	return list
}
