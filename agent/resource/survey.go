package resource

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/procfs"

	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// surveyEvery is how old a survey may become before another is begun.
	surveyEvery = 15 * time.Second
	// surveysAtOnce spreads the work; one that takes longer than surveyHangs no
	// longer keeps others from being begun.
	surveysAtOnce = 4
	surveyHangs   = 10 * time.Second
)

// Surveyor looks at instances in the background.
type Surveyor struct {
	root string // of procfs
	now  func() time.Time
	// look does one survey; tests replace it.
	look func(*state.Instance, *surveyed) *state.Survey

	mu   sync.Mutex
	kept map[string]*surveyed // by instance
}

// surveyed is what is kept of one instance between surveys. While one is under
// way it alone uses retransmitted and total.
type surveyed struct {
	last  *state.Survey
	began time.Time
	busy  bool
	// gone says that the instance went while it was busy: what comes of that is of
	// nobody.
	gone bool
	// retransmitted has the count of each connection at the last survey, nil
	// before the first.
	retransmitted map[uint64]uint32
	total         int64
}

// NewSurveyor returns a surveyor of the procfs mounted there.
func NewSurveyor(procRoot string) *Surveyor {
	s := &Surveyor{root: procRoot, now: time.Now, kept: map[string]*surveyed{}}
	s.look = s.survey
	return s
}

// Begin says which instances there are; the others are forgotten. One whose
// survey is under way is so only afterwards: otherwise a pod on a file system that
// hangs would have one more hanging survey each time it comes back.
func (s *Surveyor) Begin(instances []state.Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, k := range s.kept {
		if slices.ContainsFunc(instances, func(in state.Instance) bool { return in.ID == id }) {
			continue
		}
		if k.busy {
			k.last, k.gone = nil, true
		} else {
			delete(s.kept, id)
		}
	}
}

// Latest returns the newest survey of an instance, nil before the first, and
// begins another one if it is time. It does not block.
func (s *Surveyor) Latest(in *state.Instance) *state.Survey {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept[in.ID]
	if k == nil {
		k = &surveyed{}
		s.kept[in.ID] = k
	}
	now := s.now()
	if k.busy || !k.began.IsZero() && now.Sub(k.began) < surveyEvery || s.running(now) >= surveysAtOnce {
		return k.last
	}
	k.busy, k.began = true, now
	target := *in
	go func() {
		done := s.guarded(&target, k)
		s.mu.Lock()
		defer s.mu.Unlock()
		if k.gone {
			// The next survey is of the instance that has its name now.
			*k = surveyed{total: k.total}
			return
		}
		k.last, k.busy = done, false
	}()
	return k.last
}

// guarded makes of a panic a survey that failed: nothing waits for a survey.
func (s *Surveyor) guarded(in *state.Instance, k *surveyed) (done *state.Survey) {
	defer func() {
		if p := recover(); p != nil {
			done = &state.Survey{Time: s.now(), Err: fmt.Sprintf("panic: %v", p)}
		}
	}()
	return s.look(in, k)
}

// running counts the surveys that are under way and do not hang.
func (s *Surveyor) running(now time.Time) int {
	n := 0
	for _, k := range s.kept {
		if k.busy && now.Sub(k.began) < surveyHangs {
			n++
		}
	}
	return n
}

// survey looks at everything. It may block for as long as a file system does.
func (s *Surveyor) survey(in *state.Instance, k *surveyed) *state.Survey {
	out := &state.Survey{}
	var errs []error
	found, err := readDescriptors(s.root, in.PIDs)
	errs = append(errs, err)
	out.DeletedOpenBytes, out.Descriptors, out.Complete = found.deleted, found.open, found.complete
	out.Fullest.Open = found.most
	if found.mostPID != 0 {
		out.Fullest.Limit, err = s.descriptorLimit(found.mostPID)
		errs = append(errs, err)
	}
	out.Connections, err = s.connections(in, k)
	errs = append(errs, err)
	out.Directories, err = readDirectories(s.root, in)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		out.Err = err.Error()
	}
	out.Time = s.now()
	return out
}

// descriptorLimit returns a process's own limit of descriptors; 0 is none.
func (s *Surveyor) descriptorLimit(pid int) (int64, error) {
	fs, err := procfs.NewFS(s.root)
	if err != nil {
		return 0, fmt.Errorf("open procfs: %w", err)
	}
	p, err := fs.Proc(pid)
	if ended(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read limits: %w", err)
	}
	limits, err := p.Limits()
	if ended(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read limits of process %d: %w", pid, err)
	}
	if limits.OpenFiles > 1<<40 { // the library's way to write "unlimited"
		return 0, nil
	}
	return int64(limits.OpenFiles), nil
}
