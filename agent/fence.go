package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// listenFor is how long an agent that lost its record of epochs listens before
// it believes the highest it heard. The controller at work repeats its requests
// every few seconds, and one that was replaced gives up its Lease within
// fifteen.
const listenFor = 30 * time.Second

// fence keeps out controllers that were replaced and do not know it. It holds
// the highest epoch any controller came with, on disk before the first request
// with that epoch is carried out, and lets no request of a higher epoch begin
// while one of a lower is under way.
//
// The record is one line in Config.StateDir. No file means that no controller
// was ever here. A file that cannot be read is another matter: to forget the
// epoch could let a replaced controller act, and to refuse everybody would end
// in a person deleting the file. So such an agent changes nothing for
// controllers at first; from the first request on it listens for listenFor and
// then believes the highest epoch it heard. Ending a fault and dry runs are let
// through meanwhile: both are safe whoever asks. The unix socket is not fenced.
//
// The methods are safe for concurrent use.
type fence struct {
	path string
	// now is a clock that nobody can set.
	now func() time.Duration

	// turn is held shared while a request is carried out, and alone to raise
	// the epoch.
	turn sync.RWMutex

	mu sync.Mutex
	// highest was seen, saved is on disk, working has had its turn.
	highest, saved, working uint64
	// damage says why the record could not be read, until an epoch is believed.
	damage string
	// listening is when the first request came to an agent without its record.
	listening time.Duration
}

// openFence reads the record in dir.
func openFence(dir string, now func() time.Duration) *fence {
	f := &fence{path: filepath.Join(dir, "epoch"), now: now}
	data, err := os.ReadFile(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return f
	}
	if err == nil {
		f.highest, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	}
	if err == nil && f.highest == 0 {
		err = errors.New("it holds no epoch")
	}
	if err != nil {
		f.highest, f.damage = 0, fmt.Sprintf("the record of controllers' epochs in %s is damaged: %v", f.path, err)
		return f
	}
	f.saved = f.highest
	return f
}

// Highest returns the highest epoch seen, 0 before the first.
func (f *fence) Highest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.highest
}

// Damage returns "" or why the record could not be read.
func (f *fence) Damage() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.damage
}

// enter admits a request with an epoch, or says why not. safe is one that ends
// something or changes nothing. It blocks while requests of lower epochs are
// under way, unless safe. The caller calls leave when the request was carried
// out.
func (f *fence) enter(ctx context.Context, epoch uint64, safe bool) (leave func(), err error) {
	if epoch == 0 {
		return nil, invalid(errors.New("the request carries no epoch: a controller must say which term it acts in"))
	}
	if safe {
		return func() {}, f.admit(epoch, true)
	}
	for {
		f.turn.RLock()
		if f.works(epoch) {
			return f.turn.RUnlock, nil
		}
		f.turn.RUnlock()
		f.turn.Lock()
		err := ctx.Err()
		if err == nil {
			err = f.admit(epoch, false)
		}
		f.turn.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// works says whether the epoch is the newest and has had its turn.
func (f *fence) works(epoch uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return epoch == f.highest && epoch == f.working
}

// admit notes the epoch, on disk first. Where that cannot be, the request is
// refused unless it is safe.
func (f *fence) admit(epoch uint64, safe bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if epoch < f.highest {
		return refused(fmt.Errorf("fenced: epoch %d is older than %d, another controller took over; if there is none, stop the agent, remove %s and start it again",
			epoch, f.highest, f.path))
	}
	f.highest = epoch
	if err := f.note(safe); err != nil {
		if safe {
			return nil
		}
		return refused(err)
	}
	if !safe {
		f.working = epoch
	}
	return nil
}

// note writes the highest epoch, once it can be believed. The caller holds mu.
func (f *fence) note(safe bool) error {
	if f.damage != "" {
		if f.listening == 0 && !safe {
			f.listening = f.now()
		}
		if left := f.listening + listenFor - f.now(); f.listening == 0 || left > 0 {
			return fmt.Errorf("%s; ask again in %v, when the highest epoch heard until then is believed", f.damage, left.Round(time.Second))
		}
	} else if f.saved == f.highest {
		return nil
	}
	if err := writeDurably(f.path, []byte(strconv.FormatUint(f.highest, 10)+"\n")); err != nil {
		return fmt.Errorf("note epoch %d, nothing was changed: %w", f.highest, err)
	}
	f.saved, f.damage = f.highest, ""
	return nil
}
