package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// sample is a file with five records, one of them closed, and the open records
// after each of its lines.
func sample() (file []byte, ends []int, after [][]Record) {
	entries := []entry{
		{op: opOpen, id: "a", data: []byte("1")},
		{op: opOpen, id: "b", data: []byte("{\"x\":\"\\n\"}")},
		{op: opClose, id: "a"},
		{op: opOpen, id: "c", data: nil},
		{op: opOpen, id: "b", data: []byte("22")},
	}
	for i, e := range entries {
		file = appendLine(file, e)
		ends = append(ends, len(file))
		after = append(after, replay(entries[:i+1]))
	}
	return file, ends, after
}

func openFile(t *testing.T, content []byte) (*Journal, string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "journal"), content, 0o600))
	return mustOpen(t, dir), dir
}

func TestAFileCutAtAnyByteKeepsTheCompleteRecords(t *testing.T) {
	file, ends, after := sample()
	for cut := range len(file) + 1 {
		whole := 0 // lines whose record is complete, line break or not
		boundary := cut == 0
		for i, end := range ends {
			if cut >= end-1 {
				whole = i + 1
			}
			boundary = boundary || cut == end
		}
		want := []Record{}
		if whole > 0 {
			want = after[whole-1]
		}
		j, dir := openFile(t, file[:cut])
		got, err := j.Records()
		require.NoError(t, err)
		require.Equal(t, len(want), len(got), "cut at %d", cut)
		for i := range want {
			require.Equal(t, want[i].ID, got[i].ID, "cut at %d", cut)
			require.True(t, bytes.Equal(want[i].Data, got[i].Data), "cut at %d", cut)
		}
		if boundary {
			require.Empty(t, j.Damage(), "cut at %d", cut)
			require.Empty(t, asideFiles(t, dir))
		} else {
			require.Contains(t, j.Damage(), "journal.damaged-", "cut at %d", cut)
			kept := asideFiles(t, dir)
			require.Len(t, kept, 1)
			b, err := os.ReadFile(kept[0])
			require.NoError(t, err)
			require.Equal(t, file[:cut], b, "what was found is kept as it was")
		}
		require.NoError(t, j.Append("next", []byte("n")))
		require.NoError(t, j.Close())
		again := mustOpen(t, dir)
		require.Empty(t, again.Damage(), "damage is reported once")
		require.Len(t, ids(t, again), len(want)+1)
	}
}

func TestAFlippedBitCostsAtMostOneLine(t *testing.T) {
	file, ends, _ := sample()
	entries, bad := parse(file)
	require.Zero(t, bad)
	for bit := range len(file) * 8 {
		flipped := bytes.Clone(file)
		flipped[bit/8] ^= 1 << (bit % 8)
		line := 0
		for bit/8 >= ends[line] {
			line++
		}
		got, bad := parse(flipped)
		require.NotZero(t, bad, "bit %d", bit)
		want := append(append([]entry{}, entries[:line]...), entries[line+1:]...)
		if bit/8 == ends[line]-1 {
			want = entries // only the line break was hit
		}
		require.Equal(t, want, got, "bit %d", bit)
	}
}

func TestDamage(t *testing.T) {
	file, _, _ := sample()
	t.Run("the sentence names the file and the number of records", func(t *testing.T) {
		j, dir := openFile(t, append(bytes.Clone(file), "rubbish"...))
		kept := asideFiles(t, dir)
		require.Len(t, kept, 1)
		require.Equal(t, "the journal was damaged (unreadable places: 1), open records saved: 2; the damaged file is kept as "+kept[0], j.Damage())
	})
	t.Run("a file of zeros has no records", func(t *testing.T) {
		j, _ := openFile(t, make([]byte, 4096))
		require.Empty(t, ids(t, j))
		require.Contains(t, j.Damage(), "open records saved: 0")
	})
	t.Run("zeros after the last record cost nothing", func(t *testing.T) {
		j, _ := openFile(t, append(bytes.Clone(file), make([]byte, 100)...))
		require.Equal(t, []string{"b=22", "c="}, ids(t, j))
	})
	t.Run("something that is no file does not stop a start", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "journal"), 0o700))
		j := mustOpen(t, dir)
		require.Contains(t, j.Damage(), "is a directory")
		require.NoError(t, j.Append("a", []byte("1")), "the directory was moved aside")
	})
}

func FuzzParse(f *testing.F) {
	file, _, _ := sample()
	f.Add(file)
	f.Add(file[:len(file)-3])
	f.Add([]byte("00000005 00000000 + \"x\"\n"))
	f.Add([]byte("\n\n"))
	f.Add([]byte("ffffffff ffffffff "))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, unreadable := parse(data)
		var again []byte
		for _, e := range entries {
			require.NotEmpty(t, e.id)
			again = appendLine(again, e)
		}
		if unreadable == 0 {
			require.Equal(t, string(data), string(again), "a sound file is what its entries write")
		}
		back, bad := parse(again)
		require.Zero(t, bad)
		require.Equal(t, entries, back)
		_ = replay(entries)
		// Whatever stands before it, a line on its own is found again.
		tail := entry{op: opOpen, id: "tail", data: data}
		found, _ := parse(appendLine(append(bytes.Clone(data), '\n'), tail))
		require.NotEmpty(t, found)
		last := found[len(found)-1]
		require.Equal(t, tail.id, last.id)
		require.Equal(t, string(data), string(last.data))
	})
}
