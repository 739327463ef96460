package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"carrel/internal/ordeal"
)

// The files that stand in deploy/ for whoever runs carrel.
const (
	dashboardFile = "../../deploy/grafana/carrel.json"
	alertsFile    = "../../deploy/prometheus/alerts.yaml"
)

// evaluated is what a query gives: tools/promql has the meaning of its fields.
type evaluated struct {
	Query   string   `json:"query"`
	Alert   string   `json:"alert"`
	Samples []string `json:"samples"`
	Firing  []string `json:"firing"`
	Error   string   `json:"error"`
}

// needsRepository skips a test where the package stands alone: scripts/as-user.sh.
func needsRepository(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.FromSlash(alertsFile)); err != nil && os.Geteuid() != 0 {
		t.Skip("needs root: the ordinary user's half has no repository around it")
	}
}

// engine is the program of tools/promql: the gate's, or one that is built now.
func engine(t *testing.T) string {
	t.Helper()
	needsRepository(t)
	if os.Getenv("SANDBOX_WORKER_PATH") != "" {
		return ordeal.Program(t, "carrel-promql")
	}
	path := filepath.Join(t.TempDir(), "carrel-promql")
	build := exec.CommandContext(t.Context(), "go", "-C", "../../tools/promql", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// evaluate has Prometheus' engine answer queries and rules over scrapes.
func evaluate(t *testing.T, contentType string, scrapes [][]byte, queries []string, rules string) []evaluated {
	t.Helper()
	request, err := json.Marshal(map[string]any{"content_type": contentType, "scrapes": scrapes, "queries": queries, "rules": rules})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), engine(t))
	cmd.Stdin = bytes.NewReader(request)
	var told bytes.Buffer
	cmd.Stderr = &told
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, told.String())
	}
	var answer struct{ Results []evaluated }
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Results
}

// dashboardQueries are those of the panels and of the variables, as Grafana asks them.
func dashboardQueries(t *testing.T) []string {
	t.Helper()
	needsRepository(t)
	text, err := os.ReadFile(filepath.FromSlash(dashboardFile))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Type    string
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			queries = append(queries, target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		if rest, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			series, label, _ := strings.Cut(strings.TrimSuffix(rest, ")"), ", ")
			queries = append(queries, "count by ("+label+") ("+series+")")
		}
	}
	grafana := strings.NewReplacer("$__rate_interval", "5m", "$job", "carrel", "$instance", ".+")
	for i, q := range queries {
		if queries[i] = grafana.Replace(q); strings.Contains(queries[i], "$") {
			t.Errorf("%q has a variable that is not known here", q)
		}
	}
	return queries
}

// Each query of the dashboard and each alert is one that Prometheus takes and that has an
// answer from a running daemon, whichever form of histograms is scraped: no name, label
// or label's value in them is misspelt.
func TestDashboardAndAlertsAnswerOnARunningDaemon(t *testing.T) {
	queries := dashboardQueries(t)
	rules, err := os.ReadFile(filepath.FromSlash(alertsFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(queries) < 45 || bytes.Count(rules, []byte("- alert:")) < 15 {
		t.Fatalf("%d queries, and these rules:\n%s", len(queries), rules)
	}
	before := map[string][]byte{}
	s := loaded(t, func(s *stage) {
		for _, format := range []string{acceptText, acceptProtobuf} {
			before[format] = []byte(s.scrape(format))
		}
	})
	s.metric("carrel_queue_wait_seconds_count", 7)
	s.metric(`carrel_broker_requests_total{status="2xx"}`, 3)
	for format, first := range before {
		for _, r := range evaluate(t, format, [][]byte{first, []byte(s.scrape(format))}, queries, string(rules)) {
			answers := 0
			for _, sample := range r.Samples {
				if !strings.Contains(sample, "=> NaN ") {
					answers++
				}
			}
			switch {
			case r.Error != "":
				t.Errorf("%s %s: %s", r.Alert, r.Query, r.Error)
			case len(r.Samples) == 0, answers == 0 && r.Alert == "":
				t.Errorf("%s: %s %s has no answer: %q", format, r.Alert, r.Query, r.Samples)
			case len(r.Firing) > 0 && r.Alert != "CarrelIsolationDegraded" && r.Alert != "CarrelDiskFills": // which are the machine's
				t.Errorf("%s: %s fires at a healthy daemon: %q", format, r.Alert, r.Firing)
			}
		}
	}
	s.stop()
}

// The control: what is misspelt has no answer, or is refused.
func TestMisspeltQueriesHaveNoAnswer(t *testing.T) {
	needsRepository(t)
	d := serve(t, t.TempDir(), "SANDBOX_WARM_WORKERS=0")
	scrape := []byte(d.scrape(acceptText))
	d.stop()
	results := evaluate(t, acceptText, [][]byte{scrape, scrape}, []string{
		`carrel_workers`, `carrel_worker`, `carrel_workers{state="idel"}`, `sum by (state) (carrel_workers`, `carrel_run_seconds`,
	}, "groups:\n- name: g\n  rules:\n  - {alert: A, expr: carrel_queue_run > 5}\n  - {alert: B, expr: carrel_workers_max > 5}\n")
	var got []string
	for _, r := range results {
		switch {
		case r.Error != "":
			got = append(got, "refused")
		case len(r.Firing) > 0:
			got = append(got, "fires")
		case len(r.Samples) > 0:
			got = append(got, "answers")
		default:
			got = append(got, "nothing")
		}
	}
	want := "answers nothing nothing refused nothing nothing fires"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("%s, want %s", s, want)
	}
}
