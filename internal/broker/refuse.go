package broker

import (
	"encoding/json"
	"net/http"

	"carrel/internal/door"
	"carrel/protocol"
)

// refusal is an answer of the broker itself, in the form in which the Messages API
// tells errors, so that its clients can read it.
type refusal struct {
	status  int
	kind    string // one of the API's error types
	message string
	code    protocol.Code // "" = none
	retry   bool          // the same request may succeed later
	reason  Refusal
}

// Refusal is why a request was not let out.
type Refusal string

// The reasons.
const (
	NotAllowed  Refusal = "not_allowed" // its method and target are not on the list
	TooLarge    Refusal = "too_large"
	NoRun       Refusal = "no_run" // of a run that is not going
	OverBudget  Refusal = "budget"
	Unavailable Refusal = "unavailable" // the broker closes, or its ledger gives no answer
)

// Refusals lists them all.
func Refusals() []Refusal { return []Refusal{NotAllowed, TooLarge, NoRun, OverBudget, Unavailable} }

// forbid refuses what is not allowed, for good.
func forbid(reason Refusal, message string) *refusal {
	return &refusal{status: http.StatusForbidden, kind: "permission_error", message: message, reason: reason}
}

// overBudget is no 429: clients try that again by themselves, and this stays so.
func overBudget(why string) *refusal {
	return &refusal{
		status: http.StatusForbidden, kind: "permission_error", message: "budget exceeded: " + why, code: protocol.CodeBudgetExceeded,
		reason: OverBudget,
	}
}

func tooLarge() *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, kind: "request_too_large", message: "the request is larger than 32 MiB", reason: TooLarge}
}

func unavailable(message string) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, kind: "api_error", message: message, retry: true, reason: Unavailable}
}

// unreached is an upstream that gave no answer.
func unreached(timedOut bool) *refusal {
	if timedOut {
		return &refusal{status: http.StatusGatewayTimeout, kind: "timeout_error", message: "the model API did not answer in time", retry: true}
	}
	return &refusal{status: http.StatusBadGateway, kind: "api_error", message: "the model API could not be reached", retry: true}
}

func (f *refusal) write(w http.ResponseWriter) {
	type apiError struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Type  string   `json:"type"`
		Error apiError `json:"error"`
	}{"error", apiError{f.kind, "carrel: " + f.message}})
	if err != nil {
		panic(err) // strings alone
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if f.code != "" {
		h.Set(door.CodeHeader, string(f.code))
	}
	if !f.retry {
		h.Set("X-Should-Retry", "false") // which the official clients obey
	}
	w.WriteHeader(f.status)
	_, _ = w.Write(body)
}
