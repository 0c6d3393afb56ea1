package bpf

import (
	"context"
	"fmt"
	"strings"
)

// Feature is what a probe found out about one ability of the running kernel.
type Feature struct {
	// Name is how reports and plans call the ability.
	Name string
	// OK is true if the ability was seen at work.
	OK bool
	// Detail is what was seen, or why the ability is missing, in one line.
	Detail string
}

// ProbeIOFaults finds out whether file faults work here, by making a write of
// this process to a private file fail. It leaves nothing behind.
func ProbeIOFaults(ctx context.Context) Feature {
	return probe(ctx, "io-error", func(context.Context) (string, error) {
		f, err := OpenIOFaults()
		if err != nil {
			return "", err
		}
		return f.hook.name + "/" + f.hook.function, f.Close()
	})
}

// ProbeNetFaults finds out whether network faults work here, by delaying one
// datagram between two throw-away network namespaces and sending another one
// after the deadline. It leaves nothing behind and takes less than a second,
// unless the kernel has to load its modules first.
func ProbeNetFaults(ctx context.Context) Feature {
	return probe(ctx, "net-delay", probeDelay)
}

func probe(ctx context.Context, name string, fire func(context.Context) (string, error)) Feature {
	if err := ctx.Err(); err != nil {
		return Feature{Name: name, Detail: fmt.Sprintf("not probed: %v", err)}
	}
	detail, err := fire(ctx)
	if err != nil {
		// Joined errors are one to a line; a detail is a cell of a table.
		return Feature{Name: name, Detail: strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	return Feature{Name: name, OK: true, Detail: detail}
}
