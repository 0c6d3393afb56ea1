package state

import "time"

// DistributionSchema is the schema of Distribution.Native: two buckets to a
// doubling.
const DistributionSchema = 1

// Distribution is a latency distribution in exponential buckets alone.
type Distribution struct {
	// Count is the sum of Native.
	Count uint64        `json:"count"`
	Sum   time.Duration `json:"sum"`
	// Native counts by the bounds of a Prometheus native histogram of schema 1:
	// the key i stands for (2^((i-1)/2), 2^(i/2)] seconds.
	Native map[int]uint64 `json:"-"`
}

// Mean returns the mean; 0 when nothing was counted.
func (d Distribution) Mean() time.Duration {
	if d.Count == 0 {
		return 0
	}
	return d.Sum / time.Duration(d.Count)
}

// Outcomes of a transaction.
const (
	TransactionCommit   = "commit"
	TransactionRollback = "rollback"
	// TransactionUnknown is one whose end the protocol does not tell apart, such
	// as an implicit commit.
	TransactionUnknown = "unknown"
)

// Transaction is the distribution of transactions' durations by outcome.
type Transaction struct {
	Outcome  string       `json:"outcome"`
	Duration Distribution `json:"duration"`
}

// Digests that stand for no one text. With the named ones they are every statement
// that is counted: see Statements.Digests.
const (
	// DigestOther are statements whose digest is known and not kept apart.
	DigestOther = "other"
	// DigestUnsampled are statements whose text was not read: the budget of
	// texts was spent, the ring was full, or it was unreadable.
	DigestUnsampled = "unsampled"
	// DigestTLS are statements over an encrypted connection.
	DigestTLS = "tls"
	// DigestNone are requests that have no text: pings, logins, fetches.
	DigestNone = "none"
)

// Digest is one shape of statement of one instance: its text without literals.
type Digest struct {
	// ID is sixteen hexadecimal digits, or one of the Digest names above.
	ID string `json:"id"`
	// Operation is the operation of its statements; empty for DigestOther and
	// its like.
	Operation string `json:"operation,omitempty"`
	// Text is the normalised text, without any literal, cut to 1,024 bytes; empty
	// where policy keeps texts out, and for DigestOther and its like.
	Text string `json:"text,omitempty"`
	// Since is when this digest began to be counted apart; its counts are from
	// then on.
	Since    time.Time    `json:"since,omitzero"`
	Errors   uint64       `json:"errors"`
	Rows     uint64       `json:"rows"`
	Duration Distribution `json:"duration"`
}

// ErrorCount is how often an instance answered with one error code.
type ErrorCount struct {
	// Code is a SQLSTATE, a number of MySQL, the first word of Redis' error, or
	// a number of MongoDB; "other" stands for all beyond the bounded list.
	Code  string `json:"code"`
	Count uint64 `json:"count"`
}

// Traffic is what has gone over an instance's connections since it was watched.
type Traffic struct {
	// Requests are what clients sent and were answered as one; Statements are
	// what those held, more than Requests where clients pipeline.
	Requests   uint64 `json:"requests"`
	Statements uint64 `json:"statements"`
	// RequestBytes and ResponseBytes are those of requests; StreamInBytes and
	// StreamOutBytes those of replication and subscriptions, which are not timed.
	RequestBytes   uint64 `json:"requestBytes"`
	ResponseBytes  uint64 `json:"responseBytes"`
	StreamInBytes  uint64 `json:"streamInBytes"`
	StreamOutBytes uint64 `json:"streamOutBytes"`
	// Blocked is the time the server waited for a client to take its reply.
	Blocked time.Duration `json:"blocked"`
	// SeenBytes and SocketBytes are what the probe saw of the connections it
	// follows and what their sockets counted; 0 where the kernel does not tell.
	SeenBytes   uint64 `json:"seenBytes"`
	SocketBytes uint64 `json:"socketBytes"`
}

// Coverage returns the share (0 to 1) of the sockets' bytes that the probe saw,
// and false where that is not known.
func (t Traffic) Coverage() (float64, bool) {
	if t.SocketBytes == 0 {
		return 0, false
	}
	return min(1, float64(t.SeenBytes)/float64(t.SocketBytes)), true
}

// Statements is what is known of an instance's statements beyond Operations.
type Statements struct {
	Traffic      Traffic       `json:"traffic"`
	Transactions []Transaction `json:"transactions,omitempty"`
	// OpenTransactions are those open now, OldestTransaction the age of the
	// oldest of them.
	OpenTransactions  int           `json:"openTransactions"`
	OldestTransaction time.Duration `json:"oldestTransaction"`
	// InFlight are requests begun and not yet answered, OldestInFlight the age
	// of the oldest of them.
	InFlight       int           `json:"inFlight"`
	OldestInFlight time.Duration `json:"oldestInFlight"`
	// Connections are the client connections followed now.
	Connections int          `json:"connections"`
	Errors      []ErrorCount `json:"errors,omitempty"`
	// Digests are those kept apart, heaviest first, and the four that stand for
	// the rest. From one snapshot to the next they grow together by as much as
	// Operations do, where one with another Since than before grew from nothing and
	// one that is gone did not grow. Their counts themselves do not add up: what one
	// had counted goes with it.
	Digests []Digest `json:"digests,omitempty"`
	// Slow counts statements above the instance's threshold, which is Threshold.
	Slow      uint64        `json:"slow"`
	Threshold time.Duration `json:"threshold"`
}
