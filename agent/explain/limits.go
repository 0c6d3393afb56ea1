package explain

import (
	"fmt"
	"time"
)

// limit names one threshold.
type limit int

const (
	lasting limit = iota
	normalPoints
	slowFactor
	slowExcess
	slowLoad
	slowCritical
	knownCalls
	newShare
	newLoad
	clientShare
	clientLoad
	throttledShare
	throttledCritical
	queueShare
	queueLoad
	fsyncSlow
	fsyncFactor
	fsyncFloor
	fsyncCritical
	blockSlow
	ioStall
	ioCritical
	memoryStall
	memoryStallCritical
	memoryNear
	memoryCritical
	lockFactor
	lockCPU
	lockAge
	lockInFlight
	oldTransaction
	localShare
	replicaLate
	replicaCritical
	errorShare
	errorFactor
	errorCritical
	unseenShare
	limitCount
)

// Limit is a threshold with its reason.
type Limit struct {
	What  string
	Value float64
	// Unit is "s", "x" (a factor), "%" (the value is a share of 1) or "".
	Unit string
	Why  string
}

// limits is the one table of thresholds.
var limits = [limitCount]Limit{
	lasting:      {"a condition counts from", 30, "s", "three steps: one alone may be a checkpoint, a backup's start or a burst"},
	normalPoints: {"points needed to know what is normal", 6, "", "a minute; with fewer the quartile is one step's chance"},

	slowFactor:   {"a digest is slow from, times its normal mean", 3, "x", "a mean moves by half with the cache's state; threefold is seen by users"},
	slowExcess:   {"and by at least", 0.001, "s", "below, the network and the scheduler move it"},
	slowLoad:     {"and while it is at work on average", 0.02, "", "sessions; what is at work less costs nobody anything"},
	slowCritical: {"a slow digest is critical from, times its normal", 10, "x", "with half the load it takes the instance down by itself"},
	knownCalls:   {"calls after which a digest's lifetime mean is its normal", 1000, "", "fewer may all have met a cold cache"},
	newShare:     {"a new digest counts from a share of the load of", 0.3, "%", "a release brings many; one that takes a third is the change to look at"},
	newLoad:      {"and from sessions at work of", 0.5, "", "a third of nothing is nothing"},

	clientShare: {"clients block from a share of statement time of", 0.3, "%", "large results block for a moment on every network"},
	clientLoad:  {"and from sessions blocked of", 0.05, "", "a twentieth of one session is noise of the network"},

	throttledShare:    {"cpu.max throttles from a share of wanted CPU time of", 0.1, "%", "a tenth more latency for what computes; a cgroup near its quota shows some always"},
	throttledCritical: {"throttling is critical from", 0.5, "%", "half of what it wants: latency at least doubles"},
	queueShare:        {"waiting for a CPU counts from a share of CPU time and wait of", 0.3, "%", "threads that wake each other queue a little on an idle node, too"},
	queueLoad:         {"and from threads waiting of", 0.1, "", "a tenth of one thread is wake-up cost"},

	fsyncSlow:     {"fsync is slow from a mean of", 0.01, "s", "a network volume takes 1-5 ms, a disk with cache less"},
	fsyncFactor:   {"or from, times its normal", 3, "x", "commit latency follows it one to one"},
	fsyncFloor:    {"but not below", 0.002, "s", "a threefold of a fast device is still fast"},
	fsyncCritical: {"fsync is critical from a mean of", 0.1, "s", "ten commits a second for each session"},
	blockSlow:     {"block I/O is slow from a mean of", 0.02, "s", "twice a disk's seek; a queue stands before the device"},
	ioStall:       {"I/O stalls count from a share of time of", 0.2, "%", "a database that reads stalls somewhat always; a fifth shapes its latency"},
	ioCritical:    {"I/O stalls are critical from", 0.6, "%", "it does little else"},

	memoryStall:         {"memory stalls count from a share of time of", 0.05, "%", "with enough memory the figure is 0"},
	memoryStallCritical: {"memory stalls are critical from", 0.2, "%", "the kernel reclaims instead of serving statements"},
	memoryNear:          {"memory is short from a share of the limit of", 0.9, "%", "what reclaim cannot take back; the next large sort is killed"},
	memoryCritical:      {"memory is critically short from", 0.97, "%", "a few more connections end the server"},

	lockFactor:   {"a wait looks like a lock from, times the normal mean", 3, "x", "as for a slow digest, and over all statements"},
	lockCPU:      {"with CPU use at most, times its median", 1.3, "x", "who waits for a lock uses none; more use means more work"},
	lockAge:      {"and a transaction or statement open for", 5, "s", "a lock that is held shorter does not gather a queue"},
	lockInFlight: {"and statements in flight at least", 2, "", "one holds and one waits"},

	oldTransaction: {"a transaction is old from", 300, "s", "it keeps locks and what vacuum and purge would clear away"},
	localShare:     {"memory is remote below a local share of", 0.8, "%", "a remote access takes half as long again; a fifth of them shows"},

	replicaLate:     {"a replica is behind from", 10, "s", "a heartbeat and a large transaction explain less than that"},
	replicaCritical: {"a replica is critically behind from", 60, "s", "a switch-over now would lose or wait for a minute"},

	errorShare:    {"errors count from a share of statements of", 0.01, "%", "applications provoke some, such as duplicate keys"},
	errorFactor:   {"and are a warning from, times their normal share", 3, "x", "an application that lives with errors has a normal share of them"},
	errorCritical: {"errors are critical from", 0.5, "%", "half of all work is in vain"},

	unseenShare: {"a gap in what was seen counts from", 0.01, "%", "below, no other figure of the page moves"},
}

func (l limit) value() float64      { return limits[l].Value }
func (l limit) time() time.Duration { return time.Duration(limits[l].Value * float64(time.Second)) }

// Limits lists the thresholds with their reasons.
func Limits() []Limit { return append([]Limit(nil), limits[:]...) }

// String is one line of a list.
func (l Limit) String() string {
	value := fmt.Sprintf("%g", l.Value)
	switch l.Unit {
	case "s":
		value = duration(time.Duration(l.Value * float64(time.Second)))
	case "%":
		value = percent(l.Value)
	case "x":
		value = fmt.Sprintf("%gx", l.Value)
	}
	return fmt.Sprintf("%s %s (%s)", l.What, value, l.Why)
}
