// Package bench measures carrel beside what people use today, in one run on one
// machine: `make bench` (docs/performance.md has the figures). The cases take turns in
// each round, so that ratios mean something where the machine is noisy; single figures
// say little. All of carrel's isolation is on, and its events are stored.
//
// In the gate a short form runs, which shows that the cases work, and judges nothing.
package bench
