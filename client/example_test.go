package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // as a reader of examples knows it
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"

	"carrel/client"
	"carrel/protocol"
)

// The examples speak to a daemon that has one user, Ana, and two runs. A program of your
// own has an address and a key instead:
//
//	c, err := client.New("https://carrel.example:8642", client.Options{Key: client.Key(os.Getenv("CARREL_API_KEY"))})
func connect() (c *client.Client, done func()) {
	server := httptest.NewServer(ana())
	c, err := client.New(server.URL, client.Options{Tries: 1})
	if err != nil {
		log.Fatal(err)
	}
	return c, func() {
		c.Close()
		server.Close()
	}
}

// Start a run, show its text as it comes, and tell what it cost.
func ExampleClient_ExecuteStream() {
	c, done := connect()
	defer done()

	req := protocol.ExecuteRequest{UserID: "ana", Message: "Count the lines of plan.csv."}
	for event, err := range c.ExecuteStream(context.Background(), req, client.ExecuteOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		data, err := event.Decode()
		if err != nil {
			log.Fatal(err)
		}
		switch d := data.(type) {
		case protocol.TextDelta:
			fmt.Print(d.Text)
		case protocol.ToolCallStart:
			fmt.Printf("[%s]\n", d.Name)
		case protocol.Result:
			fmt.Printf("\n%d tokens, $%.2f\n", d.TokensUsed, d.Usage.CostUSD)
		case protocol.RunError:
			log.Fatal(d.Err())
		}
	}
	// Output:
	// There are 42 lines.
	// 1200 tokens, $0.02
}

// Go on with a run's events after the last one that was seen, in this process or in
// another: the events are kept.
func ExampleClient_Events() {
	c, done := connect()
	defer done()

	const seen = 2
	for event, err := range c.Events(context.Background(), "run_1", seen) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Seq, event.Type)
	}
	// Output:
	// 3 TEXT_DELTA
	// 4 RUN_FINISHED
}

// Answer a run that asks whether a tool may be used.
func ExampleClient_Approve() {
	c, done := connect()
	defer done()

	ctx := context.Background()
	for event, err := range c.Events(ctx, "run_2", 0) {
		if err != nil {
			log.Fatal(err)
		}
		data, err := event.Decode()
		if err != nil {
			log.Fatal(err)
		}
		switch d := data.(type) {
		case protocol.ApprovalRequested:
			fmt.Printf("%s wants %s\n", d.Tool, d.Input)
			answer := protocol.ApprovalDecision{Decision: protocol.Deny, Reason: "keep it"}
			if err := c.Approve(ctx, event.RunID, d.ApprovalID, answer); err != nil {
				log.Fatal(err)
			}
		case protocol.ApprovalResolved:
			fmt.Println(d.Decision, "because:", d.Reason)
		}
	}
	// Output:
	// bash wants {"command":"rm plan.csv"}
	// deny because: keep it
}

