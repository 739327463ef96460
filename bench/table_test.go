package bench

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// subject is one of those that take turns in a case. take measures one round: a figure
// a sample, in the case's unit.
type subject struct {
	name string
	take func() []float64
}

// contest is one case: subjects that do the same.
type contest struct {
	name, unit string
	// more: more is better, as for a rate.
	more bool
	// beside is the subject that the others' medians are divided by.
	beside   string
	rounds   int
	subjects []subject
	targets  []target
}

// target is what a subject's quantile should be to another's: at most that many times as
// much, where less is better, else at least. Where fixed is not 0, it stands for the
// other, which could not be measured here; beside says what it is.
type target struct {
	subject, beside string
	at              float64 // 0.5 = the median
	times           float64
	fixed           float64
}

// Figures is one subject's row in the kept results.
type Figures struct {
	Case    string  `json:"case"`
	Subject string  `json:"subject"`
	Unit    string  `json:"unit"`
	N       int     `json:"n"`
	Min     float64 `json:"min"`
	P50     float64 `json:"p50"`
	P95     float64 `json:"p95"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
	Beside  string  `json:"beside,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // of medians
}

// Held is what became of a target.
type Held struct {
	Case    string  `json:"case"`
	Subject string  `json:"subject"`
	At      float64 `json:"at"` // the quantile
	Beside  string  `json:"beside"`
	Ratio   float64 `json:"ratio"`
	Target  float64 `json:"target"`
	Held    bool    `json:"held"`
}

// Results is what one run of all cases gave.
type Results struct {
	Date     time.Time `json:"date"`
	Commit   string    `json:"commit"`
	Host     string    `json:"host"`
	Kernel   string    `json:"kernel"`
	CPU      string    `json:"cpu"`
	CPUs     int       `json:"cpus"`
	Go       string    `json:"go"`
	Figures  []Figures `json:"figures"`
	Targets  []Held    `json:"targets"`
	LeftOut  []string  `json:"left_out"`
	Duration string    `json:"duration"`
}

// run has the subjects take turns, and keeps what came of it.
func (r *Results) run(t *testing.T, c contest) {
	t.Helper()
	began := time.Now()
	samples := make(map[string][]float64)
	for round := range c.rounds {
		for i := range c.subjects {
			s := c.subjects[(i+round)%len(c.subjects)] // nobody always comes after the same
			samples[s.name] = append(samples[s.name], s.take()...)
		}
	}
	if len(c.subjects) == 0 {
		t.Fatalf("%s: nothing to measure", c.name)
	}
	base := quantile(samples[c.beside], 0.5)
	for _, s := range c.subjects {
		all := samples[s.name]
		f := Figures{
			Case: c.name, Subject: s.name, Unit: c.unit, N: len(all), Min: quantile(all, 0), P50: quantile(all, 0.5),
			P95: quantile(all, 0.95), P99: quantile(all, 0.99), Max: quantile(all, 1),
		}
		if base > 0 {
			f.Beside, f.Ratio = c.beside, f.P50/base
		}
		r.Figures = append(r.Figures, f)
	}
	for _, g := range c.targets {
		of, beside := quantile(samples[g.subject], g.at), quantile(samples[g.beside], g.at)
		if g.fixed != 0 {
			beside = g.fixed
		}
		if of == 0 || beside == 0 {
			continue // the peer is not here, and that was said
		}
		h := Held{Case: c.name, Subject: g.subject, At: g.at, Beside: g.beside, Ratio: of / beside, Target: g.times}
		h.Held = h.Ratio <= g.times
		if c.more {
			h.Held = h.Ratio >= g.times
		}
		r.Targets = append(r.Targets, h)
	}
	t.Logf("%s: %s", c.name, time.Since(began).Round(time.Second))
}

// quantile is the sample below which that share lies; 0 of none.
func quantile(all []float64, share float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(math.Round(share*float64(len(sorted)-1)))]
}

// String is the table that is printed.
func (r *Results) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "carrel %s on %s, %d processors, Linux %s, %s; %s\n\n", r.Commit, r.CPU, r.CPUs, r.Kernel, r.Go, r.Date.Format(time.DateOnly))
	rows := func(head string, fill func(row func(format string, args ...any))) {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		row := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // into memory
		row("%s", head)
		fill(row)
		_ = w.Flush()
	}
	rows("case\tsubject\tunit\tn\tmin\tp50\tp95\tp99\tmax\tratio of p50", func(row func(format string, args ...any)) {
		last := ""
		for _, f := range r.Figures {
			name, ratio := f.Case, ""
			if name == last {
				name = ""
			}
			last = f.Case
			if f.Beside != "" {
				ratio = short(f.Ratio) + " × " + f.Beside
			}
			row("%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s", name, f.Subject, f.Unit, f.N, short(f.Min), short(f.P50), short(f.P95), short(f.P99), short(f.Max), ratio)
		}
	})
	if len(r.Targets) > 0 {
		b.WriteByte('\n')
		rows("target\tsubject\tat\tis\twanted\theld", func(row func(format string, args ...any)) {
			for _, h := range r.Targets {
				row("%s\t%s\tp%.0f\t%s × %s\t%s\t%t", h.Case, h.Subject, h.At*100, short(h.Ratio), h.Beside, short(h.Target), h.Held)
			}
		})
	}
	for _, why := range r.LeftOut {
		fmt.Fprintf(&b, "\nleft out: %s", why)
	}
	fmt.Fprintf(&b, "\n%s in all\n", r.Duration)
	return b.String()
}

// short shows three digits that count.
func short(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 0.095:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

// keep writes the results to dir/DATE-HOST.json.
func (r *Results) keep(t *testing.T, dir string) string {
	t.Helper()
	content, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	path := filepath.Join(dir, r.Date.Format(time.DateOnly)+"-"+r.Host+".json")
	if err == nil {
		err = os.WriteFile(path, append(content, '\n'), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func newResults(t *testing.T) *Results {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	commit, err := exec.CommandContext(t.Context(), "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	return &Results{
		Date: time.Now(), Commit: strings.TrimSpace(string(commit)), Host: host, CPUs: runtime.NumCPU(), Go: runtime.Version(),
		Kernel: firstLine(t, "/proc/sys/kernel/osrelease", ""), CPU: firstLine(t, "/proc/cpuinfo", "model name\t: "), LeftOut: []string{},
	}
}

// firstLine is what follows a prefix on the first line of a file that has it.
func firstLine(t *testing.T, path, prefix string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}
