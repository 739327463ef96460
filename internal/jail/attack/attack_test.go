package attack_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
)

// TestEveryRowIsWellFormed holds what doctor and the reports rely on.
func TestEveryRowIsWellFormed(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range attack.Rows() {
		if r.ID == "" || seen[r.ID] || r.Title == "" || r.Group == "" || len(r.StoppedBy) == 0 || r.Attack == nil || r.Control == "" {
			t.Errorf("row %q is incomplete or there twice: %+v", r.ID, r)
		}
		if (r.Tier == attack.Worker) != strings.HasPrefix(r.ID, "worker-") {
			t.Errorf("row %q is of the %s tier", r.ID, r.Tier)
		}
		seen[r.ID] = true
	}
}

func of(tier attack.Tier) []attack.Row {
	return slices.DeleteFunc(attack.Rows(), func(r attack.Row) bool { return r.Tier != tier })
}

// judge runs one row's subtest: it must have failed inside and succeeded outside.
// inside gives its result, or false if the row ended its process.
func judge(t *testing.T, r attack.Row, control map[string]attack.Result, inside func(*testing.T) (attack.Result, bool)) {
	t.Run(r.ID, func(t *testing.T) {
		outside, tried := control[r.ID]
		if !tried {
			t.Logf("not applicable: the control needs %s", r.Control)
		}
		got, ended := inside(t)
		switch {
		case ended && !outside.Absent:
			t.Errorf("%s: ended the attacker without a result", r.Title)
		case got.Succeeded:
			t.Errorf("%s: succeeded, though %s should stop it", r.Title, strings.Join(r.StoppedBy, ", "))
		case outside.Absent:
			t.Logf("not applicable: this machine has not got it (%s)", outside.Error)
		case tried && !outside.Succeeded:
			t.Errorf("%s: the control failed as well (%s), so its failure inside (%s) proves nothing", r.Title, outside.Error, got.Error)
		default:
			t.Logf("held: %s", got.Error)
		}
	})
}

func TestToolTierHolds(t *testing.T) {
	p := build(t)
	rows := of(attack.Tool)
	control := controls(t, p, rows)
	for _, way := range ways() {
		t.Run(way, func(t *testing.T) {
			s := start(t, p.worker, way, jail.BaseEnv("attacked", nil))
			plant(t, s, p)
			c := connect(t, s)
			target := attack.InSandbox()
			listen(t, &target)
			env := map[string]string{attack.TargetEnv: encode(t, target)}
			for _, r := range rows {
				judge(t, r, control, func(t *testing.T) (attack.Result, bool) {
					out := exec1(t, c, env, "/workspace/attacker", "row", r.ID)
					got, ok := results(t, strings.NewReader(out.Stdout))[r.ID]
					if !ok {
						t.Logf("%+v", out)
					}
					return got, !ok
				})
			}
		})
	}
}

func TestWorkerTierHolds(t *testing.T) {
	p := build(t)
	rows := of(attack.Worker)
	control := controls(t, p, rows)
	ids := make([]string, 0, len(rows))
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	for _, way := range ways() {
		t.Run(way, func(t *testing.T) {
			target := attack.InSandbox()
			listen(t, &target)
			s := start(t, p.attacker, way, append(jail.BaseEnv("attacked", nil),
				attack.TargetEnv+"="+encode(t, target), attack.RowsEnv+"="+strings.Join(ids, " ")))
			plant(t, s, p)
			if _, err := s.in.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
			got := results(t, s.out)
			for _, r := range rows {
				judge(t, r, control, func(*testing.T) (attack.Result, bool) {
					result, ok := got[r.ID]
					return result, !ok
				})
			}
		})
	}
}

// TestControlsOfTheRowsAreWorthSomething guards against a table that is not
// applicable as a whole.
func TestControlsOfTheRowsAreWorthSomething(t *testing.T) {
	p := build(t)
	rows := of(attack.Tool)
	succeeded := 0
	for _, r := range controls(t, p, rows) {
		if r.Succeeded {
			succeeded++
		}
	}
	want := len(rows) / 2
	if os.Geteuid() == 0 {
		want = len(rows) * 3 / 4
	}
	if succeeded < want {
		t.Errorf("%d of %d controls succeeded, want %d", succeeded, len(rows), want)
	}
	t.Logf("%d of %d controls succeeded", succeeded, len(rows))
}
