package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// commandLimit is what a command gets if the context has no deadline.
const commandLimit = 2 * time.Minute

// Client calls the guest's server. Its calls end by their context; an error
// means that the guest could not be asked or could not do it.
type Client struct {
	base string
	http http.Client
}

// NewClient returns a client for the server at address, such as Address. It
// must be used from the network namespace that the guest is joined to.
func NewClient(address string) *Client {
	// A transport of its own: that of the default client would go through a proxy
	// of the machine's, which knows another network.
	return &Client{base: "http://" + address, http: http.Client{Transport: &http.Transport{}}}
}

// Run runs a shell script as root in the guest. A script that fails is no
// error: Exit says so.
func (c *Client) Run(ctx context.Context, script string) (Result, error) {
	return c.Exec(ctx, "/bin/sh", "-c", script)
}

// Must runs a shell script and returns its standard output without blanks
// around it. A script that fails is an error that holds what it printed.
func (c *Client) Must(ctx context.Context, script string) (string, error) {
	r, err := c.Run(ctx, script)
	if err != nil {
		return "", err
	}
	if r.Exit != 0 {
		return "", fmt.Errorf("run %q in the guest: exit status %d: %s", script, r.Exit, strings.TrimSpace(r.Stdout+r.Stderr))
	}
	return strings.TrimSpace(r.Stdout), nil
}

// Exec runs a program as root in the guest; a name without a slash is looked up
// in PATH. At the context's deadline it is killed with all its children.
func (c *Client) Exec(ctx context.Context, args ...string) (Result, error) {
	limit := commandLimit
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d)
	}
	body, err := json.Marshal(command{Args: args, Limit: limit})
	if err != nil {
		return Result{}, fmt.Errorf("encode command: %w", err)
	}
	var r Result
	err = c.call(ctx, http.MethodPost, "/run", bytes.NewReader(body), &r)
	return r, err
}

// ReadFile reads a file of the guest. One that is not there is fs.ErrNotExist.
func (c *Client) ReadFile(ctx context.Context, name string) ([]byte, error) {
	var b []byte
	err := c.call(ctx, http.MethodGet, "/file?name="+url.QueryEscape(name), nil, &b)
	return b, err
}

// WriteFile writes a file of the guest, mode 0644.
func (c *Client) WriteFile(ctx context.Context, name string, content io.Reader) error {
	return c.call(ctx, http.MethodPut, "/file?name="+url.QueryEscape(name), content, nil)
}

// Clock estimates how far the guest's clock is ahead of this machine's, from
// the quickest of eight questions.
func (c *Client) Clock(ctx context.Context) (Offset, error) {
	var best Offset
	for i := range 8 {
		var clock Clock
		asked := time.Now()
		if err := c.call(ctx, http.MethodGet, "/clock", nil, &clock); err != nil {
			return Offset{}, err
		}
		half := time.Since(asked) / 2
		if i == 0 || half < best.Error {
			best = Offset{Clock: clock, Ahead: clock.Time.Sub(asked.Add(half)), Error: half}
		}
	}
	return best, nil
}

// Status asks how far the node is. It is also the sign of life to ask for.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

// StartService starts a service that does not run.
func (c *Client) StartService(ctx context.Context, name string) error {
	return c.service(ctx, name, "start")
}

// StopService ends a service by SIGTERM and waits for its end.
func (c *Client) StopService(ctx context.Context, name string) error {
	return c.service(ctx, name, "stop")
}

// KillService ends a service by SIGKILL and waits for its end. It stays ended
// until StartService.
func (c *Client) KillService(ctx context.Context, name string) error {
	return c.service(ctx, name, "kill")
}

func (c *Client) service(ctx context.Context, name, do string) error {
	return c.call(ctx, http.MethodPost, "/service?name="+url.QueryEscape(name)+"&do="+do, nil, nil)
}

// Halt ends the node in good order: Run returns in the guest.
func (c *Client) Halt(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/halt", nil, nil)
}

// call makes one request. into is nil, a *[]byte for the body as it is, or
// what to decode it into.
func (c *Client) call(ctx context.Context, method, path string, body io.Reader, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("ask the guest: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask the guest: %w", err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read the guest's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		err := fmt.Errorf("the guest: %s", strings.TrimSpace(string(b)))
		if response.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
		}
		return err
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *[]byte:
		*into = b
		return nil
	default:
		if err := json.Unmarshal(b, into); err != nil {
			return fmt.Errorf("decode the guest's answer: %w", err)
		}
		return nil
	}
}
