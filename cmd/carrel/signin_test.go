package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carrel/client"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

// newKey makes a key by the command line.
func newKey(t *testing.T, file, name string, args ...string) string {
	t.Helper()
	stdout, stderr, status := command(t, environment(t.TempDir(), "CARREL_API_KEYS_FILE="+file), append([]string{"key", "add", name}, args...)...)
	secret := strings.TrimSuffix(stdout, "\n")
	if status != 0 || !strings.HasPrefix(secret, "carrel_") || strings.ContainsAny(secret, " \n") || strings.Contains(stderr, secret) {
		t.Fatalf("key add %s: status %d, %q %q", name, status, stdout, stderr)
	}
	return secret
}

// guarded is a daemon with a key for the product, one for ana and one for bob.
type guarded struct {
	*daemon

	file, base        string
	product, ana, bob string
}

func serveGuarded(t *testing.T, more ...string) *guarded {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys")
	g := &guarded{
		file:    file,
		base:    t.TempDir(),
		product: newKey(t, file, "product", "--role", "admin"),
		ana:     newKey(t, file, "ana-phone", "--role", "user", "--user", "ana"),
		bob:     newKey(t, file, "bob-phone", "--role=user", "--user=bob"),
	}
	g.daemon = serve(t, g.base, append([]string{"CARREL_API_KEYS_FILE=" + file}, more...)...)
	return g
}

func with(key string) http.Header { return http.Header{"Authorization": {"Bearer " + key}} }

// clientOf is a client with a key.
func (g *guarded) clientOf(key string) *client.Client {
	g.t.Helper()
	_, c := checkedClients(g.t, g.url, client.Key(key))
	return c
}

// wants checks the status and the code of an answer.
func (g *guarded) wants(what string, wantStatus int, wantCode protocol.Code) func(int, []byte) {
	return func(status int, body []byte) {
		g.t.Helper()
		if status != wantStatus || !strings.Contains(string(body), `"code":"`+string(wantCode)+`"`) {
			g.t.Errorf("%s: %d %s, want %d %s", what, status, body, wantStatus, wantCode)
		}
	}
}

func TestOnlyWhoHasAKeyGetsIn(t *testing.T) {
	g := serveGuarded(t)
	for _, key := range []string{"", "carrel_wrong", g.ana[:len(g.ana)-1], strings.ToLower(g.ana)} {
		g.wants("execute with "+key, 401, protocol.CodeUnauthorized)(g.post("/v1/execute", `{"user_id":"ana","message":"true"}`, with(key)))
	}
	g.wants("no header", 401, protocol.CodeUnauthorized)(g.get("/v1/runs", nil))
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := g.get(path, nil); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, path := range []string{"/metrics", "/v1/system", "/v1/sandboxes"} {
		g.wants(path, 403, protocol.CodeForbidden)(g.get(path, with(g.ana)))
		if status, body := g.get(path, with(g.product)); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	// The proxy's name for the daemon, not ours.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/runs", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Header = "carrel.example", with(g.ana)
	if status, body := g.do(req); status != 200 {
		t.Errorf("by another name: %d %s", status, body)
	}
	g.stop()
}

func TestCommandLineSignsInAndNeverPrintsItsKey(t *testing.T) {
	g := serveGuarded(t)
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(g.ana+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := environment(t.TempDir(), "CARREL_URL="+g.url)
	signed := environment(t.TempDir(), "CARREL_URL="+g.url, "CARREL_API_KEY="+g.ana)
	for _, tt := range []struct {
		name   string
		env    []string
		args   []string
		status int
		stdout string
		stderr string
	}{
		{"run", signed, []string{"run", "--user", "ana", "echo hi"}, 0, "hi\n", ""},
		{"exec", signed, []string{"exec", "--user", "ana", "--", "echo", "hi"}, 0, "hi\n", ""},
		{"a key file", plain, []string{"exec", "--user", "ana", "--key-file", keyFile, "--", "echo", "hi"}, 0, "hi\n", ""},
		{"another's sandbox", signed, []string{"exec", "--user", "bob", "--", "echo", "hi"}, 1, "", "forbidden: this key acts for another user"},
		{"another's run", signed, []string{"run", "--user", "bob", "echo hi"}, 1, "", "forbidden"},
		{"no key", plain, []string{"run", "--user", "ana", "echo hi"}, 1, "", "unauthorized"},
		{"a key file that is not there", plain, []string{"run", "--key-file", keyFile + "x", "echo hi"}, 1, "", "--key-file"},
		{"a key that is none", environment(t.TempDir(), "CARREL_URL="+g.url, "CARREL_API_KEY=two words"), []string{"run", "true"}, 1, "", "API key: must be printable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, status := command(t, tt.env, tt.args...)
			if status != tt.status || stdout != tt.stdout || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("status %d, %q, %q", status, stdout, stderr)
			}
			if strings.Contains(stdout+stderr, g.ana) || strings.Contains(stdout+stderr, "two words") {
				t.Errorf("the key is printed: %q %q", stdout, stderr)
			}
		})
	}
	g.stop()
}

