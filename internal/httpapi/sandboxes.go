package httpapi

import (
	"fmt"
	"net/http"

	"carrel/protocol"
)

// exec serves POST /v1/users/{user_id}/exec. Streamed, it sends STDOUT and
// STDERR (protocol.ExecOutput) and at last EXIT (protocol.ExecResult without
// the outputs); these frames have no id, for nothing stores them.
func (a *api) exec(w http.ResponseWriter, r *http.Request) error {
	user, err := userID(r)
	if err != nil {
		return err
	}
	chosen, err := chooseForm(r.Header)
	if err != nil {
		return err
	}
	var req protocol.ExecRequest
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	if err := checkExec(req); err != nil {
		return err
	}
	if chosen == formEvents {
		return a.streamExec(w, r, user, req)
	}
	result, err := a.service.Exec(r.Context(), user, req, nil)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	return a.writeJSON(w, http.StatusOK, result)
}

// streamExec sends the headers with the first output (or the first keep-alive),
// not before: a command that never started is answered with a problem document.
func (a *api) streamExec(w http.ResponseWriter, r *http.Request, user string, req protocol.ExecRequest) error {
	s, ctx := a.openStream(r.Context(), w)
	defer s.close()
	result, err := a.service.Exec(ctx, user, req, func(t protocol.EventType, out protocol.ExecOutput) error {
		return s.frame(t, out)
	})
	if err != nil {
		return s.fail(ctx, fmt.Errorf("exec: %w", err))
	}
	result.Stdout, result.Stderr = "", ""
	return s.frame(protocol.ExecExit, result)
}

// listSandboxes serves GET /v1/sandboxes.
func (a *api) listSandboxes(w http.ResponseWriter, r *http.Request) error {
	live, err := a.service.Sandboxes(r.Context())
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	if live.Sandboxes == nil {
		live.Sandboxes = []protocol.Sandbox{} // an empty list, not null
	}
	return a.writeJSON(w, http.StatusOK, live)
}

// showSandbox serves GET /v1/users/{user_id}/sandbox.
func (a *api) showSandbox(w http.ResponseWriter, r *http.Request) error {
	user, err := userID(r)
	if err != nil {
		return err
	}
	info, err := a.service.Sandbox(r.Context(), user)
	if err != nil {
		return fmt.Errorf("show sandbox: %w", err)
	}
	return a.writeJSON(w, http.StatusOK, info)
}

// retireSandbox serves DELETE /v1/users/{user_id}/sandbox. Since purge removes
// files for good, its value must be exact.
func (a *api) retireSandbox(w http.ResponseWriter, r *http.Request) error {
	user, err := userID(r)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	purge := query.Get("purge")
	if query.Has("purge") && purge != "true" && purge != "false" {
		return invalid("query parameter purge: must be true or false")
	}
	if err := a.service.RetireSandbox(r.Context(), user, purge == "true"); err != nil {
		return fmt.Errorf("retire sandbox: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// showSystem serves GET /v1/system.
func (a *api) showSystem(w http.ResponseWriter, r *http.Request) error {
	system, err := a.service.System(r.Context())
	if err != nil {
		return fmt.Errorf("show system: %w", err)
	}
	return a.writeJSON(w, http.StatusOK, system)
}

// health serves GET /healthz: who gets an answer at all, knows enough. Where there
// is a sign-in, the version is not for everybody.
func (a *api) health(w http.ResponseWriter, _ *http.Request) error {
	answer := healthAnswer{Status: "ok"}
	if a.opts.Identify == nil {
		answer.Version = a.opts.Version
	}
	return a.writeJSON(w, http.StatusOK, answer)
}

// ready serves GET /readyz. Whatever stands in the way, the status is 503, which
// is what probes and load balancers look at.
func (a *api) ready(w http.ResponseWriter, r *http.Request) error {
	if err := a.service.Ready(r.Context()); err != nil {
		return &answerError{error: err, status: http.StatusServiceUnavailable}
	}
	return a.writeJSON(w, http.StatusOK, healthAnswer{Status: "ready"})
}

// healthAnswer is the body of /healthz and /readyz.
type healthAnswer struct {
	Status  string `json:"status"`
	Version string `json:"version,omitempty"`
}

// metrics serves GET /metrics.
func (a *api) metrics(w http.ResponseWriter, r *http.Request) error {
	if a.opts.Metrics == nil {
		return protocol.Errorf(protocol.CodeNotFound, "there are no metrics")
	}
	a.opts.Metrics.ServeHTTP(w, r)
	return nil
}
