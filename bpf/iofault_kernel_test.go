//go:build kernel

package bpf

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestIOFaults(t *testing.T) {
	switch os.Getenv(ioRoleEnv) {
	case "worker":
		ioWorker()
		os.Exit(0)
	case "agent":
		ioAgent()
	}

	f, err := OpenIOFaults()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	t.Logf("hook %s", f.Hook())
	lab := newIOLab(t)
	testIOEffect(t, f, lab)
	testIOEnd(t, f, lab)
	testIOHold(t, f, lab)

	t.Run("the probe reports the hook", func(t *testing.T) {
		feature := ProbeIOFaults(t.Context())
		require.Equal(t, "io-error", feature.Name)
		require.True(t, feature.OK, feature.Detail)
		require.Contains(t, feature.Detail, f.Hook())
	})
}

// testIOEffect looks at what a rule does, and to whom.
func testIOEffect(t *testing.T, f *IOFaults, lab *ioLab) {
	t.Run("writes of the target fail, its reads and all others do not", func(t *testing.T) {
		rule := lab.rule(time.Minute)
		setIO(t, f, "w", rule)
		require.Equal(t, "100 5", lab.target.ask(t, "write %s 100", lab.victim))
		require.Equal(t, "0 0", lab.target.ask(t, "read %s 100", lab.victim))
		require.Equal(t, "0 0", lab.target.ask(t, "write %s 100", lab.other), "another device")
		require.Equal(t, "0 0", lab.neighbour.ask(t, "write %s 100", lab.victim), "another cgroup")
		got, hits, ok, err := f.Get("w")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, rule, got)
		require.Equal(t, uint64(100), hits)
		require.NoError(t, f.Clear("w"))
		require.Equal(t, "0 0", lab.target.ask(t, "write %s 100", lab.victim))
		_, _, ok, err = f.Get("w")
		require.NoError(t, err)
		require.False(t, ok)
		require.NoError(t, f.Clear("w"), "clearing twice is no error")
		require.Nil(t, f.link, "nothing stays attached without a rule")
	})

	t.Run("reads fail with the errno of the rule", func(t *testing.T) {
		rule := lab.rule(time.Minute)
		rule.Read, rule.Write, rule.Errno = true, false, int(unix.ENODATA)
		setIO(t, f, "r", rule)
		require.Equal(t, fmt.Sprintf("50 %d", int(unix.ENODATA)), lab.target.ask(t, "read %s 50", lab.victim))
		require.Equal(t, "0 0", lab.target.ask(t, "write %s 50", lab.victim))
		require.Equal(t, "0 0", lab.target.ask(t, "list %s 50", lab.victim), "a directory is no regular file")
	})

	t.Run("what a write fault covers and what not is as documented", func(t *testing.T) {
		setIO(t, f, "kinds", lab.rule(time.Minute))
		for verb, want := range map[string]string{
			"write": "10 5", "aio": "10 5", "fallocate": "10 5", "copy": "10 5",
			"fsync": "0 0", "truncate": "0 0", "store": "0 0", "open": "0 0",
		} {
			require.Equal(t, want, lab.target.ask(t, verb+" %s 10", lab.victim), verb)
		}
	})

	t.Run("half the operations fail at half a million ppm", func(t *testing.T) {
		rule := lab.rule(time.Minute)
		rule.PPM = 500_000
		setIO(t, f, "half", rule)
		var failed, errno uint64
		_, err := fmt.Sscan(lab.target.ask(t, "write %s 4000", lab.victim), &failed, &errno)
		require.NoError(t, err)
		// Six standard deviations of a fair coin.
		require.InDelta(t, 2000, failed, 190)
		_, hits, _, err := f.Get("half")
		require.NoError(t, err)
		require.Equal(t, failed, hits)
	})
}

