package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// serve starts the server for the host.
func (g *guest) serve(context.Context) error {
	l, err := net.Listen("tcp", Address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: g.handler(), ReadHeaderTimeout: time.Minute}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			g.ended <- fmt.Errorf("serve the host: %w", err)
		}
	}()
	return nil
}

// handler is what the server does.
func (g *guest) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", g.handleRun)
	mux.HandleFunc("GET /file", g.handleRead)
	mux.HandleFunc("PUT /file", g.handleWrite)
	mux.HandleFunc("GET /clock", g.handleClock)
	mux.HandleFunc("GET /status", g.handleStatus)
	mux.HandleFunc("POST /service", g.handleService)
	mux.HandleFunc("POST /halt", func(http.ResponseWriter, *http.Request) {
		select {
		case g.halt <- struct{}{}:
		default:
		}
	})
	return mux
}

func (g *guest) handleRun(w http.ResponseWriter, r *http.Request) {
	var c command
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil || len(c.Args) == 0 {
		http.Error(w, "the request holds no command", http.StatusBadRequest)
		return
	}
	result, err := run(r.Context(), c)
	reply(w, result, err)
}

// run runs a command in a process group of its own, so that its end is the end
// of its children too.
func run(ctx context.Context, c command) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Limit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var status *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Result{}, fmt.Errorf("%s did not end in %v: %s%s", strings.Join(c.Args, " "), c.Limit, stdout.Bytes(), stderr.Bytes())
	case errors.As(err, &status), err == nil, errors.Is(err, exec.ErrWaitDelay):
		code := cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		return Result{Stdout: stdout.String(), Stderr: stderr.String(), Exit: code}, nil
	}
	return Result{}, err
}

func (g *guest) handleRead(w http.ResponseWriter, r *http.Request) {
	b, err := os.ReadFile(r.URL.Query().Get("name"))
	if err != nil {
		fail(w, err)
		return
	}
	_, _ = w.Write(b)
}

func (g *guest) handleWrite(w http.ResponseWriter, r *http.Request) {
	f, err := os.OpenFile(r.URL.Query().Get("name"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		fail(w, err)
		return
	}
	_, err = io.Copy(f, r.Body)
	if err := errors.Join(err, f.Close()); err != nil {
		fail(w, err)
	}
}

func (g *guest) handleClock(w http.ResponseWriter, _ *http.Request) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	reply(w, Clock{BootID: strings.TrimSpace(string(id)), Time: time.Now(), Boottime: boottime()}, err)
}

func (g *guest) handleStatus(w http.ResponseWriter, _ *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Status{Services: map[string]string{}, Steps: g.steps}
	for name, service := range g.services {
		s.Services[name] = service.status()
	}
	reply(w, s, nil)
}

func (g *guest) handleService(w http.ResponseWriter, r *http.Request) {
	name, do := r.URL.Query().Get("name"), r.URL.Query().Get("do")
	s, ok := g.services[name]
	if !ok {
		fail(w, fmt.Errorf("no service %q", name))
		return
	}
	var err error
	switch do {
	case "start":
		err = s.start()
	case "stop":
		err = s.stop()
	case "kill":
		err = s.kill()
	default:
		err = fmt.Errorf("cannot %q a service", do)
	}
	if err != nil {
		fail(w, err)
	}
}

func reply(w http.ResponseWriter, value any, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// The host is told by the end of the connection if this breaks off.
	_ = json.NewEncoder(w).Encode(value)
}

// fail reports an error; a missing file by the status that says so.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if errors.Is(err, os.ErrNotExist) {
		status = http.StatusNotFound
	}
	http.Error(w, err.Error(), status)
}