func TestUserKeyReachesItsOwnUserOnly(t *testing.T) {
	g := serveGuarded(t)
	ana, bob := g.clientOf(g.ana), g.clientOf(g.bob)
	status, body := g.post("/v1/users/ana/attachments?name=a.txt", "of ana", with(g.ana))
	var file protocol.AttachmentInfo
	if err := json.Unmarshal(body, &file); err != nil || status != 201 {
		t.Fatalf("attach: %d %s", status, body)
	}
	run, err := ana.Execute(t.Context(), protocol.ExecuteRequest{UserID: "ana", Message: "echo of-ana; until [ -e go ]; do sleep 0.05; done"}, client.ExecuteOptions{IdempotencyKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	runPath, users := "/v1/runs/"+run.RunID, "/v1/users/ana"

	for _, path := range []string{"", "/events", "/events?after=0"} {
		g.wants(path, 404, protocol.CodeNotFound)(g.get(runPath+path, with(g.bob)))
	}
	g.wants("cancel", 404, protocol.CodeNotFound)(g.post(runPath+"/cancel", "", with(g.bob)))
	g.wants("approve", 404, protocol.CodeNotFound)(g.post(runPath+"/approvals/apr_1", `{"decision":"allow"}`, with(g.bob)))
	g.wants("exec", 403, protocol.CodeForbidden)(g.post(users+"/exec", `{"command":"touch go"}`, with(g.bob)))
	g.wants("attach", 403, protocol.CodeForbidden)(g.post(users+"/attachments", "x", with(g.bob)))
	g.wants("sessions", 403, protocol.CodeForbidden)(g.get(users+"/sessions", with(g.bob)))
	g.wants("session", 403, protocol.CodeForbidden)(g.get(users+"/sessions/"+run.SessionID, with(g.bob)))
	g.wants("fork", 403, protocol.CodeForbidden)(g.post(users+"/sessions/"+run.SessionID+"/fork", `{}`, with(g.bob)))
	g.wants("sandbox", 403, protocol.CodeForbidden)(g.get(users+"/sandbox", with(g.bob)))
	for _, path := range []string{users + "/sandbox?purge=true", users + "/sessions/" + run.SessionID} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, g.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = with(g.bob)
		g.wants("delete "+path, 403, protocol.CodeForbidden)(g.do(req))
	}
	g.wants("execute", 403, protocol.CodeForbidden)(g.post("/v1/execute", `{"user_id":"ana","message":"touch go"}`, with(g.bob)))
	g.wants("ana's file", 404, protocol.CodeNotFound)(g.post("/v1/execute",
		fmt.Sprintf(`{"user_id":"bob","message":"true","attachments":[{"id":%q}]}`, file.ID), with(g.bob)))

	// The same idempotency key is another caller's, and so starts another run.
	his, err := bob.Execute(t.Context(), protocol.ExecuteRequest{UserID: "bob", Message: "echo of-bob"}, client.ExecuteOptions{IdempotencyKey: "k"})
	if err != nil || his.RunID == run.RunID || his.UserID != "bob" {
		t.Errorf("bob's run is %+v, %v", his, err)
	}
	// Ana's run has gone on, and she ends it.
	if _, err := ana.Exec(t.Context(), "ana", protocol.ExecRequest{Command: protocol.Command{Shell: "touch go"}}); err != nil {
		t.Error(err)
	}
	var last protocol.Event
	for ev, err := range ana.Events(t.Context(), run.RunID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		last = ev
	}
	if last.Type != protocol.EventRunFinished || !strings.Contains(string(last.Data), "of-ana") {
		t.Errorf("ana's run ended with %s %s", last.Type, last.Data)
	}
	g.stop()
}

func TestListingShowsAUserKeyItsOwnRunsWithAnyCursor(t *testing.T) {
	g := serveGuarded(t)
	for i := range 3 {
		for _, user := range []string{"ana", "bob"} {
			status, body := g.post("/v1/execute", fmt.Sprintf(`{"user_id":%q,"message":"echo %d"}`, user, i), with(g.product))
			if status != 200 {
				t.Fatalf("execute: %d %s", status, body)
			}
		}
	}
	page := func(query, key string) (int, protocol.RunPage) {
		t.Helper()
		status, body := g.get("/v1/runs"+query, with(key))
		var p protocol.RunPage
		if err := json.Unmarshal(body, &p); err != nil {
			t.Fatalf("%s: %d %s", query, status, body)
		}
		return status, p
	}
	_, everyones := page("?limit=1", g.product)
	_, bobs := page("?limit=1&user_id=bob", g.product)
	_, anas := page("?limit=1", g.ana)
	if everyones.NextCursor == "" || bobs.NextCursor == "" || anas.NextCursor == "" {
		t.Fatalf("cursors %q %q %q", everyones.NextCursor, bobs.NextCursor, anas.NextCursor)
	}
	for _, query := range []string{"", "?user_id=ana", "?limit=2", "?cursor=" + anas.NextCursor} {
		status, p := page(query, g.ana)
		if status != 200 || len(p.Runs) < 2 {
			t.Errorf("%q: %d, %d runs", query, status, len(p.Runs))
		}
		for _, r := range p.Runs {
			if r.UserID != "ana" {
				t.Errorf("%q shows a run of %q", query, r.UserID)
			}
		}
	}
	for _, query := range []string{"?user_id=bob", "?cursor=" + bobs.NextCursor, "?cursor=" + everyones.NextCursor, "?user_id=bob&cursor=" + bobs.NextCursor} {
		if status, p := page(query, g.ana); status/100 != 4 || len(p.Runs) > 0 {
			t.Errorf("%q: %d, %d runs", query, status, len(p.Runs))
		}
	}
	g.stop()
}

func TestRemovedKeyLosesItsStreamAndABrokenFileTakesNoKeyAway(t *testing.T) {
	g := serveGuarded(t)
	ana := g.clientOf(g.ana)
	run, err := ana.Execute(t.Context(), protocol.ExecuteRequest{UserID: "ana", Message: "echo going; sleep 1000"}, client.ExecuteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	var went bool
	for ev, err := range ana.Events(t.Context(), run.RunID, 0) {
		if err != nil {
			ended <- err
			break
		}
		if strings.Contains(string(ev.Data), "going") && !went {
			went = true
			if _, stderr, status := command(t, environment(t.TempDir(), "CARREL_API_KEYS_FILE="+g.file), "key", "remove", "ana-phone"); status != 0 {
				t.Fatal(stderr)
			}
		}
	}
	if err := <-ended; protocol.CodeOf(err) != protocol.CodeUnauthorized {
		t.Errorf("the stream of a removed key ended with %v", err)
	}
	g.wants("a removed key", 401, protocol.CodeUnauthorized)(g.get("/v1/runs", with(g.ana)))
	if got, err := g.clientOf(g.product).Run(t.Context(), run.RunID); err != nil || got.Status.Ended() {
		t.Errorf("its run is %+v, %v", got.Status, err)
	}

	late := newKey(t, g.file, "late", "--role", "admin")
	ordeal.Eventually(t, "a new key signs in", func() bool {
		status, _ := g.get("/v1/runs", with(late))
		return status == 200
	})
	text, err := os.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.file, append(text, "nonsense\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	ordeal.Eventually(t, "the log tells of the broken file", func() bool {
		return strings.Contains(g.log.String(), "what was read before stays in force")
	})
	if status, body := g.get("/v1/runs", with(late)); status != 200 {
		t.Errorf("with a broken file: %d %s", status, body)
	}
	if _, stderr, status := command(t, environment(t.TempDir()), "key", "add", "more", "--role", "admin", "--file", g.file); status == 0 || !strings.Contains(stderr, "mend it first") {
		t.Errorf("key add to a broken file: %d %s", status, stderr)
	}
	log := g.log.String()
	for _, want := range []string{`"caller":"ana-phone"`, "run accepted"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	for _, secret := range []string{g.ana, g.bob, g.product, late} {
		if strings.Contains(log, secret) {
			t.Error("the log holds a key")
		}
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(log, strings.Split(line, ":")[2][:16]) {
			t.Error("the log holds a hash")
		}
	}
	g.stop()
}

func TestKeysAreListedWithoutTheirHashes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	newKey(t, file, "product", "--role", "admin")
	newKey(t, file, "odd", "--role", "user", "--user", "a: b")
	env := environment(t.TempDir(), "CARREL_API_KEYS_FILE="+file)
	stdout, stderr, status := command(t, env, "key", "list")
	if want := "NAME     ROLE   USER\nproduct  admin  \nodd      user   a: b\n"; stdout != want || status != 0 {
		t.Errorf("status %d, %q, %s", status, stdout, stderr)
	}
	for _, args := range [][]string{
		{"key", "add", "product", "--role", "admin"},
		{"key", "add", "x", "--role", "root"},
		{"key", "add", "x"},
		{"key", "add", "x", "--role", "user"},
		{"key", "add", "x", "--role", "admin", "--user", "u"},
		{"key", "add", "x:y", "--role", "admin"},
		{"key", "remove", "nobody"},
		{"key", "list", "--file", file + "x"},
	} {
		if stdout, _, status := command(t, env, args...); status == 0 || strings.Contains(stdout, "carrel_") {
			t.Errorf("%q: status %d, %q", args, status, stdout)
		}
	}
	if _, stderr, status := command(t, environment(t.TempDir()), "key", "list"); status == 0 || !strings.Contains(stderr, "CARREL_API_KEYS_FILE") {
		t.Errorf("no file: %d %s", status, stderr)
	}
}

func TestRateLimitAnswersWithTheTimeToWait(t *testing.T) {
	g := serveGuarded(t, "CARREL_RATE_LIMIT=2/h")
	for range 2 {
		if status, body := g.get("/v1/runs", with(g.ana)); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	status, body := g.get("/v1/runs", with(g.ana))
	var p protocol.Problem
	if err := json.Unmarshal(body, &p); err != nil || status != 429 || p.Code != protocol.CodeRateLimited || p.RetryAfter < 1000 {
		t.Errorf("%d %s", status, body)
	}
	if status, body := g.get("/v1/runs", with(g.bob)); status != 200 {
		t.Errorf("another key: %d %s", status, body)
	}
	g.stop()
}
