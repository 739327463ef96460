package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// The scrape formats: what a Prometheus asks for that takes native histograms, and what
// everybody can read.
const (
	acceptProtobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	acceptText     = "text/plain;version=0.0.4"
)

func (d *daemon) scrape(accept string) string {
	d.t.Helper()
	status, body := d.get("/metrics", http.Header{"Accept": {accept}})
	if status != http.StatusOK {
		d.t.Fatalf("/metrics: status %d", status)
	}
	return string(body)
}

// metric waits until a line of /metrics has this value: some is counted only after the
// answer to whoever asked.
func (d *daemon) metric(series string, value float64) {
	d.t.Helper()
	line := fmt.Sprintf("\n%s %g\n", series, value)
	for range 200 {
		if strings.Contains(d.scrape(acceptText), line) {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-d.t.Context().Done():
			d.t.Fatal("the test has ended")
		}
	}
	name, _, _ := strings.Cut(series, "{")
	d.t.Errorf("there is no %q, but\n%s", strings.TrimSpace(line), strings.Join(regexp.MustCompile(`(?m)^`+name+`\b.*$`).FindAllString(d.scrape(acceptText), -1), "\n"))
}

// loaded is a daemon that has had some of everything that metrics tell. begun, if there
// is one, is called before any of it.
func loaded(t *testing.T, begun ...func(*stage)) *stage {
	t.Helper()
	script := turns(
		step{message: "use a tool", calls: []anthropictest.Block{bash("t1", "echo hello; cat /etc/shadow")}, results: []string{"!hello"}, answer: "Done."},
		step{message: "another model", answer: "Done."},
	)
	script[0].Reply.Usage = anthropictest.Usage{InputTokens: 1000, CacheCreationInputTokens: 200, OutputTokens: 30}
	script[1].Reply.Usage = anthropictest.Usage{InputTokens: 50, CacheReadInputTokens: 1200, OutputTokens: 7}
	script[2].Reply.Usage = anthropictest.Usage{InputTokens: 11, OutputTokens: 3}
	s := play(t, script, "SANDBOX_WARM_WORKERS=1")
	for _, do := range begun {
		do(s)
	}
	s.say("zz1", "use a tool")
	s.say("zz1", "another model", func(r *protocol.ExecuteRequest) { r.Config.Model = `evil"} 7 model` })
	for _, user := range []string{"zz1", "zz2", "zz3"} { // one of them at least finds no warm worker
		s.exec(user, "true")
	}
	s.post("/v1/execute", `{"user_id":"zz2","message":"kill -9 $PPID; exit 3","config":{"agent":"shell"}}`, nil)
	s.post("/v1/execute", `{"user_id":"zz2","message":"sleep 100","config":{"agent":"shell","timeout_s":0.2}}`, nil)
	if _, err := s.client.PutFile(t.Context(), "zz1", "in.txt", strings.NewReader(strings.Repeat("x", 5000)), 5000); err != nil {
		t.Fatal(err)
	}
	s.get("/v1/users/zz1/files/in.txt", nil)
	s.get("/v1/nowhere", nil)
	return s
}

