// Command attacker is package attack as a program of its own: small, and quicker to
// start than carrel, which is one as well.
package main

import (
	"fmt"
	"os"
	"runtime"

	"carrel/internal/jail/attack"
)

// As in carrel-worker: the process leader is no other goroutine's thread.
func init() { runtime.LockOSThread() }

func main() {
	if err := attack.Main(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}
