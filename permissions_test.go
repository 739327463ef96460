package carrel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFaultyPermissionsStopTheStart(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct{ content, want string }{
		"missing.json": {"", "no such file"},
		"words.json":   {`{"dney": ["bash"]}`, `unknown field "dney"`},
		"rule.json":    {`{"deny": ["bsah"]}`, `there is no tool "bsah"`},
		"url.json":     {`{"hooks": [{"event": "stop", "webhook": "ftp://x/secret"}]}`, "must be an http or https URL"},
	} {
		file := filepath.Join(dir, name)
		if tt.content != "" {
			if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		o := &Orchestrator{cfg: Config{PermissionsFile: file}}
		if err := o.readPermissions(); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&Orchestrator{}).readPermissions(); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

func TestPermissionsComeToTheWorkerWithoutURLs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(file, []byte(`{"ask": ["bash"], "hooks": [{"event": "stop", "webhook": "https://x/?token=secret"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	o := &Orchestrator{cfg: Config{PermissionsFile: file}}
	if err := o.readPermissions(); err != nil {
		t.Fatal(err)
	}
	p := o.permissions.ForWorker()
	if p.Hooks[0].Webhook == "" || strings.Contains(p.Hooks[0].Webhook, "secret") || !strings.Contains(o.permissions.Hooks[0].Webhook, "secret") {
		t.Errorf("%+v of %+v", p, o.permissions)
	}
}
