// Command e2e is the end-to-end test: a whole Kubernetes with one node in a
// virtual machine, real databases in pods, and Mooring at work on them as an
// operator would install it. It runs as root on the machine of a developer:
//
//	bin/e2e            # the whole story, with figures at the end; `make e2e`
//	bin/e2e check      # the testbed alone: does everything the story uses work?
//	bin/e2e up         # bring the cluster up and keep it until Ctrl-C
//	bin/e2e kubectl get pods -A
//	bin/e2e sh 'cat /sys/fs/cgroup/kubepods/cpu.weight'
//	bin/e2e load       # import freshly built images into the running node
//	bin/e2e env        # how to enter the cluster's network namespace
//
// The last four act on the cluster that is up; -run NAME chooses among several.
// It takes the programs under test, and vmtest, from the folder it lies in and the
// Dockerfile from deploy beside that folder. -logs DIR keeps every log.
//
// It is for development and no part of what ships. It changes nothing on the
// machine: everything runs in a network and mount namespace of the run's own,
// below one folder of the cache, and is gone afterwards however the run ends.
//
// The process that the user starts only makes that namespace, passes signals
// on, and tidies up after the one inside, which does the work.
//
// To add an act, write a method of *stage in a file of its own and a line in
// acts. An act fails by returning an error, which ends the story, or by a figure
// that misses its goal, which does not.
package main
