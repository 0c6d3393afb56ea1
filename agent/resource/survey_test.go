package resource

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

func TestDeletedFilesCountOnceAndSharedMemoryDoesNot(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "wal")
	require.NoError(t, os.WriteFile(name, make([]byte, 1<<20), 0o600))
	one, err := os.Open(name)
	require.NoError(t, err)
	defer one.Close()
	two, err := os.Open(name)
	require.NoError(t, err)
	defer two.Close()
	before, err := readDescriptors("/proc", []int{os.Getpid()})
	require.NoError(t, err)
	require.True(t, before.complete)

	memory, err := unix.MemfdCreate("buffers", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(memory)
	_, err = unix.Write(memory, make([]byte, 1<<20))
	require.NoError(t, err)
	require.NoError(t, os.Remove(name))
	after, err := readDescriptors("/proc", []int{os.Getpid(), 1 << 30})
	require.NoError(t, err)
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &fs))
	want := int64(1 << 20)
	if fs.Type == unix.TMPFS_MAGIC {
		want = 0
	}
	require.Equal(t, want, after.deleted-before.deleted)
	require.Equal(t, os.Getpid(), after.mostPID)
	require.Positive(t, after.open)
}

func TestListOfDescriptorsIsBounded(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"a", "b", "c"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, n), nil, 0o600))
	}
	var seen []string
	n, whole, err := eachName(dir, 2, func(name string) { seen = append(seen, name) })
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.False(t, whole)
	require.Len(t, seen, 2)
	n, whole, err = eachName(dir, 4, func(string) {})
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.True(t, whole)
}

func TestDirectoriesStayInsideTheInstance(t *testing.T) {
	proc := t.TempDir()
	root := filepath.Join(proc, "7", "root")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "data"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "wal"), 0o700))
	// Absolute inside the instance: from outside it leads nowhere.
	require.NoError(t, os.Symlink("/wal", filepath.Join(root, "data", "pg_wal")))
	in := &state.Instance{MainPID: 7, DataDir: "/data", Engine: state.PostgreSQL}
	found, err := readDirectories(proc, in)
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, "data", found[0].Name)
	require.Equal(t, "log", found[1].Name)
	require.Equal(t, "/data/pg_wal", found[1].Path)
	require.Positive(t, found[1].SizeBytes)

	in.Engine = state.MariaDB
	found, err = readDirectories(proc, in)
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, "/data", found[1].Path, "no directory of its own for the redo log")

	require.NoError(t, os.Remove(filepath.Join(root, "data", "pg_wal")))
	require.NoError(t, os.Symlink("../../../../../../../../../../proc", filepath.Join(root, "data", "pg_wal")))
	in.Engine = state.PostgreSQL
	found, err = readDirectories(proc, in)
	require.NoError(t, err)
	require.Len(t, found, 1, "a link out of the root ends inside it, where there is no such directory")

	in.MainPID = 8
	found, err = readDirectories(proc, in)
	require.NoError(t, err)
	require.Empty(t, found)
}

func TestConnectionsOfAPort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	server, err := l.Accept()
	require.NoError(t, err)
	defer server.Close()
	_, err = server.Write([]byte("x"))
	require.NoError(t, err)
	_, err = client.Read(make([]byte, 1))
	require.NoError(t, err)

	s := NewSurveyor("/proc")
	in := &state.Instance{MainPID: os.Getpid(), HostNetwork: true, Ports: []uint16{uint16(l.Addr().(*net.TCPAddr).Port)}}
	k := &surveyed{}
	c, err := s.connections(in, k)
	require.NoError(t, err)
	require.Equal(t, 1, c.Count, "the server's end, and neither the listener nor the client's")
	require.Positive(t, c.MeanRoundTrip)
	require.Equal(t, c.MeanRoundTrip, c.MaxRoundTrip)
	require.Less(t, c.MaxRoundTrip, 10*time.Second)
}

func TestRetransmissionsAddUpOverSurveys(t *testing.T) {
	k := &surveyed{}
	require.Zero(t, k.summarise([]socket{{cookie: 1, retransmitted: 2}}).Retransmissions, "what was before the first survey is not of our time")
	require.Equal(t, int64(4), k.summarise([]socket{{cookie: 1, retransmitted: 3}, {cookie: 2, retransmitted: 3}}).Retransmissions)
	require.Equal(t, int64(6), k.summarise([]socket{{cookie: 1, retransmitted: 5}}).Retransmissions)
	c := k.summarise([]socket{{cookie: 1, retransmitted: 5, roundTrip: 4, unacked: 1}, {cookie: 9, retransmitted: 1, roundTrip: 2, unacked: 2}})
	require.Equal(t, &state.Connections{Count: 2, MeanRoundTrip: 3, MaxRoundTrip: 4, Unacknowledged: 3, Retransmissions: 7}, c)
}

