package pods

import (
	"bytes"
	"io"
	"os"
	"strings"
)

// maxMounts bounds what is read of one process's mounts, in bytes.
const maxMounts = 1 << 20

// containerName returns the name of the container in which a process of a pod
// runs, "" where it cannot be told.
func (v *view) containerName(pid int, uid string) string {
	f, err := os.Open(v.proc.path(pid, "mountinfo"))
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMounts))
	if err != nil {
		return ""
	}
	return containerInMounts(data, uid)
}

// containerInMounts reads a container's name from /proc/PID/mountinfo, see
// proc(5). The kubelet mounts into each container a file of its own for the
// termination message, <its root>/pods/<uid>/containers/<name>/<hash>; the
// fourth field is that path, as the file system that holds it counts. Mounts
// that name several containers name none.
func containerInMounts(data []byte, uid string) string {
	before := "/pods/" + uid + "/"
	name := ""
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) < 5 || strings.Count(fields[3], before) != 1 {
			continue
		}
		_, rest, _ := strings.Cut(fields[3], before)
		elems := strings.Split(rest, "/")
		if len(elems) != 3 || elems[0] != "containers" || !isPathElement(elems[1]) {
			continue
		}
		if name != "" && name != elems[1] {
			return ""
		}
		name = elems[1]
	}
	return name
}
