package bpf

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Texts of one hash count under one digest without the agent having read each, so
// only such may have one that differ in numbers and nothing else.
func TestTextHash(t *testing.T) {
	hash := func(text string) uint64 { return textHash([]byte(text), uint32(len(text)), false) }
	same := [][2]string{
		{"SELECT a FROM t WHERE id = 12345", "SELECT a FROM t WHERE id = 67890"},
		{"SELECT a FROM t WHERE id=1;", "SELECT a FROM t WHERE id=7;"},
		{"UPDATE t SET a = a + -1234 WHERE b = 5", "UPDATE t SET a = a + -9876 WHERE b = 6"},
		{"INSERT INTO t VALUES (1, 22, 333, 4444444444444, 5)", "INSERT INTO t VALUES (9, 88, 777, 1231231231231, 0)"},
		{"SELECT '2024-01-02'", "SELECT '1999-12-31'"},
		{"SELECT \"a\" FROM \"t\" WHERE \"id\" = 5", "SELECT \"a\" FROM \"t\" WHERE \"id\" = 6"},
	}
	for _, pair := range same {
		require.Equal(t, hash(pair[0]), hash(pair[1]), "%q", pair)
		require.NotEqual(t, textHash([]byte(pair[0]), 1, true), textHash([]byte(pair[1]), 1, true), "plain %q", pair)
	}
	for _, pair := range [][2]string{
		{"SELECT a FROM t1", "SELECT a FROM t2"},
		{"SELECT a FROM t_1 ", "SELECT a FROM t_2 "},
		{"SELECT $1 FROM t", "SELECT $2 FROM t"},
		{"SELECT a FROM 2023_sales", "SELECT a FROM 2024_sales"},
		{"SELECT a FROM 12345678_sales", "SELECT a FROM 12345679_sales"},
		{"SELECT a FROM 1234567890123456789_sales", "SELECT a FROM 1234567890123456780_sales"},
		{"SELECT a FROM \"2023\"", "SELECT a FROM \"2024\""},
		{"SELECT a FROM \"log-2023-1\"", "SELECT a FROM \"log-2024-1\""},
		{"SELECT a FROM `x 2023 y`", "SELECT a FROM `x 2024 y`"},
		{"SELECT a FROM db.1", "SELECT a FROM db.2"},
		{"SELECT 1", "SELECT 12"}, // only their agent knows that these are alike
	} {
		for pad := range 8 { // each place in a word
			blanks := strings.Repeat(" ", pad)
			require.NotEqual(t, hash(blanks+pair[0]), hash(blanks+pair[1]), "%q", pair)
		}
	}
}

func TestTextHashDependsOnLength(t *testing.T) {
	require.NotEqual(t, textHash([]byte("SELECT"), 6, false), textHash([]byte("SELECT"), 7, false))
	require.NotZero(t, textHash(nil, 0, false))
}

// FuzzTextHash checks, for texts that have one hash, that they differ at most in
// digits, at the same places.
func FuzzTextHash(f *testing.F) {
	f.Add([]byte("SELECT a1 FROM t WHERE id = 12345 AND \"b2\" < 7"), []byte("0918273645"))
	f.Fuzz(func(t *testing.T, text, other []byte) {
		if len(text) > 512 || len(other) == 0 {
			return
		}
		changed := append([]byte(nil), text...)
		j := 0
		for i := range changed {
			if changed[i] >= '0' && changed[i] <= '9' {
				changed[i] = '0' + other[j%len(other)]%10
				j++
			}
		}
		if textHash(text, uint32(len(text)), false) != textHash(changed, uint32(len(text)), false) {
			return
		}
		for i := range text {
			if text[i] != changed[i] && i > 0 {
				require.NotContains(t, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_$@#.:", string(text[i-1]), "%q and %q", text, changed)
			}
		}
	})
}
