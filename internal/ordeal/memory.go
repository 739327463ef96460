package ordeal

import (
	"os"
	"testing"
)

// Memory is what the machine's memory is used for, in bytes (proc_meminfo(5)).
type Memory struct {
	Unavailable                         int64 // MemAvailable, negated
	Slab, Tables, Stacks, PerCPU, Shmem int64
}

// Measure reads it.
func Measure(t testing.TB) Memory {
	t.Helper()
	read := func(name string) int64 {
		f, err := os.Open("/proc/meminfo")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		bytes, err := field(f, name+":")
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	return Memory{
		Unavailable: -read("MemAvailable"),
		Slab:        read("SUnreclaim"), Tables: read("PageTables"), Stacks: read("KernelStack"),
		PerCPU: read("Percpu"), Shmem: read("Shmem"),
	}
}

// Since is what came to it since another measurement.
func (m Memory) Since(b Memory) Memory {
	return Memory{m.Unavailable - b.Unavailable, m.Slab - b.Slab, m.Tables - b.Tables, m.Stacks - b.Stacks, m.PerCPU - b.PerCPU, m.Shmem - b.Shmem}
}

// Kernel is what no process's own memory holds.
func (m Memory) Kernel() int64 { return m.Slab + m.Tables + m.Stacks + m.PerCPU + m.Shmem }
