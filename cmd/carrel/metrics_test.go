package main

import (
	"net/http"
	"strings"
	"testing"
)

func TestMetricsTellWorkersAndIsolation(t *testing.T) {
	d := serve(t, t.TempDir(), "SANDBOX_WARM_WORKERS=0")
	d.exec("ana", "true")
	status, body := d.get("/metrics", nil)
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	text := string(body)
	for _, line := range []string{
		`carrel_workers{state="idle"} 1`, "carrel_workers_max 10", "carrel_queue_runs 0", "carrel_queue_size 100",
		`carrel_model_tokens_total{kind="input",model="other"} 0`, `carrel_model_cost_usd_total{model="other"} 0`, `carrel_isolation_layer{layer="user-namespace"} 1`, "carrel_isolation_degraded ",
		"process_open_fds ", "go_goroutines ",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("there is no %q in\n%s", line, text)
		}
	}
	if strings.Contains(text, "ana") {
		t.Error("a user is named")
	}
	d.stop()
}
