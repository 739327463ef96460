package selftest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"carrel/client"
	"carrel/internal/jail/attack"
	"carrel/protocol"
)

const (
	groupAPI    = "API"
	ruleOwn     = "httpapi:own-user"
	ruleAdmin   = "httpapi:admin"
	ruleKey     = "httpapi:key"
	ruleFrame   = "httpapi:frame"
	ruleRebind  = "httpapi:host"
	slowReaders = 32
	storm       = 200
)

// things are what bob has, for ana to want.
type things struct {
	run    string // ended
	cursor string // of his list of runs
	file   string // an attachment
}

// idempotencyKey is one that bob has used.
const idempotencyKey = "bobs-key"

// furnish lets bob have something of everything.
func (d *daemon) furnish(ctx context.Context) error {
	bobs, err := client.New(d.url, client.Options{Key: client.Key(d.keys[bob])})
	if err != nil {
		return err
	}
	defer bobs.Close()
	for range 2 {
		run, err := bobs.Execute(ctx, protocol.ExecuteRequest{UserID: bob, Message: attack.Hostile + string(attack.TrickHonest)},
			client.ExecuteOptions{IdempotencyKey: idempotencyKey + d.bobs.run})
		if err != nil {
			return err
		}
		if _, err := d.ended(ctx, run.RunID); err != nil {
			return err
		}
		d.bobs.run = run.RunID
	}
	d.bobs.run = ""
	var list protocol.RunPage
	if err := d.decode(ctx, request{key: d.keys[bob], method: http.MethodGet, path: "/v1/runs?limit=1"}, &list); err != nil {
		return err
	}
	d.bobs.run, d.bobs.cursor = list.Runs[0].RunID, list.NextCursor
	var file protocol.AttachmentInfo
	upload := request{key: d.keys[bob], method: http.MethodPost, path: "/v1/users/bob/attachments?name=a.txt", body: `"bobs own"`}
	if err := d.decode(ctx, upload, &file); err != nil {
		return err
	}
	d.bobs.file = file.ID
	return d.granted(ctx, request{key: d.keys[bob], method: http.MethodPut, path: "/v1/users/bob/files/own", body: "bobs own"})
}

// decode asks and decodes the answer, which must be one that grants it.
func (d *daemon) decode(ctx context.Context, r request, into any) error {
	status, body, err := d.ask(ctx, r)
	if err != nil {
		return err
	}
	if status >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %d %.200s", r.method, r.path, status, body)
	}
	return json.Unmarshal([]byte(body), into)
}

// apiExchanges are what a caller tries who has a key of its own, or none.
func apiExchanges() []exchange {
	rows := slices.Concat(foreignExchanges(), keyExchanges(), streamExchanges())
	for i := range rows {
		rows[i].id, rows[i].group, rows[i].tier = "api-"+rows[i].id, groupAPI, attack.Caller
	}
	return rows
}

// foreignExchanges are one request each: with ana's key it must be refused, with bob's,
// or an admin's, it is granted.
func foreignExchanges() []exchange {
	row := func(id, title, method string, path func(*daemon) string, body, owner string) exchange {
		as := func(who string) func(context.Context, *daemon) error {
			return func(ctx context.Context, d *daemon) error {
				return d.granted(ctx, request{key: d.keys[who], method: method, path: path(d), body: body})
			}
		}
		x := exchange{id: id, title: title, stoppedBy: []string{ruleOwn}, attack: as(ana), control: as(owner)}
		if owner == admin {
			x.stoppedBy = []string{ruleAdmin}
		}
		return x
	}
	at := func(path string) func(*daemon) string { return func(*daemon) string { return path } }
	ofRun := func(rest string) func(*daemon) string {
		return func(d *daemon) string { return "/v1/runs/" + d.bobs.run + rest }
	}
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	return []exchange{
		row("run", "show another's run", get, ofRun(""), "", bob),
		row("events", "replay another's events", get, ofRun("/events"), "", bob),
		row("events-after", "replay another's events by a cursor", get, ofRun("/events?after=1"), "", bob),
		row("cancel", "cancel another's run", post, ofRun("/cancel"), "", bob),
		row("execute", "start a run as another", post, at("/v1/execute"), `{"user_id":"bob","message":"hostile honest"}`, bob),
		row("exec", "run a command as another", post, at("/v1/users/bob/exec"), `{"command":["id"]}`, bob),
		row("exec-encoded", "run a command as another, whose id is written otherwise", post, at("/v1/users/%62%6fb/exec"), `{"command":["id"]}`, bob),
		row("list-of", "list another's runs", get, at("/v1/runs?user_id=bob"), "", bob),
		row("attach", "give another a file", post, at("/v1/users/bob/attachments?name=x"), `"x"`, bob),
		row("sessions", "list another's sessions", get, at("/v1/users/bob/sessions"), "", bob),
		row("files", "list another's files", get, at("/v1/users/bob/files"), "", bob),
		row("file-put", "write a file of another's", put, at("/v1/users/bob/files/planted"), `"x"`, bob),
		row("file-get", "read a file of another's", get, at("/v1/users/bob/files/own"), "", bob),
		row("file-delete", "delete a file of another's", del, at("/v1/users/bob/files/own"), "", bob),
		row("sandbox", "look at another's sandbox", get, at("/v1/users/bob/sandbox"), "", bob),
		row("sandbox-retire", "retire another's sandbox", del, at("/v1/users/bob/sandbox"), "", bob),
		row("sandboxes", "list everybody's sandboxes", get, at("/v1/sandboxes"), "", admin),
		row("system", "look at the daemon's configuration", get, at("/v1/system"), "", admin),
		row("metrics", "look at everybody's figures", get, at("/metrics"), "", admin),
	}
}

