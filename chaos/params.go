package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// params reads the parameters of one fault and collects what is wrong with
// them, so that a user is told everything at once. After an error the value
// returned is of no use.
type params struct {
	kind   string
	values map[string]string
	errs   []error
}

// newParams fills in defaults and finds unknown and missing parameters.
func newParams(k Kind, given map[string]string) *params {
	p := &params{kind: k.Name, values: map[string]string{}}
	var known []string
	for _, d := range k.Params {
		known = append(known, d.Name)
		value, ok := given[d.Name]
		switch {
		case ok:
			p.values[d.Name] = value
		case d.Required:
			p.errs = append(p.errs, fmt.Errorf("%s needs the parameter %q (%s), for example %s=%s", k.Name, d.Name, d.Help, d.Name, d.Example))
		default:
			p.values[d.Name] = d.Default
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch {
		case slices.Contains(known, name):
		case len(known) == 0:
			p.errs = append(p.errs, fmt.Errorf("unknown parameter %q: %s takes none", name, k.Name))
		default:
			p.errs = append(p.errs, fmt.Errorf("unknown parameter %q: %s takes %s", name, k.Name, strings.Join(known, ", ")))
		}
	}
	return p
}

// malformed notes that the value of name is not what form asks for.
func (p *params) malformed(name, form string) {
	p.errs = append(p.errs, fmt.Errorf("parameter %q of %s is %q: want %s", name, p.kind, p.values[name], form))
}

// duration reads a duration from low to high.
func (p *params) duration(name string, low, high time.Duration) time.Duration {
	value, ok := p.values[name]
	if !ok {
		return 0 // missing, which was noted
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < low || d > high {
		p.malformed(name, fmt.Sprintf("a duration such as 100ms, from %v to %v", low, high))
		return 0
	}
	return d
}

// decimals is how many digits after the point a percentage may have: with four
// the smallest is one in a million.
const decimals = 4

// percent reads a percentage above 0 and up to 100 as parts per million.
func (p *params) percent(name string) uint32 {
	value, ok := p.values[name]
	if !ok {
		return 0
	}
	whole, fraction, _ := strings.Cut(value, ".")
	digits := whole + fraction + strings.Repeat("0", max(0, decimals-len(fraction)))
	ppm, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || whole == "" || len(fraction) > decimals || strings.HasSuffix(value, ".") || ppm == 0 || ppm > 1_000_000 {
		p.malformed(name, "a percentage such as 10 or 0.5, from 0.0001 to 100")
		return 0
	}
	return uint32(ppm)
}

// choice reads one of the words.
func (p *params) choice(name string, words ...string) string {
	value, ok := p.values[name]
	if ok && !slices.Contains(words, value) {
		p.malformed(name, "one of "+strings.Join(words, ", "))
	}
	return value
}
