// Command carrel-worker is the jailed half of carrel: spawner, worker and tool
// host. The orchestrator starts it. Started by hand, without arguments, it makes
// a throw-away sandbox and speaks JSON-RPC over stdin and stdout from inside it.
package main

import (
	"context"
	"os"

	"carrel/internal/worker"
)

func main() {
	os.Exit(worker.Main(context.Background(), os.Args[1:], os.Stderr))
}
