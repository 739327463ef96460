package jail

import (
	"strings"
	"testing"
)

func TestAllowedNamesReplaceDefaultsButNotWhoseSandboxItIs(t *testing.T) {
	got := make(map[string]string)
	for _, entry := range BaseEnv("ana", []string{"LANG=de_DE.UTF-8", "HOME=/root", "SANDBOX_USER_ID=bob", "EXTRA=1"}) {
		name, value, _ := strings.Cut(entry, "=")
		got[name] = value
	}
	for name, want := range map[string]string{
		"LANG": "de_DE.UTF-8", "EXTRA": "1", "TZ": "UTC", "HOME": WorkspaceDir, "SANDBOX_USER_ID": "ana", "USER": "agent",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}