// keyExchanges are about keys, cursors and what else stands for somebody.
func keyExchanges() []exchange {
	withKey := func(key func(*daemon) string) func(context.Context, *daemon) error {
		return func(ctx context.Context, d *daemon) error {
			return d.granted(ctx, request{key: key(d), method: http.MethodGet, path: "/v1/runs"})
		}
	}
	good := withKey(func(d *daemon) string { return d.keys[ana] })
	hosted := func(method, path, body string, header http.Header) func(context.Context, *daemon) error {
		return func(ctx context.Context, d *daemon) error {
			return d.open.granted(ctx, request{method: method, path: path, body: body, header: header})
		}
	}
	list := func(header http.Header) func(context.Context, *daemon) error {
		return hosted(http.MethodGet, "/v1/runs", "", header)
	}
	execute := func(header http.Header) func(context.Context, *daemon) error {
		return hosted(http.MethodPost, "/v1/execute", `{"user_id":"ana","message":"hostile honest"}`, header)
	}
	return []exchange{
		{id: "no-key", title: "come without a key", stoppedBy: []string{ruleKey}, attack: withKey(func(*daemon) string { return "" }), control: good},
		{id: "wrong-key", title: "come with a key that nobody has", stoppedBy: []string{ruleKey}, attack: withKey(func(*daemon) string { return "nobodys" }), control: good},
		{id: "key-prefix", title: "come with the beginning of a key", stoppedBy: []string{ruleKey}, attack: withKey(func(d *daemon) string { return d.keys[ana][:10] }), control: good},
		{id: "key-hash", title: "come with a key's hash, as the file has it", stoppedBy: []string{ruleKey}, attack: withKey(func(d *daemon) string {
			return strings.Split(string(keyFile(map[string]string{ana: d.keys[ana]})), ":")[2]
		}), control: good},
		{id: "cursor", title: "go on with another's list", stoppedBy: []string{ruleOwn}, attack: takeCursor(ana), control: takeCursor(bob)},
		{id: "idempotency", title: "have the run of another's idempotency key", stoppedBy: []string{"httpapi:idempotency-scope"}, attack: repeatKey(ana), control: repeatKey(bob)},
		{id: "attachment", title: "name another's attachment in a run of one's own", stoppedBy: []string{ruleOwn}, attack: useFile(ana), control: useFile(bob)},
		{id: "approval", title: "answer what another is asked", stoppedBy: []string{ruleOwn}, attack: approve(ana), control: approve(bob)},
		{id: "ag-ui", title: "start a run as another, whom AG-UI's header names", stoppedBy: []string{ruleOwn}, attack: converse(ana), control: converse(bob)},
		{id: "ag-ui-resume", title: "answer through AG-UI what another is asked", stoppedBy: []string{ruleOwn}, attack: resume(ana), control: resume(bob)},
		{id: "rebind", title: "come by a name that was bound to loopback (DNS rebinding)", stoppedBy: []string{ruleRebind}, attack: list(http.Header{"Host": {"evil.example"}}), control: list(nil)},
		{id: "origin", title: "start a run from a foreign web page", stoppedBy: []string{ruleRebind}, attack: execute(http.Header{"Origin": {"https://evil.example"}}), control: execute(nil)},
	}
}

