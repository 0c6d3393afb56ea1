package dbserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options says where a server lives.
type Options struct {
	// Root is the Debian tree that holds the server's binaries; "" is "/".
	Root string
	// Dir is the data directory, as seen inside Root. It is made by Start
	// from the tree's own freshly initialised one.
	Dir string
	// Address and Port are what it listens on.
	Address string
	Port    int
	// Cgroup is the directory of an existing cgroup v2 to start in; "" stays
	// in the caller's.
	Cgroup string
	// Netns is the path of a network namespace to start in; "" is the caller's.
	Netns string
	// Args are further arguments for the server.
	Args []string
}

// Server is a running database server.
type Server struct {
	Options
	// PID is the server's first process.
	PID  int
	cmd  *exec.Cmd
	log  string
	done chan error
}

// Command returns a command that runs inside root as user, with name looked up
// in the tree's usual places.
func Command(ctx context.Context, root, user, name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Path, cmd.Err = name, nil
	if !filepath.IsAbs(name) {
		for _, dir := range []string{postgresBin(root), "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			if _, err := os.Stat(filepath.Join(root, dir, name)); err == nil {
				cmd.Path = filepath.Join(dir, name)
				break
			}
		}
	}
	cred, err := credential(root, user)
	if err != nil {
		return nil, err
	}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + postgresBin(root) + ":/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: cred}
	return cmd, nil
}

