// Command carrel-worker is the jailed half of carrel: spawner, worker and tool
// host. The orchestrator starts it. Started by hand, without arguments, it makes
// a throw-away sandbox and speaks JSON-RPC over stdin and stdout from inside it.
package main

import (
	"context"
	"os"
	"runtime"

	"carrel/internal/worker"
)

// init, and not main, is where Go promises the main thread to the main goroutine for
// good ("All init functions are run on the startup thread", package runtime): between
// the two the scheduler may move it. Why it has to be there: worker.Main.
func init() { runtime.LockOSThread() }

func main() {
	os.Exit(worker.Main(context.Background(), os.Args[1:], nil, os.Stderr))
}