func takeCursor(who string) func(context.Context, *daemon) error {
	return func(ctx context.Context, d *daemon) error {
		var page protocol.RunPage
		err := d.decode(ctx, request{key: d.keys[who], method: http.MethodGet, path: "/v1/runs?cursor=" + url.QueryEscape(d.bobs.cursor)}, &page)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(page.Runs, func(r protocol.Run) bool { return r.UserID == bob }) {
			return errNothing
		}
		return nil
	}
}

func (d *daemon) executeAs(ctx context.Context, who, body string, header http.Header) (run protocol.Run, err error) {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Prefer", "respond-async")
	err = d.decode(ctx, request{key: d.keys[who], method: http.MethodPost, path: "/v1/execute", body: body, header: header}, &run)
	return run, err
}

func repeatKey(who string) func(context.Context, *daemon) error {
	return func(ctx context.Context, d *daemon) error {
		run, err := d.executeAs(ctx, who, `{"user_id":"`+who+`","message":"hostile honest"}`, http.Header{"Idempotency-Key": {idempotencyKey}})
		if err != nil {
			return err
		}
		shown, err := d.client.Run(ctx, run.RunID)
		if err != nil {
			return err
		}
		if shown.UserID != bob {
			return errNothing
		}
		return nil
	}
}

func useFile(who string) func(context.Context, *daemon) error {
	return func(ctx context.Context, d *daemon) error {
		run, err := d.executeAs(ctx, who, `{"user_id":"`+who+`","message":"hostile honest","attachments":[{"id":"`+d.bobs.file+`"}]}`, nil)
		if err != nil {
			return err
		}
		ended, err := d.ended(ctx, run.RunID)
		if err == nil && ended.Result == nil {
			err = told(ended)
		}
		return err
	}
}

// approve lets somebody answer what bob's run asks.
func approve(who string) func(context.Context, *daemon) error {
	return func(ctx context.Context, d *daemon) error {
		run, err := d.asked(ctx)
		if err != nil {
			return err
		}
		return d.granted(ctx, request{
			key: d.keys[who], method: http.MethodPost, path: "/v1/runs/" + run.RunID + "/approvals/" + attack.AskedID, body: `{"decision":"allow"}`,
		})
	}
}

// asked is a run of bob's that waits for an answer.
func (d *daemon) asked(ctx context.Context) (protocol.Run, error) {
	run, err := d.begin(ctx, bob, attack.TrickAsk, "")
	if err != nil {
		return run, err
	}
	for ev, err := range d.client.Events(ctx, run.RunID, 0) {
		if err != nil {
			return run, err
		}
		if ev.Type == protocol.EventApprovalRequested {
			break
		}
	}
	return run, nil
}

// converse sends a message for bob by AG-UI.
func converse(who string) func(context.Context, *daemon) error {
	return func(ctx context.Context, d *daemon) error {
		return d.granted(ctx, request{
			key: d.keys[who], method: http.MethodPost, path: "/v1/ag-ui", header: http.Header{"X-Carrel-User": {bob}},
			body: `{"threadId":"t","runId":"r","messages":[{"id":"1","role":"user","content":"hostile honest"}]}`,
		})
	}
}

// resume answers what bob's run asks by AG-UI, in the thread that it is of. The answer
// begins once the question is answered; how the run goes on is not waited for.
func resume(who string) func(context.Context, *daemon) error {
	return func(ctx context.Context, d *daemon) error {
		run, err := d.asked(ctx)
		if err != nil {
			return err
		}
		resp, err := d.send(ctx, request{
			key: d.keys[who], method: http.MethodPost, path: "/v1/ag-ui", header: http.Header{"X-Carrel-User": {who}},
			body: `{"threadId":"` + run.SessionID + `","runId":"r","messages":[],"resume":[{"interruptId":"` + run.RunID + `.` + attack.AskedID + `","status":"resolved","payload":{"approved":true}}]}`,
		})
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode >= http.StatusMultipleChoices {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	}
}