func TestMetricsTellWhatHasHappened(t *testing.T) {
	var before []string
	s := loaded(t, func(s *stage) { before = seriesOf(s.scrape(acceptText)) })
	for series, value := range map[string]float64{
		`carrel_runs_total{agent="claude",ending="finished"}`:                                      2,
		`carrel_runs_total{agent="shell",ending="run_timeout"}`:                                    1,
		`carrel_run_seconds_count{agent="claude"}`:                                                 2,
		`carrel_execs_total{ending="finished"}`:                                                    3,
		`carrel_exec_seconds_count`:                                                                3,
		`carrel_queue_wait_seconds_count`:                                                          7,
		`carrel_events_total{type="RUN_STARTED"}`:                                                  4,
		`carrel_events_total{type="TOOL_CALL_RESULT"}`:                                             1,
		`carrel_events_total{type="other"}`:                                                        0,
		`carrel_broker_requests_total{status="2xx"}`:                                               3,
		`carrel_broker_request_seconds_count`:                                                      3,
		`carrel_model_tokens_total{kind="output",model="other"}`:                                   3,
		`carrel_http_requests_total{route="PUT /v1/users/{user_id}/files/{path...}",status="2xx"}`: 1,
		`carrel_http_requests_total{route="POST /v1/users/{user_id}/exec",status="2xx"}`:           3,
		`carrel_http_requests_total{route="other",status="4xx"}`:                                   1,
		`carrel_http_received_bytes_total{of="files"}`:                                             5000,
		`carrel_worker_start_step_seconds_count{step="other"}`:                                     0,
		`carrel_worker_starts_total{kind="cold",result="failed"}`:                                  0,
	} {
		s.metric(series, value)
	}
	text := s.scrape(acceptText)
	if !regexp.MustCompile(`(?m)^carrel_http_sent_bytes_total{of="files"} 5\d{3}$`).MatchString(text) { // the file, and what tells of its upload
		t.Error("the bytes of the file that was sent are not counted")
	}
	for _, word := range []string{"zz1", "zz2", "zz3", "evil", "in.txt", "nowhere", "run_0"} {
		if strings.Contains(text, word) {
			t.Errorf("%q is named", word)
		}
	}
	// However they ask and whatever they name, callers make no series.
	for i := range 20 {
		req, err := http.NewRequestWithContext(t.Context(), fmt.Sprint("EVIL", i), fmt.Sprint(s.url, "/v1/evil", i), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		s.do(req)
		s.post("/v1/execute", fmt.Sprintf(`{"user_id":"zz%d","message":"x","config":{"agent":"evil%d"}}`, i, i), nil)
		s.get(fmt.Sprintf("/v1/users/evil%d/files/evil", i), nil)
	}
	if after := seriesOf(s.scrape(acceptText)); !slices.Equal(before, after) {
		t.Errorf("series:\n%s", gocmp.Diff(before, after))
	}
	s.stop()
}

// seriesOf lists carrel's own series of a scrape.
func seriesOf(scrape string) []string {
	var all []string
	for line := range strings.Lines(scrape) {
		if strings.HasPrefix(line, "carrel_") {
			all = append(all, line[:strings.LastIndexByte(line, ' ')])
		}
	}
	return all
}

func TestMetricsTellWorkersAndIsolation(t *testing.T) {
	d := serve(t, t.TempDir(), "SANDBOX_WARM_WORKERS=0")
	d.exec("ana", "true")
	text := d.scrape(acceptText)
	for _, line := range []string{
		`carrel_workers{state="idle"} 1`, "carrel_workers_max 10", "carrel_queue_runs 0", "carrel_queue_size 100",
		`carrel_model_tokens_total{kind="input",model="other"} 0`, `carrel_model_cost_usd_total{model="other"} 0`, `carrel_isolation_layer{layer="user-namespace"} 1`, "carrel_isolation_degraded ",
		`carrel_worker_starts_total{kind="cold",result="ok"} 1`, `carrel_worker_start_step_seconds_count{step="seccomp"} 1`, `carrel_worker_start_step_seconds_count{step="initialize"} 1`,
		"carrel_disk_free_bytes ", "process_open_fds ", "go_goroutines ",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("there is no %q in\n%s", line, text)
		}
	}
	d.stop()
}

const metricsPage = "../../docs/metrics.md"

// The page and the daemon tell of the same metrics, with the same labels.
func TestPageOfMetricsIsWhatTheDaemonTells(t *testing.T) {
	needsRepository(t)
	s := loaded(t)
	table := metricsTable(t, s.scrape(acceptText))
	s.stop()
	page, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- metrics: made by CARREL_UPDATE=1 go test ./cmd/carrel -run TestPageOfMetrics -->\n", "<!-- end of metrics -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	is, after, closed := strings.Cut(rest, end)
	switch {
	case !ok || !closed:
		t.Fatalf("%s has no place for the table", metricsPage)
	case is == table:
	case os.Getenv("CARREL_UPDATE") == "1":
		if err := os.WriteFile(metricsPage, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is out of date: CARREL_UPDATE=1 go test ./cmd/carrel -run TestPageOfMetrics\n%s", metricsPage, gocmp.Diff(is, table))
	}
}

// metricsTable makes the page's table of a scrape.
func metricsTable(t *testing.T, scrape string) string {
	t.Helper()
	kinds, meanings, labels := map[string]string{}, map[string]string{}, map[string]map[string]bool{}
	label := regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`)
	family := ""
	for line := range strings.Lines(scrape) {
		line = strings.TrimSuffix(line, "\n")
		switch words := strings.SplitN(line, " ", 4); {
		case strings.HasPrefix(line, "# HELP "):
			family = words[2]
			meanings[family], labels[family] = words[3], map[string]bool{}
		case strings.HasPrefix(line, "# TYPE "):
			kinds[words[2]] = words[3]
		default:
			if !strings.HasPrefix(line, family) {
				t.Fatalf("%q stands below %s", line, family)
			}
			for _, l := range label.FindAllStringSubmatch(line, -1) {
				labels[family]["`"+l[1]+"`"] = true
			}
		}
	}
	var b strings.Builder
	b.WriteString("| metric | kind | labels | unit | meaning |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		delete(labels[name], "`le`")
		shown := strings.Join(slices.Sorted(maps.Keys(labels[name])), ", ")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, kinds[name], cmp.Or(shown, "–"), unitOf(name), meanings[name])
	}
	return b.String()
}

// unitOf reads a metric's unit from its name.
func unitOf(name string) string {
	for _, unit := range []string{"seconds", "bytes", "tokens"} {
		if strings.Contains(name, "_"+unit) {
			return unit
		}
	}
	if strings.Contains(name, "_usd") {
		return "US dollars"
	}
	return "1"
}
