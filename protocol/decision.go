package protocol

// DecidedParams tells the host what was decided of an agent's use of a tool, and by
// whom. The rules and hooks are obeyed by the worker, so this is its word; what a person
// or a webhook has said the host knows itself.
type DecidedParams struct {
	RunID    string    `json:"run_id"`
	CallID   string    `json:"call_id,omitempty"`
	Tool     string    `json:"tool"`
	Decision string    `json:"decision"` // Allow or Deny
	By       DecidedBy `json:"by"`
	// Rule is the rule's text, the hook's number or the mode's name.
	Rule string `json:"rule,omitempty"`
	// Input is the beginning of the call's.
	Input string `json:"input,omitempty"`
}

// DecidedBy is who has decided on a tool.
type DecidedBy string

// Who there is.
const (
	ByRule    DecidedBy = "rule"
	ByDefault DecidedBy = "default" // no rule is about it
	ByMode    DecidedBy = "mode"    // permission_mode
	ByHook    DecidedBy = "hook"
	ByPerson  DecidedBy = "person" // or by the time that was up: see the run's approval
	ByDoubt   DecidedBy = "doubt"  // it could not be judged, or nobody could be asked: denied
)

// MaxDecidedInputBytes bounds the input that goes with a decision.
const MaxDecidedInputBytes = 4 << 10

// Fault reports what is wrong with a decision that came from a worker; "" = nothing.
func (p *DecidedParams) Fault() string {
	switch longest := max(len(p.CallID), len(p.Tool), len(p.By), len(p.Rule)); {
	case p.Decision != Allow && p.Decision != Deny:
		return "its decision is none"
	case longest > MaxDenialBytes, len(p.Input) > MaxDecidedInputBytes:
		return "a text of it is too long"
	}
	return ""
}
