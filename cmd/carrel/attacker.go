package main

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"carrel/internal/jail/attack"
)

// carrel is an attacker too, for its own self-test: so that an operator needs no
// further program, and what is tried is what was installed.

// As in carrel-worker: in a worker's place, the process leader is no other
// goroutine's thread.
func init() {
	if attack.IsMode(os.Args[1:]) {
		runtime.LockOSThread()
	}
}

func beAttacker(args []string, stderr io.Writer) int {
	if err := attack.Main(args); err != nil {
		fmt.Fprintln(stderr, "carrel:", err)
		return 1
	}
	return 0
}
