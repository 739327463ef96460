package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"carrel/protocol"
)

// exec runs a shell text of a user.
func (d *daemon) exec(user, text string) protocol.ExecResult {
	d.t.Helper()
	status, body := d.execute(user, text, 0)
	var r protocol.ExecResult
	if err := json.Unmarshal(body, &r); err != nil || status != http.StatusOK {
		d.t.Fatalf("exec %q: status %d, %s", text, status, body)
	}
	return r
}

func (d *daemon) execute(user, text string, seconds float64) (int, []byte) {
	d.t.Helper()
	body, err := json.Marshal(protocol.ExecRequest{Command: protocol.Command{Shell: text}, TimeoutSeconds: seconds})
	if err != nil {
		d.t.Fatal(err)
	}
	return d.post("/v1/users/"+user+"/exec", string(body), nil)
}

func TestWhatACommandStartsEndsWithIt(t *testing.T) {
	d := serve(t, t.TempDir())
	d.exec("ana", "(setsid sh -c 'while :; do echo x >> ticks; sleep 0.01; done' &); (sleep 1000 &); until [ -s ticks ]; do sleep 0.01; done")
	// The next command uses the same tool host: nothing of the last one is there.
	r := d.exec("ana", "ps -e -o comm=; wc -c < ticks > before; sleep 0.2; wc -c < ticks | cmp - before && echo still")
	if strings.Count(r.Stdout, "sh\n")+strings.Count(r.Stdout, "sleep\n") > 2 || !strings.Contains(r.Stdout, "still") {
		t.Errorf("afterwards there is\n%s%s", r.Stdout, r.Stderr)
	}
	d.stop()
}

func TestCommandThatIgnoresSIGTERMIsKilledWithItsTree(t *testing.T) {
	d := serve(t, t.TempDir())
	status, body := d.execute("ana", "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & while :; do sleep 1; done", 0.2)
	if status != http.StatusGatewayTimeout || !strings.Contains(string(body), "run_timeout") {
		t.Errorf("status %d, %s", status, body)
	}
	// The same worker goes on.
	if r := d.exec("ana", "ps -e -o comm= | grep -c sleep; echo well"); !strings.HasPrefix(r.Stdout, "0\nwell") {
		t.Errorf("afterwards: %+v", r)
	}
	if runs := workerOf(d, "ana").Runs; runs != 2 {
		t.Errorf("the worker has served %d runs, want 2: it was replaced", runs)
	}
	d.stop()
}

func TestCommandCannotHarmItsToolHostOrTheWorker(t *testing.T) {
	d := serve(t, t.TempDir())
	r := d.exec("ana", "for s in STOP KILL TERM; do kill -$s $PPID 2>/dev/null && echo $s; kill -$s 1 2>/dev/null && echo 1 $s; done; echo tried")
	if r.Stdout != "tried\n" {
		t.Errorf("signals went through: %s", r.Stdout)
	}
	if r := d.exec("ana", "echo well"); r.Stdout != "well\n" {
		t.Errorf("afterwards: %+v", r)
	}
	d.stop()
}

func TestOutputIsBoundedAndItsTrueSizeTold(t *testing.T) {
	d := serve(t, t.TempDir())
	const size = 20 << 20
	r := d.script("ana", "head -c 20971520 /dev/zero | tr '\\0' x; echo end")
	if !r.Truncated || r.ContentBytes != size+4 || len(r.Content) > 300<<10 || !strings.HasSuffix(r.Content, "xend\n") {
		t.Errorf("truncated %v, %d bytes told, %d bytes given", r.Truncated, r.ContentBytes, len(r.Content))
	}
	d.stop()
}

func TestRunsOfOneUserGoOnSideBySideOnOneWorker(t *testing.T) {
	d := serve(t, t.TempDir())
	var wg sync.WaitGroup
	for range 3 { // each waits for the others: they must run at one time
		wg.Go(func() {
			r := d.exec("ana", "mkdir -p in; touch in/$$; until [ $(ls in | wc -l) = 3 ]; do sleep 0.01; done; echo met")
			if r.Stdout != "met\n" {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	hers := slices.DeleteFunc(mustSandboxes(d).Sandboxes, func(s protocol.Sandbox) bool { return s.UserID != "ana" })
	if len(hers) != 1 {
		t.Errorf("%d workers", len(hers))
	}
	d.stop()
}

// The request of the plan that carrel began as, to the letter.
const seed = `{"jsonrpc":"2.0","method":"execute","params":{"message":"分析這個文件","attachments":[{"id":"file-123","type":"image/png"}],"session_id":"session-456","config":{"model":"claude-sonnet-4-5","max_tokens":4096}},"id":"req-001"}`

func TestSeedsRequestWorksWhenTypedAtAWorker(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(program(t)), "carrel-worker"))
	cmd.Env = environment(t.TempDir())
	cmd.Stdin = strings.NewReader(seed + "\n" + `{"jsonrpc":"2.0","method":"none","id":2}` + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	var events, answers int
	for line := range strings.Lines(string(out)) {
		var m struct {
			ID     any                  `json:"id"`
			Method string               `json:"method"`
			Params protocol.EventParams `json:"params"`
			Result *protocol.Result     `json:"result"`
			Error  *struct{ Code int }  `json:"error"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch {
		case m.Method == protocol.MethodEvent:
			events++
			if m.Params.Seq != int64(events) {
				t.Errorf("seq %d where %d belongs", m.Params.Seq, events)
			}
		case m.ID == "req-001":
			answers++
			if m.Result == nil || m.Result.SessionID != "session-456" || m.Result.ExitCode == nil || *m.Result.ExitCode != 127 {
				t.Errorf("the answer is %s", line)
			}
		default:
			answers++
			if m.Error == nil || m.Error.Code != protocol.RPCMethodNotFound {
				t.Errorf("an unknown method is answered with %s", line)
			}
		}
	}
	if events < 3 || answers != 2 {
		t.Errorf("%d events, %d answers:\n%s", events, answers, out)
	}
}
