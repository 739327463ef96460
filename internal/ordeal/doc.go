// Package ordeal drives the built programs from outside, as an operator and many
// users would, and looks at what the machine holds before and after. Its own tests
// are the ordeals: a storm of kills, a load, a house full of idle sandboxes, bombs.
// The end-to-end tests of cmd/carrel use the same daemon.
//
// Each ordeal has a short form, which is part of the gate, and a long one by hand:
// make test-crash, test-load, test-idle. The two differ in numbers alone, which the
// CARREL_TEST_ variables named beside each give.
package ordeal
