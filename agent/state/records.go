package state

// Why a record is lost.
const (
	// RecordsLimited were over the rate of their instance.
	RecordsLimited = "limited"
	// RecordsSinkFull were more than the file or standard output took,
	// RecordsSinkFailed could not be written there.
	RecordsSinkFull   = "sink_full"
	RecordsSinkFailed = "sink_failed"
	// RecordsSubscriber did not fit into the buffer of one who subscribed; counted
	// once for each of those.
	RecordsSubscriber = "subscriber"
)

// Records counts records of statements and sessions since the agent started. While
// there is neither a file nor a subscriber none is made.
type Records struct {
	// Made went on, by kind; every kind is there.
	Made map[string]uint64 `json:"made,omitempty"`
	// Lost did not, by one of the reasons above; each is there.
	Lost map[string]uint64 `json:"lost,omitempty"`
	// Limited is what RecordsLimited counts by instance, by ID, since it was found.
	Limited map[string]uint64 `json:"limited,omitempty"`
	// Sessions are the connections whose user is known.
	Sessions int `json:"sessions"`
	// Bugs counts events of the kernel whose reading met a bug of the agent: a
	// text, a record or a session is missing for each.
	Bugs uint64 `json:"bugs,omitempty"`
}

// DigestTable counts what the agent's table of digests has and did since it was
// made.
type DigestTable struct {
	// Numbers are the digests that are kept apart now, Shown those that are shown.
	Numbers int `json:"numbers"`
	Shown   int `json:"shown"`
	// Texts and Records are those that came from the kernel.
	Texts   uint64 `json:"texts"`
	Records uint64 `json:"records"`
	// Overflowed are texts whose statements count as DigestOther for lack of room,
	// Evicted digests that were given up for others.
	Overflowed uint64 `json:"overflowed"`
	Evicted    uint64 `json:"evicted"`
	// KernelFull is how often the kernel had no room for a text, KernelErrors how
	// often it refused something for another reason.
	KernelFull   uint64 `json:"kernelFull"`
	KernelErrors uint64 `json:"kernelErrors"`
}