// credential looks user up in the tree's own passwd file.
func credential(root, user string) (*syscall.Credential, error) {
	if user == "" {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join("/", root, "etc/passwd"))
	if err != nil {
		return nil, fmt.Errorf("read passwd: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 4 || f[0] != user {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read passwd entry of %s: %w", user, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("no user %q in the tree %q", user, root)
}

// StartPostgres starts PostgreSQL and waits until it serves queries to anybody
// who connects as postgres. pg_stat_statements is loaded.
func StartPostgres(ctx context.Context, o Options) (*Server, error) {
	version := filepath.Base(filepath.Dir(postgresBin(o.Root)))
	if err := seed(ctx, o, "postgres", "/var/lib/postgresql/"+version+"/main", "0700"); err != nil {
		return nil, err
	}
	dir := filepath.Join("/", o.Root, o.Dir)
	for name, text := range map[string]string{
		"pg_hba.conf":   "local all all trust\nhost all all all trust\n",
		"pg_ident.conf": "",
		"postgresql.conf": fmt.Sprintf("listen_addresses = '%s'\nport = %d\nunix_socket_directories = '%s'\n"+
			"shared_preload_libraries = 'pg_stat_statements'\nshared_buffers = 64MB\nmax_connections = 40\n"+
			"fsync = off\nautovacuum = off\nlogging_collector = off\n", o.Address, o.Port, o.Dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("configure postgres: %w", err)
		}
	}
	return start(ctx, o, "postgres", "postgres", append([]string{"-D", o.Dir}, o.Args...)...)
}

// StartMariaDB starts MariaDB and waits until it serves queries. root needs no
// password on any connection.
func StartMariaDB(ctx context.Context, o Options) (*Server, error) {
	if err := seed(ctx, o, "mysql", "/var/lib/mysql", "0755"); err != nil {
		return nil, err
	}
	args := []string{
		"--no-defaults", "--datadir=" + o.Dir, "--user=mysql", "--skip-grant-tables", "--skip-networking=0", "--skip-name-resolve",
		"--bind-address=" + o.Address, "--port=" + strconv.Itoa(o.Port), "--socket=" + filepath.Join(o.Dir, "sock"),
		"--pid-file=" + filepath.Join(o.Dir, "pid"), "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=off",
	}
	return start(ctx, o, "mysql", "mariadbd", append(args, o.Args...)...)
}

// seed copies the tree's initialised data directory.
func seed(ctx context.Context, o Options, user, from, mode string) error {
	script := `set -e; mkdir -p "$(dirname "$1")"; rm -rf "$1"; cp -a "$2" "$1"; rm -f "$1/postmaster.pid"; chown -R "$3:" "$1"; chmod "$4" "$1"; chmod a+x "$(dirname "$1")"`
	cmd, err := Command(ctx, o.Root, "", "/bin/sh", "-c", script, "sh", o.Dir, from, user, mode)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make data directory %s: %w: %s", o.Dir, err, out)
	}
	return nil
}

// start runs a server in its cgroup and network namespace and waits for it.
func start(ctx context.Context, o Options, user, program string, args ...string) (*Server, error) {
	cmd, err := Command(context.WithoutCancel(ctx), o.Root, user, program, args...)
	if err != nil {
		return nil, err
	}
	s := &Server{Options: o, cmd: cmd, log: filepath.Join(os.TempDir(), fmt.Sprintf("%s-%d.log", filepath.Base(program), o.Port)), done: make(chan error, 1)}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, fmt.Errorf("make server log: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if o.Cgroup != "" {
		dir, err := os.Open(o.Cgroup)
		if err != nil {
			return nil, fmt.Errorf("open cgroup: %w", err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := inNetns(o.Netns, s.run); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	s.PID = cmd.Process.Pid
	if err := s.wait(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for %s: %w", program, err), s.Stop())
	}
	return s, nil
}

// run starts the process and waits for its end in the background.
func (s *Server) run() error {
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() { s.done <- s.cmd.Wait() }()
	return nil
}

// wait returns when the server answers a query, or why it does not.
func (s *Server) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var last error
	for {
		select {
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("it ended: %w\n%s", err, s.Log())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w\n%s", ctx.Err(), last, s.Log())
		case <-time.After(200 * time.Millisecond):
		}
		if last = s.ready(ctx); last == nil {
			return nil
		}
	}
}

// ready asks the server something. The ones built from Go have no client here:
// that they take a connection has to do.
func (s *Server) ready(ctx context.Context) error {
	question := "SELECT 1"
	switch filepath.Base(s.cmd.Path) {
	case "redis-server", "valkey-server":
		question = "PING"
	case mysqlServer, ferretDB:
		_, err := s.Connect(time.Second)
		return err
	}
	_, err := s.Query(ctx, question)
	return err
}

// Query runs SQL, or a command of Redis or Valkey, through the database's own
// client over TCP, from the caller's network namespace, and returns its bare
// output.
func (s *Server) Query(ctx context.Context, sql string) (string, error) {
	port := strconv.Itoa(s.Port)
	name, args := "psql", []string{"-h", s.Address, "-p", port, "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, "postgres"}
	switch base := filepath.Base(s.cmd.Path); base {
	case "mariadbd": // whose client asks for TLS since 11.4
		name, args = "mariadb", []string{"--no-defaults", "--skip-ssl", "-h", s.Address, "-P", port, "-u", "root", "-BN", "-e", sql}
	case "redis-server", "valkey-server":
		name, args = strings.TrimSuffix(base, "server")+"cli", append([]string{"-h", s.Address, "-p", port}, strings.Fields(sql)...)
	}
	cmd, err := Command(ctx, s.Root, "", name, args...)
	if err != nil {
		return "", err
	}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Log returns the end of what the server wrote.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// Connect measures one TCP handshake with the server from the caller's own
// network namespace.
func (s *Server) Connect(timeout time.Duration) (time.Duration, error) {
	begin := time.Now()
	c, err := net.DialTimeout("tcp", net.JoinHostPort(s.Address, strconv.Itoa(s.Port)), timeout)
	if err != nil {
		return 0, err
	}
	took := time.Since(begin)
	return took, c.Close()
}

// Alive says whether the process that Start started still runs.
func (s *Server) Alive() bool {
	select {
	case err := <-s.done:
		s.done <- err
		return false
	default:
		return true
	}
}

// Stop ends the server and waits for it: SIGINT (a fast shutdown for
// PostgreSQL), SIGTERM for the others, and SIGKILL after ten seconds.
func (s *Server) Stop() error {
	sig := syscall.SIGTERM
	if filepath.Base(s.cmd.Path) == "postgres" {
		sig = syscall.SIGINT
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop server: %w", err)
	}
	select {
	case err := <-s.done:
		s.done <- err
	case <-time.After(10 * time.Second):
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill server: %w", err)
		}
		err := <-s.done
		s.done <- err
	}
	return nil
}

// inNetns runs f on a thread of its own that is in the network namespace at
// path, if there is one. The thread parks for ever afterwards: the Pdeathsig of
// a process started from it would fire when the thread ends.
func inNetns(path string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result <- func() error {
			if path == "" {
				return f()
			}
			ns, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("open network namespace: %w", err)
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
			return f()
		}()
		select {}
	}()
	return <-result
}
