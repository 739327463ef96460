package protocol

// ProblemMediaType is the content type of a [Problem] (RFC 9457 §3).
const ProblemMediaType = "application/problem+json"

// Problem is an error answer of the HTTP API (RFC 9457 §3.1), with our code.
type Problem struct {
	Type       string  `json:"type"` // always "about:blank": the code says it
	Title      string  `json:"title"`
	Status     int     `json:"status"`
	Detail     string  `json:"detail"`
	Code       Code    `json:"code"`
	RetryAfter float64 `json:"retry_after_s,omitempty"`
	RunID      string  `json:"run_id,omitempty"` // of the run that ended so
}