// Give a user a file, and read it back.
func ExampleClient_PutFile() {
	c, done := connect()
	defer done()

	const plan = "roof,2026-05-01\n"
	stored, err := c.PutFile(context.Background(), "ana", "in/plan.csv", strings.NewReader(plan), int64(len(plan)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stored.Name, stored.Size)

	file, err := c.OpenFile(context.Background(), "ana", "in/plan.csv", client.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if _, err := io.Copy(os.Stdout, file); err != nil {
		log.Fatal(err)
	}
	// Output:
	// plan.csv 16
	// roof,2026-05-01
}

// Start a run for its result alone.
func ExampleClient_ExecuteWait() {
	c, done := connect()
	defer done()

	result, err := c.ExecuteWait(context.Background(), protocol.ExecuteRequest{
		UserID: "ana", Message: "Count the lines of plan.csv.",
	}, client.ExecuteOptions{IdempotencyKey: "job-4711"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Content)
	// Output: There are 42 lines.
}

// Run one command in the user's sandbox.
func ExampleClient_Exec() {
	c, done := connect()
	defer done()

	result, err := c.Exec(context.Background(), "ana", protocol.ExecRequest{
		Command: protocol.Command{Args: []string{"wc", "-l", "plan.csv"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(result.ExitCode, " ", result.Stdout)
	// Output: 0 42 plan.csv
}

// Walk over all runs of a user, page by page.
func ExampleClient_Runs() {
	c, done := connect()
	defer done()

	for run, err := range c.Runs(context.Background(), protocol.RunQuery{UserID: "ana", Limit: 1}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(run.RunID, run.Status)
	}
	// Output:
	// run_2 running
	// run_1 finished
}

// Ask what an error is: by its code, or for all that the answer told.
func ExampleError() {
	c, done := connect()
	defer done()

	_, err := c.Run(context.Background(), "run_3")
	fmt.Println(errors.Is(err, protocol.CodeNotFound))
	if e, ok := errors.AsType[*client.Error](err); ok {
		fmt.Println(e.Status, e.Message)
	}
	// Output:
	// true
	// 404 there is no run "run_3"
}

// ana is a daemon as far as the examples need one.
func ana() http.Handler {
	const result = `{"run_id":"run_1","status":"finished","content":"There are 42 lines.","tokens_used":1200,"usage":{"cost_usd":0.02}}`
	stream := func(run string, events ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i, event := range events {
				if seq := i + 1; r.FormValue("after") == "" || strconv.Itoa(seq) > r.FormValue("after") {
					kind := strings.Split(event, `"`)[3]
					_, _ = fmt.Fprintf(w, "id: %d\nevent: %s\ndata: {\"run_id\":\"%s\",\"seq\":%d,%s}\n\n", seq, kind, run, seq, event)
				}
			}
		}
	}
	counting := stream("run_1",
		`"type":"RUN_STARTED","data":{"session_id":"s","agent":"claude"}`,
		`"type":"TEXT_DELTA","data":{"text":"There are"}`,
		`"type":"TEXT_DELTA","data":{"text":" 42 lines."}`,
		`"type":"RUN_FINISHED","data":`+result,
	)
	asking := stream("run_2",
		`"type":"RUN_STARTED","data":{"session_id":"s","agent":"claude"}`,
		`"type":"APPROVAL_REQUESTED","data":{"approval_id":"apr_1","tool":"bash","input":{"command":"rm plan.csv"}}`,
		`"type":"APPROVAL_RESOLVED","data":{"approval_id":"apr_1","decision":"deny","reason":"keep it"}`,
		`"type":"RUN_FINISHED","data":{"run_id":"run_2","status":"finished"}`,
	)
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprint(w, body)
		}
	}
	run := `{"run_id":"run_1","status":"finished","last_seq":4,"result":` + result + `}`
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/execute", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Prefer") == "respond-async" {
			answer(run)(w, r)
			return
		}
		counting(w, r)
	})
	mux.HandleFunc("GET /v1/runs/run_1/events", counting)
	mux.HandleFunc("GET /v1/runs/run_2/events", asking)
	mux.HandleFunc("POST /v1/runs/run_2/approvals/apr_1", answer(`{"approval_id":"apr_1","decision":"deny"}`))
	mux.HandleFunc("GET /v1/runs/run_1", answer(run))
	mux.HandleFunc("GET /v1/runs/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", protocol.ProblemMediaType)
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprintf(w, `{"code":"not_found","detail":"there is no run \"%s\""}`, r.PathValue("id"))
	})
	mux.HandleFunc("GET /v1/runs", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("cursor") == "" {
			answer(`{"runs":[{"run_id":"run_2","status":"running"}],"next_cursor":"c"}`)(w, r)
			return
		}
		answer(`{"runs":[`+run+`]}`)(w, r)
	})
	mux.HandleFunc("PUT /v1/users/ana/files/in/plan.csv", answer(`{"name":"plan.csv","type":"file","size":16}`))
	mux.HandleFunc("GET /v1/users/ana/files/in/plan.csv", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "roof,2026-05-01")
	})
	mux.HandleFunc("POST /v1/users/ana/exec", answer(`{"exit_code":0,"stdout":"42 plan.csv\n"}`))
	return mux
}
