package main

import (
	"context"
	"fmt"
	"time"
)

// databasesAnswer asks each database from outside its pod, and PostgreSQL how
// its replication is.
func (s *stage) databasesAnswer(ctx context.Context) error {
	if err := s.replicated(); err != nil {
		return err
	}
	for _, q := range []struct {
		name string
		ask  func() (string, error)
		want string
	}{
		{"orders-0 is a primary", func() (string, error) { return s.PostgreSQL(ctx, "orders-0", "SELECT pg_is_in_recovery()") }, "f"},
		{"orders-1 is a replica", func() (string, error) { return s.PostgreSQL(ctx, "orders-1", "SELECT pg_is_in_recovery()") }, "t"},
		{"orders-2 is a replica", func() (string, error) { return s.PostgreSQL(ctx, "orders-2", "SELECT pg_is_in_recovery()") }, "t"},
		{"orders-0 counts statements", func() (string, error) {
			return s.PostgreSQL(ctx, "orders-0", "SELECT count(*) > 0 FROM pg_stat_statements")
		}, "t"},
		{"both replicas stream", func() (string, error) {
			return s.PostgreSQL(ctx, "orders-0", "SELECT string_agg(application_name, ' ' ORDER BY application_name) FROM pg_stat_replication WHERE state = 'streaming'")
		}, "orders-1 orders-2"},
		{"ledger-0 answers", func() (string, error) { return s.MariaDB(ctx, "ledger-0", "SELECT 1") }, "1"},
		{"cache-0 answers", func() (string, error) { return s.Redis(ctx, "cache-0", "ping") }, "PONG"},
	} {
		// A pod is Ready once its port listens, which is a little before its database
		// is one.
		var got string
		if err := s.Eventually(ctx, 60*time.Second, q.name, func(context.Context) (err error) {
			if got, err = q.ask(); err == nil && got != q.want {
				err = fmt.Errorf("it says %q, not %q", got, q.want)
			}
			return err
		}); err != nil {
			return err
		}
		s.figures.Equal(q.name, truth(got == q.want), "", 1)
		s.say("%s: %q", q.name, got)
	}
	clock, err := s.Node.Clock(ctx)
	if err != nil {
		return err
	}
	s.say("the guest's clock is %v ahead, +-%v", clock.Ahead, clock.Error)
	return nil
}

// truth is a figure for what is or is not so.
func truth(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}
