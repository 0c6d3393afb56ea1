package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// unseen is how long an object may go without a status before the reader is
// told where to look.
const unseen = 10 * time.Second

// progress is what one version of an object says.
type progress int

const (
	// untouched: its controller has not written a status.
	untouched progress = iota
	going
	over
)

// follower prints what becomes of one object.
type follower struct {
	*session
	object client.Object
	// list is an empty list of the object's kind.
	list client.ObjectList
	seen func(client.Object) progress
	// hint is when to say that nobody has taken the object up; nil afterwards.
	hint <-chan time.Time
}

// follow calls seen with each version of the object until that says that it is
// over. It asks again for as long as the API server does not answer.
func (c *command) follow(ctx context.Context, f *follower) error {
	o := f.object
	f.hint = time.After(unseen)
	quiet := false
	for {
		done, err := c.followOnce(ctx, f)
		var final *Failure
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &final):
			return err
		case apierrors.IsNotFound(err):
			return failed("%s was deleted", o.GetName())
		case apierrors.IsForbidden(err):
			return c.explain("watch "+o.GetName(), err)
		case err != nil && !quiet:
			fmt.Fprintf(c.errOut, "the API server does not answer (%v); asking again\n", err)
		}
		// A watch that merely ended is opened again without a word.
		quiet = err != nil
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.retry):
		}
	}
}

// followOnce watches until the object is over, the watch ends or fails.
func (c *command) followOnce(ctx context.Context, f *follower) (done bool, err error) {
	o := f.object
	// The watch before the first look, so that nothing falls between them.
	w, err := f.Watch(ctx, f.list, client.InNamespace(o.GetNamespace()), client.MatchingFields{"metadata.name": o.GetName()})
	if err != nil {
		return false, err
	}
	defer w.Stop()
	once, cancel := c.within(ctx)
	defer cancel()
	if err := f.Get(once, client.ObjectKeyFromObject(o), o); err != nil {
		return false, err
	}
	if f.look(o) {
		return true, nil
	}
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-f.hint:
			fmt.Fprintf(c.errOut, "no controller has looked at it yet; `%s status` shows whether one runs\n", c.name)
		case e, open := <-w.ResultChan():
			if !open {
				return false, nil
			}
			if e.Type == watch.Error {
				return false, apierrors.FromObject(e.Object)
			}
			now, ok := e.Object.(client.Object)
			if !ok || now.GetName() != o.GetName() {
				continue
			}
			if e.Type == watch.Deleted {
				return false, failed("%s was deleted", o.GetName())
			}
			if f.look(now) {
				return true, nil
			}
		}
	}
}

// look shows one version and says whether it is the last.
func (f *follower) look(o client.Object) bool {
	p := f.seen(o)
	if p != untouched {
		f.hint = nil
	}
	return p == over
}

// stopped turns the end of following into words: whoever stopped it is told
// that it goes on and how to end it.
func (c *command) stopped(err error, what, end string) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return failed("%s is not over within --timeout and goes on; %s", what, end)
	case errors.Is(err, context.Canceled):
		return failed("no longer watching; %s goes on; %s", what, end)
	}
	return err
}