// testIOEnd looks at every way in which a fault ends.
func testIOEnd(t *testing.T, f *IOFaults, lab *ioLab) {
	// The bounds below hold on however slow a machine: a failed write has
	// begun before the end of the fault, a good one is over after it.
	t.Run("the rule is inert from its deadline on", func(t *testing.T) {
		rule := lab.rule(2 * time.Second)
		setIO(t, f, "deadline", rule)
		lastFailed, firstOK := lab.target.until(t, lab.victim)
		require.Less(t, lastFailed, rule.Deadline)
		require.GreaterOrEqual(t, firstOK, rule.Deadline)
		t.Logf("last failure begun %v before, first success over %v after the deadline", rule.Deadline-lastFailed, firstOK-rule.Deadline)
		require.NoError(t, f.Renew(Lease))
		require.Equal(t, "0 0", lab.target.ask(t, "write %s 100", lab.victim), "a lease does not move a deadline")
	})

	t.Run("the rule ends with its lease and a renewal prolongs it", func(t *testing.T) {
		before := BootTime()
		require.NoError(t, f.Set("lease", lab.rule(time.Minute)))
		t.Cleanup(func() { require.NoError(t, f.Clear("lease")) })
		after := BootTime()
		lastFailed, firstOK := lab.target.until(t, lab.victim)
		require.Less(t, lastFailed, after+Lease)
		require.GreaterOrEqual(t, firstOK, before+Lease)
		require.NoError(t, f.Renew(time.Minute))
		require.Equal(t, "10 5", lab.target.ask(t, "write %s 10", lab.victim))
		require.NoError(t, f.Renew(time.Millisecond))
		time.Sleep(2 * time.Millisecond)
		require.Equal(t, "0 0", lab.target.ask(t, "write %s 10", lab.victim))
	})

	t.Run("the fault dies with the process that set it", func(t *testing.T) {
		agent := startIOPeer(t, "agent", "", lab.ruleArgs())
		require.Equal(t, "armed", agent.line(t))
		require.Equal(t, "100 5", lab.target.ask(t, "write %s 100", lab.victim))
		killed := BootTime()
		require.NoError(t, agent.cmd.Process.Kill())
		lastFailed, _ := lab.target.until(t, lab.victim)
		t.Logf("last failure %v after SIGKILL", lastFailed-killed)
		require.Less(t, lastFailed-killed, 20*time.Second, "lease and deadline are a minute")
	})
}

// testIOHold looks at who may hold what, and with which hook.
func testIOHold(t *testing.T, f *IOFaults, lab *ioLab) {
	t.Run("one rule holds a target", func(t *testing.T) {
		rule := lab.rule(time.Minute)
		setIO(t, f, "a", rule)
		require.NoError(t, f.Set("a", rule), "the same rule again is fine")
		require.ErrorIs(t, f.Set("b", rule), ErrBusy)
		changed := rule
		changed.PPM = 1
		require.ErrorIs(t, f.Set("a", changed), ErrBusy)
		elsewhere := rule
		elsewhere.CgroupID = lab.neighbour.cgroup
		setIO(t, f, "b", elsewhere)
		require.NoError(t, f.Clear("a"))
		require.Equal(t, "0 0", lab.target.ask(t, "write %s 10", lab.victim))
		require.Equal(t, "10 5", lab.neighbour.ask(t, "write %s 10", lab.victim))
	})

	t.Run("a rule whose deadline has passed is refused", func(t *testing.T) {
		require.ErrorContains(t, f.Set("late", lab.rule(-time.Second)), "has passed")
		require.Nil(t, f.link)
	})

	t.Run("a hook that does not run is not taken for working", func(t *testing.T) {
		list, err := os.ReadFile("/sys/kernel/security/lsm")
		require.NoError(t, err)
		lsm, err := openIOHook(ioHooks()[1])
		t.Logf("lsm=%s: %v", list, err)
		if strings.Contains(string(list), "bpf") {
			require.NoError(t, err)
			require.NoError(t, lsm.Set("lsm", lab.rule(time.Minute)))
			require.Equal(t, "100 5", lab.target.ask(t, "write %s 100", lab.victim))
			require.NoError(t, lsm.Close())
			require.Equal(t, "0 0", lab.target.ask(t, "write %s 100", lab.victim))
			return
		}
		require.Error(t, err)
	})
}
