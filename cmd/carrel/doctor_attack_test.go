package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"carrel/internal/jail"
	"carrel/internal/selftest"
)

// attackReport runs doctor --attack for a few rows, one from each side of the daemon.
func attackReport(t *testing.T, on lesser, mode string, rows ...string) (r selftest.Report, stderr string, status int) {
	t.Helper()
	tmp, err := os.MkdirTemp("", "carrel-") //nolint:usetesting // short: sockets are planted in it
	if err == nil {
		err = os.Chmod(tmp, 0o711) // throw-away sandboxes are walked to by other uids
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	args := []string{program(t), "doctor", "--attack", "--json"}
	for _, id := range rows {
		args = append(args, "--row", id)
	}
	env := environment(t.TempDir(), "SANDBOX_ISOLATION="+mode, "TMPDIR="+tmp)
	stdout, stderr, status := on.on(t, env, "", args...)
	defer func() {
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}()
	if err := json.Unmarshal([]byte(stdout), &r); err != nil && len(stdout) > 0 {
		t.Fatalf("%v in %q", err, stdout)
	}
	return r, stderr, status
}

func TestAttackReportTellsEveryRowItsLayersAndASum(t *testing.T) {
	rows := []string{"keyctl", "tcp-bind", "mem-worker", "api-no-key"}
	r, stderr, status := attackReport(t, lesser{}, "strict", rows...)
	if status != 0 || r.Held != len(rows) || r.Broken != 0 || r.NotApplicable != 0 || r.Kernel == "" || len(r.Layers) < 9 || r.Root != (os.Geteuid() == 0) {
		t.Fatalf("status %d, %+v, %s", status, r, stderr)
	}
	var ids []string
	for _, v := range r.Rows {
		ids = append(ids, v.ID)
		if v.Result != selftest.Held || v.Control != "succeeded" || len(v.StoppedBy) == 0 || v.Group == "" || v.Tier == "" || v.Title == "" {
			t.Errorf("%+v", v)
		}
	}
	slices.Sort(ids)
	slices.Sort(rows)
	if !slices.Equal(ids, rows) {
		t.Errorf("rows %q, want %q", ids, rows)
	}
	hash := r.Hash
	r.Hash = ""
	content, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(content); hash != hex.EncodeToString(sum[:]) {
		t.Errorf("hash %s is not that of the report", hash)
	}
}

func TestAttackThatSucceedsEndsWithStatusOneAndIsNamed(t *testing.T) {
	lacks := lesser{lacks: []string{"landlock"}}
	r, stderr, status := attackReport(t, lacks, "degraded", "tcp-bind", "keyctl")
	if status != 1 || r.Broken != 1 || r.Held != 1 {
		t.Fatalf("status %d, %+v, %s", status, r, stderr)
	}
	for _, v := range r.Rows {
		if broke := v.ID == "tcp-bind"; (v.Result == selftest.Broken) != broke || v.Documented != broke {
			t.Errorf("%+v", v)
		}
		if v.ID == "tcp-bind" && !slices.Contains(v.StoppedBy, jail.RuleLandlockTCP) {
			t.Errorf("stopped by %q", v.StoppedBy)
		}
	}
	if _, stderr, status := attackReport(t, lacks, "strict", "tcp-bind"); status != 1 || !strings.Contains(stderr, jail.LayerLandlock) {
		t.Errorf("strict: status %d, %s", status, stderr)
	}
}

func TestAttackOfARowThatIsNotThereIsAnError(t *testing.T) {
	for _, c := range []struct {
		name, says string
		args       []string
	}{
		{"unknown", `there is no row "keyc"`, []string{"--attack", "--row", "keyctl", "--row", "keyc"}},
		{"without --attack", "--row is for --attack", []string{"--row", "keyctl"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program(t), append([]string{"doctor"}, c.args...)...)
			cmd.Env = environment(t.TempDir())
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
