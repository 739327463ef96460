package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCountsLeafTestsAndWhatHasNoTest(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events string
		want   Record
		prints string // has to be in what is shown
	}{
		{
			name: "a test with subtests is the sum of them",
			events: `{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"run","Package":"a","Test":"TestX/one"}
{"Action":"pass","Package":"a","Test":"TestX/one"}
{"Action":"run","Package":"a","Test":"TestX/two"}
{"Action":"output","Package":"a","Test":"TestX/two","Output":"the second is wrong\n"}
{"Action":"fail","Package":"a","Test":"TestX/two"}
{"Action":"fail","Package":"a","Test":"TestX"}
{"Action":"fail","Package":"a","Elapsed":1.5}`,
			want:   Record{Passed: 1, Failed: 1, Ran: []string{"a.TestX/one"}},
			prints: "the second is wrong\n",
		},
		{
			name: "a subtest whose ending is lost passed with its parent",
			events: `{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"run","Package":"a","Test":"TestX/one"}
{"Action":"run","Package":"a","Test":"TestX/one/deep"}
{"Action":"pass","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a"}`,
			want:   Record{Passed: 1, Ran: []string{"a.TestX", "a.TestX/one", "a.TestX/one/deep"}},
			prints: "ok    a ",
		},
		{
			name: "a subtest that never ended counts",
			events: `{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"run","Package":"a","Test":"TestX/one"}
{"Action":"fail","Package":"a"}`,
			want:   Record{Failed: 1},
			prints: "--- did not end: TestX/one\n",
		},
		{
			name: "a parent that fails by itself counts",
			events: `{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"run","Package":"a","Test":"TestX/one"}
{"Action":"pass","Package":"a","Test":"TestX/one"}
{"Action":"fail","Package":"a","Test":"TestX"}
{"Action":"fail","Package":"a"}`,
			want:   Record{Passed: 1, Failed: 1, Ran: []string{"a.TestX/one"}},
			prints: "FAIL  a ",
		},
		{
			name: "a package that fails although its tests pass counts",
			events: `{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a","Test":"TestX"}
{"Action":"output","Package":"a","Output":"goleak: found a goroutine\n"}
{"Action":"fail","Package":"a"}`,
			want:   Record{Passed: 1, Failed: 1, Ran: []string{"a.TestX"}},
			prints: "goleak: found a goroutine\n",
		},
		{
			name: "a build failure counts and is shown",
			events: `{"ImportPath":"a [a.test]","Action":"build-output","Output":"a.go:3:1: undefined: b\n"}
{"ImportPath":"a [a.test]","Action":"build-fail"}
{"Action":"start","Package":"a"}
{"Action":"fail","Package":"a","FailedBuild":"a [a.test]"}`,
			want:   Record{Failed: 1},
			prints: "a.go:3:1: undefined: b\n",
		},
		{
			name: "a test without an end counts",
			events: `{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"output","Package":"a","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"a"}`,
			want:   Record{Failed: 1},
			prints: "--- did not end: TestX\n",
		},
		{
			name:   "a package without a result counts",
			events: `{"Action":"start","Package":"a"}`,
			want:   Record{Failed: 1},
			prints: "(gave no result)",
		},
		{
			name: "a skip keeps the reason that was logged last",
			events: `{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"output","Package":"a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"output","Package":"a","Test":"TestX","Output":"    a_test.go:7: looked for it\n"}
{"Action":"output","Package":"a","Test":"TestX","Output":"    a_test.go:9: no Landlock: ABI 0\n"}
{"Action":"output","Package":"a","Test":"TestX","Output":"--- SKIP: TestX (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a"}`,
			want: Record{Skips: []Skip{{Test: "a.TestX", Reason: "no Landlock: ABI 0"}}},
		},
		{
			name:   "nothing at all is a failure",
			events: `{"Action":"skip","Package":"a"}`,
			want:   Record{Failed: 1},
			prints: "no test ran",
		},
		{
			name:   "what is no event is shown as it stands",
			events: "go: cannot find main module\n",
			want:   Record{Failed: 1},
			prints: "go: cannot find main module\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			got, err := count(strings.NewReader(tt.events), &out)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
			if !strings.Contains(out.String(), tt.prints) {
				t.Errorf("shown:\n%s\nwithout %q", out.String(), tt.prints)
			}
		})
	}
}

func TestOutputOfWhatPassedIsNotShown(t *testing.T) {
	var out bytes.Buffer
	_, err := count(strings.NewReader(`{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"output","Package":"a","Test":"TestX","Output":"chatter\n"}
{"Action":"pass","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a"}`), &out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "chatter") {
		t.Errorf("shown:\n%s", out.String())
	}
}

