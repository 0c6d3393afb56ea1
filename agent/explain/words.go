package explain

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// duration writes three digits at most.
func duration(d time.Duration) string {
	s := d.Seconds()
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int64(d.Hours()), int64(d.Minutes())%60)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm%02ds", int64(d.Minutes()), int64(s)%60)
	case d >= time.Second:
		return digits(s) + " s"
	case d >= time.Millisecond:
		return digits(s*1e3) + " ms"
	}
	return digits(s*1e6) + " µs"
}

// digits writes at most three of them.
func digits(f float64) string {
	decimals := 0
	switch a := math.Abs(f); {
	case a == 0 || math.IsNaN(f) || math.IsInf(f, 0):
	case a < 9.995:
		decimals = 2
	case a < 99.95:
		decimals = 1
	}
	s := fmt.Sprintf("%.*f", decimals, f)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func percent(share float64) string { return digits(share*100) + " %" }

// rate writes something per second.
func rate(f float64) string { return digits(f) + "/s" }

// bytes writes sizes as Kubernetes does.
func bytes(b int64) string {
	const units = "KMGTPE"
	f, unit := float64(b), ""
	for i := 0; f >= 1024 && i < len(units); i++ {
		f, unit = f/1024, units[i:i+1]+"i"
	}
	return digits(f) + unit + "B"
}

// cores writes a number of CPUs.
func cores(f float64) string {
	if f == 1 {
		return "1 core"
	}
	return digits(f) + " cores"
}
