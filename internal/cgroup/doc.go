// Package cgroup bounds one sandbox, worker and tools together, in memory, tasks
// and CPU time, and ends it whole. [Detect] says what this host gives to this
// process, [Open] makes the one group everything stands in, [Cgroups.New] a group
// of one sandbox.
//
//	v1: <mount of the controller>/          v2: <the group that is ours to divide>/
//	    carrel-<hash of the base dir>/          carrel-<hash of the base dir>/
//	        <id>/   memory.limit_in_bytes           daemon/  this process, if delegated
//	        <id>/   …                               <id>/    memory.max, pids.max, cpu.max
//
// What is written where:
//
//   - Everything is made beneath our own group, through a descriptor of it, and
//     only what stands there is ever killed or removed. A lock on the group
//     (flock) keeps a second daemon of the same base directory from sweeping it.
//   - On v2 the controllers have to be enabled in cgroup.subtree_control of the
//     group above ours. That is the one file written outside, and only to enable
//     controllers which cgroup.controllers offers there.
//   - A v2 group that has controllers enabled for its children may hold no process
//     itself (cgroup-v2.rst, "No Internal Process Constraint"), but for the root of
//     the hierarchy. In a delegated group this process, with its children, therefore
//     moves to the leaf daemon/ first, and back in [Cgroups.Close].
//
// Which v2 group is divided: this process's own, if it is writable, holds only this
// process and its children, and offers controllers: what bounds the daemon (its
// systemd unit) then bounds its sandboxes too. Else the top of the mount, which
// only root may write; also where it offers more controllers. A v1 group is made at
// the top of each mount: v1 knows no safe delegation, and there a later start
// always finds what an earlier one left.
//
// How a process comes into a group: on v2 by CLONE_INTO_CGROUP ([Group.Dir]), so
// that it was never outside; on v1 by [Group.Attach] while it waits at a gate. On a
// host with both (v1 controllers, v2 mounted without any) both are done: v2 then
// gives a kill that no fork can outrun, and the CPU time.
//
// Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst of Linux.
package cgroup
