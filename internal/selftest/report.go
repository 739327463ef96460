package selftest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"carrel/internal/jail/attack"
	"carrel/protocol"
)

// Outcome is what became of one row.
type Outcome string

// The outcomes.
const (
	Held   Outcome = "held"
	Broken Outcome = "broken" // the attack succeeded, or left no result to go by
	// NotApplicable: the row proves nothing here, since its control did not succeed.
	NotApplicable Outcome = "not_applicable"
)

// What became of a row's control.
const (
	controlSucceeded = "succeeded"
	controlFailed    = "failed"
)

// Verdict is one row of a report.
type Verdict struct {
	ID        string      `json:"id"`
	Group     string      `json:"group"`
	Tier      attack.Tier `json:"tier"`
	Title     string      `json:"title"`
	Result    Outcome     `json:"result"`
	Control   string      `json:"control"` // "succeeded" or "failed"
	StoppedBy []string    `json:"stopped_by"`
	Detail    string      `json:"detail,omitempty"` // what the kernel said, or why it is not applicable
	// Documented: it broke, as it must where the layers are missing that this report
	// says are missing.
	Documented bool `json:"documented,omitempty"`
	// Unproven: the control failed although this machine seems to have what the row
	// is about. What holds inside may hold for another reason.
	Unproven bool `json:"unproven,omitempty"`
}

// Report is what a whole self-test found.
type Report struct {
	Kernel        string           `json:"kernel"`
	Root          bool             `json:"root"`
	Layers        []protocol.Layer `json:"layers"`
	Rows          []Verdict        `json:"rows"`
	Held          int              `json:"held"`
	Broken        int              `json:"broken"`
	NotApplicable int              `json:"not_applicable"`
	// Hash is SHA-256, in hex, of this report as JSON with an empty hash: two
	// reports with the same hash say the same.
	Hash string `json:"hash"`
}

// NewReport counts verdicts under the isolation they were reached on.
func NewReport(isolation protocol.IsolationReport, rows []Verdict) (*Report, error) {
	r := &Report{Kernel: isolation.Kernel, Root: isolation.Root, Layers: isolation.Layers, Rows: rows}
	for _, v := range rows {
		switch v.Result {
		case Held:
			r.Held++
		case Broken:
			r.Broken++
		case NotApplicable:
			r.NotApplicable++
		}
	}
	content, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	r.Hash = hex.EncodeToString(sum[:])
	return r, nil
}
