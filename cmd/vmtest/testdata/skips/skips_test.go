// Package skips is run by the runner's own tests in a guest: a skipped test and
// an oops in the kernel log each have to fail a run that ends with 0.
package skips

import (
	"os"
	"testing"
)

func TestPasses(t *testing.T) {
	t.Run("skips a part", func(t *testing.T) { t.Skip("to be found") })
}

func TestLogsAnOops(t *testing.T) {
	if err := os.WriteFile("/dev/kmsg", []byte("Oops: test\n"), 0); err != nil {
		t.Fatal(err)
	}
}
