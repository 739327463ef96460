package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"carrel/internal/ordeal"
)

// judge is go-judge, which runs commands in containers that it uses again, over HTTP, as
// it comes: without seccomp and Landlock.
type judge struct {
	t   *testing.T
	url string
}

// judgeGroup is what its control groups are called.
const judgeGroup = "carrel-bench-go-judge"

// newJudge starts the program that CARREL_BENCH_GO_JUDGE names; nil, if it names none. No
// registry has it: it is built from github.com/criyle/go-judge, ./cmd/go-judge.
func newJudge(t *testing.T, r *Results) *judge {
	t.Helper()
	program := os.Getenv("CARREL_BENCH_GO_JUDGE")
	if program == "" {
		r.LeftOut = append(r.LeftOut, "go-judge: CARREL_BENCH_GO_JUDGE names no program; figures of another machine stand for it")
		return nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // for its number only
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	cmd := exec.CommandContext(t.Context(), program, "-http-addr", address, "-silent", "-release", "-cgroup-prefix", judgeGroup)
	cmd.Dir = t.TempDir() // where it looks for a configuration
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()
		ordeal.Eventually(t, "go-judge's control groups are gone", removeJudgeGroups)
	})
	j := &judge{t: t, url: "http://" + address + "/run"}
	ordeal.Eventually(t, "go-judge listens", func() bool { return j.post([]string{"/bin/true"}) == nil })
	return j
}

// removeJudgeGroups removes what go-judge leaves, and reports whether nothing is left.
func removeJudgeGroups() bool {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + judgeGroup)
	for _, top := range tops {
		var all []string
		_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(all) {
			_ = os.Remove(dir) // busy for a moment, or met before by its mount's other name
		}
	}
	tops, _ = filepath.Glob("/sys/fs/cgroup/*/" + judgeGroup)
	return len(tops) == 0
}

func (j *judge) run(args []string) {
	if err := j.post(args); err != nil {
		j.t.Errorf("go-judge: %v", err)
	}
}

func (j *judge) post(args []string) error {
	type file map[string]any
	body, err := json.Marshal(map[string]any{"cmd": []any{map[string]any{
		"args": args, "env": []string{"PATH=/usr/bin:/bin"}, "cpuLimit": 10_000_000_000, "memoryLimit": 256 << 20, "procLimit": 50,
		"files": []file{{"content": ""}, {"name": "stdout", "max": 10240}, {"name": "stderr", "max": 10240}},
	}}})
	if err != nil {
		return err
	}
	resp, err := caller.Post(j.url, "application/json", bytes.NewReader(body)) //nolint:noctx // a benchmark's, on loopback
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var results []struct{ Status string }
	if err := json.Unmarshal(content, &results); err != nil || len(results) != 1 || results[0].Status != "Accepted" || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.300s", resp.Status, content)
	}
	return nil
}

// target is to be no slower; where there is no go-judge, than it was on another machine of
// two processors.
func (j *judge) target(rate bool) target {
	g := target{subject: "carrel", beside: "go-judge", at: 0.5, times: 1}
	if j == nil {
		g.beside, g.fixed = "go-judge's 6.7 ms", 6.7
		if rate {
			g.beside, g.fixed = "go-judge's 173/s", 173
		}
	}
	return g
}
