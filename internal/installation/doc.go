// Package installation looks at how carrel is installed on this machine: its systemd
// units with their drop-ins, its user, its files' modes, and the settings of the kernel
// that stand before user namespaces. It reads files alone, so it tells the same with and
// without a systemd that runs, and changes nothing.
//
// What the host then really gives a sandbox it does not know: that is the isolation
// report's to say.
package installation
