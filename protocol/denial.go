package protocol

// Denial is something that the sandbox has denied a tool or a command.
type Denial struct {
	Layer string `json:"layer"` // "landlock", "mount-namespace", "network-namespace", "limits", …
	Rule  string `json:"rule"`  // which of the layer's: "read-only", "tcp", "processes", …
	// Target is the path or address it was about, where one is known.
	Target string `json:"target,omitempty"`
	// Inferred tells that it was read out of what a command has printed, and is likely
	// rather than certain.
	Inferred bool `json:"inferred,omitempty"`
	// Text says it in one line. It does not go to the host.
	Text string `json:"text,omitempty"`
}

// TooLong reports whether a text of a denial is past its bound.
func (d *Denial) TooLong() bool {
	return max(len(d.Layer), len(d.Rule), len(d.Target)) > MaxDenialBytes
}

// MaxDenialBytes bounds each text of a denial that goes to the host.
const MaxDenialBytes = 512

// DeniedParams tells the host of a denial in a run or in an exec: one of the ids is
// set. It is the worker's word, for the operator to know of; nothing hangs on it.
type DeniedParams struct {
	RunID  string `json:"run_id,omitempty"`
	ExecID string `json:"exec_id,omitempty"`
	Denial
}
