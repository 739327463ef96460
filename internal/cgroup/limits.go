package cgroup

import (
	"fmt"
	"strconv"
	"time"
)

// Limits bound one sandbox in sum. 0 means: not bounded.
type Limits struct {
	MemoryBytes int64   // without swap: there is none for a sandbox
	CPUs        float64 // CPU seconds a second
	PIDs        int64   // tasks: threads count
}

// Usage is what a group uses now. A figure that the host does not tell is 0.
type Usage struct {
	// MemoryBytes is the working set: what is charged to the group less the file
	// pages that were not used lately. Those the kernel gives up first and without
	// harm, so counting them would make every sandbox that read much look full.
	// Kubernetes' kubelet measures the same.
	MemoryBytes int64
	CPU         time.Duration
}

// cpuPeriod is over what the CPU quota is counted, the kernel's default
// (sched-bwc.rst); minQuota is the smallest it takes.
const (
	cpuPeriod = 100 * time.Millisecond
	minQuota  = time.Millisecond
	maxCPUs   = 1 << 20 // keeps the quota far from the end of its number
)

func (l Limits) validate() error {
	switch {
	case l.MemoryBytes < 0:
		return fmt.Errorf("memory limit %d is below 0", l.MemoryBytes)
	case l.PIDs < 0:
		return fmt.Errorf("pids limit %d is below 0", l.PIDs)
	case l.CPUs == 0:
		return nil
	case !(l.CPUs > 0 && l.CPUs <= maxCPUs), l.quota() < minQuota: // NaN is neither
		return fmt.Errorf("CPU limit %v is not between %v and %d", l.CPUs, float64(minQuota)/float64(cpuPeriod), maxCPUs)
	}
	return nil
}

// quota is the CPU time of one period.
func (l Limits) quota() time.Duration { return time.Duration(l.CPUs * float64(cpuPeriod)) }

// setting is one file of a new group.
type setting struct {
	file, value string
	optional    bool // not every kernel has it
}

// settings are what a new group's files get, in this order.
func (l Limits) settings(version int, controller string) []setting {
	switch controller {
	case Memory:
		return l.memory(version)
	case PIDs:
		if l.PIDs > 0 {
			return []setting{{file: "pids.max", value: strconv.FormatInt(l.PIDs, 10)}}
		}
	case CPU:
		quota := strconv.FormatInt(l.quota().Microseconds(), 10)
		period := strconv.FormatInt(cpuPeriod.Microseconds(), 10)
		switch {
		case l.CPUs == 0:
		case version == 2:
			return []setting{{file: "cpu.max", value: quota + " " + period}}
		default:
			return []setting{{file: "cpu.cfs_period_us", value: period}, {file: "cpu.cfs_quota_us", value: quota}}
		}
	}
	return nil
}

func (l Limits) memory(version int) []setting {
	limit := strconv.FormatInt(l.MemoryBytes, 10)
	if version == 1 {
		if l.MemoryBytes == 0 {
			return nil
		}
		return []setting{
			{file: "memory.limit_in_bytes", value: limit},
			// Memory and swap together, and never below the former. Not there
			// where swap is not accounted for.
			{file: "memory.memsw.limit_in_bytes", value: limit, optional: true},
		}
	}
	if l.MemoryBytes == 0 {
		return nil
	}
	// memory.oom.group stays 0, as v1 has it: the kernel then kills the largest
	// process, a command of the agent's, and the agent can go on. Where no process is
	// large, /tmp is what fills the sandbox, the largest is the worker, and /tmp ends
	// with it.
	return []setting{
		{file: "memory.max", value: limit},
		{file: "memory.swap.max", value: "0", optional: true}, // not there without CONFIG_SWAP
	}
}
