package attack

import (
	"fmt"
	"os"
	"runtime"
)

// ModeExhaust is the argument that makes an attacker take all there is of one thing.
const ModeExhaust = "attack-exhaust"

// What [Exhaust] takes.
const (
	Threads     = "threads"
	Memory      = "memory"
	Descriptors = "descriptors"
)

// Exhaust takes more and more of one thing. Where a limit stops it, it returns what
// the kernel said, or Go's own runtime ends the process (exit status 2). It returns
// nil if it had more than any sandbox should have.
func Exhaust(what string) error {
	const (
		tooManyThreads     = 5000 // below the runtime's own limit of 10,000
		tooMuchMemory      = 8 << 30
		tooManyDescriptors = 1 << 20
		chunk              = 16 << 20
	)
	switch what {
	case Threads:
		return takeThreads(tooManyThreads)
	case Memory:
		var all [][]byte
		for range tooMuchMemory / chunk {
			piece := make([]byte, chunk)
			for i := 0; i < chunk; i += os.Getpagesize() {
				piece[i] = 1 // a page that nobody wrote to costs nothing
			}
			all = append(all, piece)
		}
		runtime.KeepAlive(all)
	case Descriptors:
		return takeDescriptors(tooManyDescriptors)
	default:
		return fmt.Errorf("there is no %q to take", what)
	}
	return nil
}

func takeThreads(n int) error {
	for range n {
		running := make(chan struct{})
		go func() { // ends with the process
			runtime.LockOSThread()
			close(running)
			select {}
		}()
		<-running
	}
	return nil
}
