// Package keyring knows the API keys of the daemon: the file that holds them, how
// it is edited, and whose a presented key is.
//
// No key is kept, only its SHA-256. A key that [Add] makes has 256 bits of chance,
// so that its hash needs neither salt nor slowness: there is nothing to guess.
// Nothing here prints a hash, nor any part of a line that might be a key.
//
// It starts no goroutine.
package keyring