func TestTotalDecidesAboutSkips(t *testing.T) {
	skip := func(reason string) []Skip { return []Skip{{Test: "a.TestX", Reason: reason}} }
	for _, tt := range []struct {
		name    string
		records []Record
		require bool
		last    string
	}{
		{
			name:    "a skip alone fails nothing",
			records: []Record{{As: "root", Passed: 3, Skips: skip("no Landlock")}},
			last:    "3 passed, 0 failed",
		},
		{
			name:    "where the kernel is required it fails",
			records: []Record{{As: "root", Passed: 3, Skips: skip("no Landlock")}},
			require: true,
			last:    "3 passed, 1 failed",
		},
		{
			name: "skipped twice it fails once",
			records: []Record{
				{As: "root", Passed: 3, Skips: skip("no Landlock")},
				{As: "user", Passed: 2, Skips: skip("no Landlock")},
			},
			require: true,
			last:    "5 passed, 1 failed",
		},
		{
			name: "a test that passed in the other run is made good",
			records: []Record{
				{As: "root", Passed: 3, Ran: []string{"a.TestX"}},
				{As: "user", Passed: 2, Skips: skip("needs root")},
			},
			require: true,
			last:    "5 passed, 0 failed",
		},
		{
			name:    "a developer without root is not asked for root",
			records: []Record{{As: "user", Passed: 2, Skips: skip("needs root: one uid per user")}},
			require: true,
			last:    "2 passed, 0 failed",
		},
		{
			name:    "a test for the ordinary user that none ran fails",
			records: []Record{{As: "root", Passed: 2, Skips: skip("needs an ordinary user")}, {As: "user", Passed: 1}},
			require: true,
			last:    "3 passed, 1 failed",
		},
		{
			name:    "steps count as checks",
			records: []Record{{Name: "format", Passed: 1}, {Name: "lint", Failed: 1}},
			last:    "1 passed, 1 failed",
		},
		{
			name: "an empty ledger is a failure",
			last: "0 passed, 1 failed",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := printTotal(&out, tt.records, tt.require)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; got != tt.last {
				t.Errorf("last line %q, want %q", got, tt.last)
			}
			if failed := errors.Is(err, errFailed); failed != !strings.HasSuffix(tt.last, " 0 failed") {
				t.Errorf("error %v with %q", err, tt.last)
			}
		})
	}
}

func TestLedgerKeepsEveryRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	pass := `{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a"}`
	for _, as := range []string{"root", "user"} {
		if err := run([]string{"-ledger", path, "-as", as}, strings.NewReader(pass), io.Discard, true); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := run([]string{"-total", path}, nil, &out, true); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "2 passed, 0 failed\n"; got != want {
		t.Errorf("total %q, want %q", got, want)
	}
}

func TestBrokenLedgerIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	if err := os.WriteFile(path, []byte(`{"name":"a","passed":1}`+"\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := run([]string{"-total", path}, nil, io.Discard, false)
	if err == nil || errors.Is(err, errFailed) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error %v, want one that names line 2", err)
	}
}

// The format of the stream is the go command's to change, so one test reads a real
// one: a module with each way to fail.
func TestReadsTheGoCommandsOwnStream(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":           "module m\n\ngo 1.26\n",
		"build/b_test.go":  "package build\n\nvar x int = \"\"\n",
		"main/m_test.go":   "package main\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestMain(m *testing.M) { m.Run(); os.Exit(3) }\n\nfunc TestPasses(*testing.T) {}\n",
		"panics/p_test.go": "package panics\n\nimport \"testing\"\n\nfunc TestPanics(*testing.T) { panic(\"oh\") }\n",
		"empty/e.go":       "package empty\n",
		"skips/s_test.go":  "package skips\n\nimport \"testing\"\n\nfunc TestSkips(t *testing.T) { t.Log(\"first\"); t.Skip(\"needs root: a reason\") }\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-json", "-vet=off", "./...")
	cmd.Dir = dir
	stream, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		t.Fatalf("go test: %v, want a failing exit status", err)
	}
	var out bytes.Buffer
	got, err := count(bytes.NewReader(stream), &out)
	if err != nil {
		t.Fatal(err)
	}
	want := Record{
		Passed: 1,
		Failed: 3, // build, main, panics
		Skips:  []Skip{{Test: "m/skips.TestSkips", Reason: "needs root: a reason"}},
		Ran:    []string{"m/main.TestPasses"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s\nshown:\n%s", diff, out.String())
	}
	for _, part := range []string{"b_test.go:3", "panic: oh"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("shown:\n%s\nwithout %q", out.String(), part)
		}
	}
}
