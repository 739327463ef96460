package main

import (
	"encoding/json"
	"strings"
	"testing"

	"carrel/internal/installation"
)

func TestDoctorTellsOfTheInstallation(t *testing.T) {
	env := environment(t.TempDir())
	text, stderr, _ := command(t, env, "doctor")
	_, told, ok := strings.Cut(text, "\nInstallation\n")
	if !ok {
		t.Fatalf("there is no such part: %s%s", text, stderr)
	}
	report, _, _ := command(t, env, "doctor", "--json")
	var r doctorReport
	if err := json.Unmarshal([]byte(report), &r); err != nil || len(r.Layers) == 0 || len(r.Installation) < 13 {
		t.Fatalf("%v: %s", err, report)
	}
	for _, f := range r.Installation {
		if f.Detail == "" || (f.State == installation.Warn) != (f.Fix != "") {
			t.Errorf("%+v", f)
		}
		if !strings.Contains(told, f.Name) || !strings.Contains(told, f.Detail) || !strings.Contains(told, f.Fix) {
			t.Errorf("the text does not tell of %+v", f)
		}
	}
}
