package v1alpha1

import (
	"fmt"
	"time"
)

// Duration is a time such as "90s", as text. It is for fields whose definition
// once took any text: an object with one that is no duration must still be read,
// or else no object of its kind can be, in the whole cluster.
type Duration string

// DurationOf writes d as text.
func DurationOf(d time.Duration) Duration { return Duration(d.String()) }

// Parse returns the duration, 0 for an empty text. The error quotes a text that is
// none.
func (d Duration) Parse() (time.Duration, error) {
	if d == "" {
		return 0, nil
	}
	t, err := time.ParseDuration(string(d))
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 90s", string(d))
	}
	return t, nil
}