func TestSurveyThatHangsHoldsUpItselfAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSurveyor("testdata/proc")
		hang := make(chan struct{})
		surveys := map[string]int{}
		s.look = func(in *state.Instance, _ *surveyed) *state.Survey {
			if in.ID == "hung" {
				<-hang
			}
			s.mu.Lock()
			surveys[in.ID]++
			s.mu.Unlock()
			if in.ID == "broken" {
				panic("no such thing")
			}
			return &state.Survey{Time: s.now()}
		}
		ids := []string{"hung", "broken", "a", "b", "c", "d"}
		tick := func() {
			for _, id := range ids {
				s.Latest(&state.Instance{ID: id})
			}
			synctest.Wait()
		}
		tick()
		require.Equal(t, map[string]int{"broken": 1, "a": 1, "b": 1}, surveys, "four at once")
		tick()
		require.Equal(t, 1, surveys["d"])
		tick()
		require.Equal(t, 1, surveys["a"], "not due yet")
		time.Sleep(surveyEvery)
		tick()
		tick()
		require.Equal(t, map[string]int{"broken": 2, "a": 2, "b": 2, "c": 2, "d": 2}, surveys)
		require.Nil(t, s.Latest(&state.Instance{ID: "hung"}))
		require.Contains(t, s.Latest(&state.Instance{ID: "broken"}).Err, "no such thing")
		close(hang)
		synctest.Wait()
		require.NotNil(t, s.Latest(&state.Instance{ID: "hung"}))
		synctest.Wait()
		s.Begin([]state.Instance{{ID: "a"}})
		require.Len(t, s.kept, 1)
	})
}

func TestAnInstanceThatComesBackHasNoSecondSurvey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSurveyor("testdata/proc")
		hang := make(chan struct{})
		surveys := 0
		s.look = func(in *state.Instance, _ *surveyed) *state.Survey {
			s.mu.Lock()
			surveys++
			s.mu.Unlock()
			<-hang
			return &state.Survey{Time: s.now()}
		}
		in := []state.Instance{{ID: "a"}}
		for range 5 {
			s.Begin(in)
			require.Nil(t, s.Latest(&in[0]))
			synctest.Wait()
			s.Begin(nil)
			time.Sleep(5 * time.Minute)
		}
		require.Equal(t, 1, surveys, "one that hangs, however often its instance comes back")
		close(hang)
		synctest.Wait()
		s.Begin(in)
		require.Nil(t, s.Latest(&in[0]), "what hung was of another instance of that name")
		synctest.Wait()
		require.NotNil(t, s.Latest(&in[0]))
		require.Equal(t, 2, surveys)
		s.Begin(nil)
		require.Empty(t, s.kept)
	})
}

func TestEnginesKeepTheirLogsWhereTheirRelativesDo(t *testing.T) {
	same := map[state.Engine]state.Engine{state.OpenGauss: state.PostgreSQL, state.MariaDB: state.MySQL, state.Percona: state.MySQL, state.Valkey: state.Redis}
	for _, f := range state.Engines() {
		found := directories(f.Engine)
		require.Equal(t, "data", found[0].name, f.Engine)
		if as, ok := same[f.Engine]; ok {
			require.Equal(t, directories(as), found, f.Engine)
			require.Len(t, found, 2, f.Engine)
		} else if state.Engine(f.Wire) != f.Engine {
			require.Len(t, found, 1, "%s has a storage of its own", f.Engine)
		}
	}
}

func TestDescriptorsThatCannotBeListedAreNotAllThereAre(t *testing.T) {
	proc := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(proc, "7"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(proc, "7/fd"), nil, 0o600))
	found, err := readDescriptors(proc, []int{7})
	require.Error(t, err)
	require.False(t, found.complete)
}

func TestSurveyOfThisProcess(t *testing.T) {
	dir, err := os.Getwd()
	require.NoError(t, err)
	s := NewSurveyor("/proc")
	got := s.survey(&state.Instance{MainPID: os.Getpid(), PIDs: []int{os.Getpid()}, DataDir: dir, HostNetwork: true}, &surveyed{})
	require.Empty(t, got.Err)
	require.True(t, got.Complete)
	require.Positive(t, got.Fullest.Open)
	require.Positive(t, got.Fullest.Limit)
	require.Len(t, got.Directories, 1)
}
