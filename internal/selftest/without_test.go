package selftest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
	"carrel/internal/selftest"
	"carrel/protocol"
)

// about are the rows that a layer has a part in, by whatever name.
func about(layer string) []attack.Row {
	return slices.DeleteFunc(attack.Rows(), func(r attack.Row) bool {
		return !slices.ContainsFunc(r.StoppedBy, func(by string) bool {
			return strings.HasPrefix(by, layer) || by == attack.RuleInotify && layer == jail.LayerHidepid
		})
	})
}

// breakExactly tries rows without some layers, and holds that those break of which
// the table says so.
func breakExactly(t *testing.T, rows []attack.Row, without []string) {
	t.Helper()
	o := options(t)
	o.Rows, o.Without, o.Ways = rows, without, []selftest.Way{selftest.Cold}
	verdicts, err := selftest.Run(t.Context(), o)
	if err != nil {
		cannot(t, err.Error())
	}
	lost := slices.Concat(without, jail.LandlockLacks(jail.LandlockABI()))
	for i, v := range verdicts {
		should := selftest.BreaksWithout(rows[i], lost)
		switch {
		case v.Result == selftest.NotApplicable:
		case v.Result == selftest.Broken && (!should || !v.Documented):
			t.Errorf("%s is broken, and the table says that %s still stops it: %s", v.ID, strings.Join(v.StoppedBy, ", "), v.Detail)
		case v.Result == selftest.Held && should:
			t.Errorf("%s holds, and the table says that nothing but %s stops it: %s", v.ID, strings.Join(v.StoppedBy, ", "), v.Detail)
		}
	}
}

func TestRowsThatBreakWithoutALayerAreTheDocumentedOnes(t *testing.T) {
	for _, layer := range []string{
		jail.LayerNetwork, jail.LayerIPC, jail.LayerUTS, jail.LayerCgroupNS, jail.LayerHidepid,
	} {
		t.Run(layer, func(t *testing.T) {
			breakExactly(t, about(layer), []string{layer})
		})
	}
}

// oldLandlock, set in the environment, makes this test binary one that runs on a
// kernel with that version of Landlock.
const oldLandlock = "CARREL_TEST_OLD_LANDLOCK"

// TestOnlyTheLayersThatARowNamesStopIt takes the two layers away that most rows are
// about, and tries the whole table: those that name nothing else must break, and all
// others must hold by what else they name.
func TestOnlyTheLayersThatARowNamesStopIt(t *testing.T) {
	t.Parallel()
	for _, layer := range []string{jail.LayerSeccomp, jail.LayerLandlock} {
		t.Run(layer, func(t *testing.T) {
			t.Parallel()
			breakExactly(t, attack.Rows(), []string{layer})
		})
	}
}

func TestRowsThatBreakUnderAnOldLandlockAreTheDocumentedOnes(t *testing.T) {
	if os.Getenv(oldLandlock) != "" {
		o := options(t)
		report := jail.Probe(t.Context(), jail.ProbeOptions{Worker: o.Worker, Mode: "degraded", BaseDir: t.TempDir()})
		if i := slices.IndexFunc(report.Layers, func(l protocol.Layer) bool { return l.Name == jail.LayerLandlock }); report.Layers[i].State != protocol.LayerDegraded {
			t.Fatalf("Landlock is %+v", report.Layers[i])
		}
		rows := about(jail.LayerLandlock)
		if os.Getenv(oldLandlock) != "2" { // what file rights there are is no different
			rows = slices.DeleteFunc(rows, func(r attack.Row) bool {
				return !slices.Contains(r.StoppedBy, jail.RuleLandlockTCP) && !slices.Contains(r.StoppedBy, jail.RuleLandlockScope)
			})
		}
		breakExactly(t, rows, jail.Without(report))
		return
	}
	lesshost := filepath.Join(filepath.Dir(options(t).Worker), "carrel-lesshost")
	if _, err := os.Stat(lesshost); err != nil {
		cannot(t, "make test-programs builds it: "+err.Error())
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, abi := range []string{"2", "5"} { // Debian 12's, and the last before the one that is asked for
		t.Run(abi, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), lesshost, "landlock-abi="+abi, "--", self, "-test.v", "-test.run", "^"+strings.Split(t.Name(), "/")[0]+"$")
			cmd.Env = append(os.Environ(), oldLandlock+"="+abi)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
