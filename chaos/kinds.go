package chaos

import (
	"fmt"
	"strings"
)

// Kinds returns all kinds of faults. The slice is the caller's.
func Kinds() []Kind {
	return []Kind{
		netDelay(),
		netLoss(),
		ioError(),
		freeze(),
	}
}

// find returns the kind of that name.
func find(name string) (Kind, error) {
	var known []string
	for _, k := range Kinds() {
		if k.Name == name {
			return k, nil
		}
		known = append(known, k.Name)
	}
	return Kind{}, fmt.Errorf("unknown fault %q: there are %s", name, strings.Join(known, ", "))
}
