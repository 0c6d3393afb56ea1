package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// seen is one value of a file and when it was first read.
type seen struct {
	File  string    `json:"file"`
	Value string    `json:"value"`
	Time  time.Time `json:"time"`
}

// linger is how long files are observed after each of them has changed.
const linger = time.Second

// observeFiles runs in the guest: it reads control files over and over until each
// has changed, for so long at most, and prints each change as a line of JSON. The
// file named first it makes once it has read all the others.
func observeFiles(args []string) error {
	if len(args) < 3 {
		return errors.New("observe wants a duration, a file to make and files to read")
	}
	ready, files := args[1], args[2:]
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		return fmt.Errorf("read duration: %w", err)
	}
	last, changed := map[string]string{}, map[string]bool{}
	out := json.NewEncoder(os.Stdout)
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("observe: %w", err)
			}
			value := strings.TrimSpace(string(b))
			old, known := last[f]
			if known && old == value {
				continue
			}
			last[f], changed[f] = value, changed[f] || known
			if known && len(changed) == len(files) && !slices.Contains(slices.Collect(maps.Values(changed)), false) {
				end = time.Now().Add(linger)
			}
			if err := out.Encode(seen{f, value, time.Now()}); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		if ready == "" {
			continue
		}
		if err := os.WriteFile(ready, nil, 0o600); err != nil {
			return fmt.Errorf("say that all is read: %w", err)
		}
		ready = ""
	}
	return nil
}

// observe runs observeFiles in the guest and returns the changes, with times
// by this machine's clock.
func (s *stage) observe(ctx context.Context, limit time.Duration, ready string, files ...string) ([]seen, error) {
	clock, err := s.Node.Clock(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.Node.Exec(ctx, append([]string{filepath.Join(s.Dir, "guest", "e2e"), "observe", limit.String(), ready}, files...)...)
	if err != nil {
		return nil, err
	}
	if r.Exit != 0 {
		return nil, fmt.Errorf("observe files in the guest: %s", r.Stderr)
	}
	var all []seen
	d := json.NewDecoder(strings.NewReader(r.Stdout))
	for d.More() {
		var one seen
		if err := d.Decode(&one); err != nil {
			return nil, fmt.Errorf("decode observation: %w", err)
		}
		one.Time = one.Time.Add(-clock.Ahead)
		all = append(all, one)
	}
	return all, nil
}
