package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"carrel/internal/jail"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

// lesser is a host that lacks something (package lesshost).
type lesser struct {
	lacks []string
	// layers are those that its report does not call ok, of the required.
	layers []string
	state  protocol.LayerState
	// says stands in the doctor's text besides: why, what it means, how to mend it.
	says  []string
	vital bool // there is no sandbox without it, in either mode
	root  bool // it takes root to take it away
}

func lesserHosts() []lesser {
	const missing, degraded = protocol.LayerMissing, protocol.LayerDegraded
	signals := "tools can signal the worker"
	hosts := []lesser{
		{lacks: []string{"user-namespace"}, layers: []string{jail.LayerUser}, state: missing, vital: true, says: []string{"operation not permitted", "seccomp profile"}},
		{lacks: []string{"user-namespace=limit"}, layers: []string{jail.LayerUser}, state: missing, vital: true, says: []string{"sysctl -w user.max_user_namespaces"}},
		{lacks: []string{"mount-namespace"}, layers: []string{jail.LayerMount}, state: missing, vital: true, says: []string{"the host's files are in reach"}},
		{lacks: []string{"pid-namespace"}, layers: []string{jail.LayerPID}, state: missing, vital: true, says: []string{"CONFIG_PID_NS"}},
		{lacks: []string{"no-new-privs"}, layers: []string{jail.LayerNoNewPrivs}, state: missing, vital: true, says: []string{"set-user-id programs"}},
		{lacks: []string{"network-namespace"}, layers: []string{jail.LayerNetwork}, state: missing, says: []string{"the host's network is in reach", "CONFIG_NET_NS"}},
		{lacks: []string{"ipc-namespace", "cgroup-namespace"}, layers: []string{jail.LayerIPC, jail.LayerCgroupNS}, state: missing, says: []string{"CONFIG_IPC_NS", "CONFIG_CGROUPS"}},
		{lacks: []string{"uts-namespace"}, layers: []string{jail.LayerUTS}, state: missing, says: []string{"the host's name shows"}},
		{lacks: []string{"landlock"}, layers: []string{jail.LayerLandlock}, state: missing, says: []string{signals, "by TCP", "lsm="}},
		{lacks: []string{"landlock=off"}, layers: []string{jail.LayerLandlock}, state: missing, says: []string{signals, "by TCP", "lsm="}},
		{lacks: []string{"landlock-abi=1"}, layers: []string{jail.LayerLandlock}, state: degraded, says: []string{"ABI 1, 6 is needed", signals, "by TCP"}},
		{lacks: []string{"landlock-abi=2"}, layers: []string{jail.LayerLandlock}, state: degraded, says: []string{"ABI 2, 6 is needed", signals, "bookworm-backports"}},
		{lacks: []string{"landlock-abi=5"}, layers: []string{jail.LayerLandlock}, state: degraded, says: []string{"ABI 5, 6 is needed", signals}},
		{lacks: []string{"seccomp"}, layers: []string{jail.LayerSeccomp}, state: missing, says: []string{"CONFIG_SECCOMP_FILTER"}},
		{lacks: []string{"seccomp=absent"}, layers: []string{jail.LayerSeccomp}, state: missing, says: []string{"system calls are in reach"}},
		{lacks: []string{"landlock", "seccomp", "network-namespace"}, layers: []string{jail.LayerNetwork, jail.LayerLandlock, jail.LayerSeccomp}, state: missing},
		{lacks: []string{"proc"}, layers: []string{jail.LayerHidepid}, state: missing, root: true, says: []string{"no /proc at all", "systempaths=unconfined"}},
	}
	return slices.DeleteFunc(hosts, func(h lesser) bool { return h.root && os.Geteuid() != 0 })
}

func (h lesser) name() string { return strings.Join(h.lacks, ",") }

// on runs a program on the host, to its end.
func (h lesser) on(t *testing.T, env []string, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	if len(h.lacks) > 0 {
		args = slices.Concat([]string{ordeal.Program(t, "carrel-lesshost")}, h.lacks, []string{"--"}, args)
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// weak are the required layers of a report that are not ok, but for those that
// could not be tried for want of another.
func weak(r protocol.IsolationReport) (names []string, states []protocol.LayerState) {
	for _, l := range r.Layers {
		if l.Required && l.State != protocol.LayerOK && l.Detail != "not tried" {
			names, states = append(names, l.Name), append(states, l.State)
		}
	}
	return names, states
}

// checkReport holds that a report tells of what the host lacks, all of it and
// nothing else.
func (h lesser) checkReport(t *testing.T, whose string, r protocol.IsolationReport) {
	t.Helper()
	names, states := weak(r)
	if !slices.Equal(names, h.layers) || r.State != "degraded" {
		t.Errorf("%s: %s, lacks %q, want degraded, %q", whose, r.State, names, h.layers)
	}
	for i, s := range states {
		if s != h.state {
			t.Errorf("%s: %s is %s, want %s", whose, names[i], s, h.state)
		}
	}
}

func TestStrictRefusesAHostThatLacksALayerAndNamesIt(t *testing.T) {
	for _, h := range lesserHosts() {
		t.Run(h.name(), func(t *testing.T) {
			base, tmp := t.TempDir()+"/data", t.TempDir()
			if err := os.Chmod(tmp, 0o711); err != nil { // throw-away sandboxes are walked to by other uids
				t.Fatal(err)
			}
			env := environment(base, "SANDBOX_ISOLATION=strict", "TMPDIR="+tmp)
			text, _, status := h.on(t, env, "", program(t), "doctor")
			if status != 1 {
				t.Errorf("doctor's status is %d", status)
			}
			for _, want := range slices.Concat(h.layers, h.says, []string{"carrel does not start here"}) {
				if !strings.Contains(text, want) {
					t.Errorf("doctor does not say %q:\n%s", want, text)
				}
			}
			report, _, status := h.on(t, env, "", program(t), "doctor", "--json")
			var r protocol.IsolationReport
			if err := json.Unmarshal([]byte(report), &r); err != nil || status != 1 {
				t.Fatalf("doctor --json: status %d, %v", status, err)
			}
			h.checkReport(t, "doctor", r)
			for _, l := range r.Layers {
				if l.State != protocol.LayerOK && (l.Meaning == "" || l.Fix == "" || l.Detail == "") {
					t.Errorf("%s is %s, and there is no reason, meaning or fix: %+v", l.Name, l.State, l)
				}
			}

			out, stderr, status := h.on(t, env, "", program(t), "serve")
			if status == 0 || strings.Contains(out, "listens") {
				t.Errorf("serve under strict: status %d, %s", status, out)
			}
			h.checkRefusal(t, stderr, r)
			h.checkNothingLeft(t, base, tmp)
		})
	}
}

// checkRefusal holds that an error names each missing layer and its fix.
func (h lesser) checkRefusal(t *testing.T, stderr string, r protocol.IsolationReport) {
	t.Helper()
	if !strings.Contains(stderr, "isolation_unavailable") {
		t.Errorf("serve says: %s", stderr)
	}
	for _, l := range r.Layers {
		if named := strings.Contains(stderr, l.Name+": "+l.Detail+" ("+l.Fix+")"); named != slices.Contains(h.layers, l.Name) {
			t.Errorf("%s with its fix is named: %v, in: %s", l.Name, named, stderr)
		}
	}
}

func (h lesser) checkNothingLeft(t *testing.T, base, tmp string) {
	t.Helper()
	if _, err := os.Lstat(base); err == nil {
		t.Error("a daemon that refused has made its base directory")
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDegradedStartsWithoutALayerAndSaysSoEverywhere(t *testing.T) {
	for _, h := range lesserHosts() {
		t.Run(h.name(), func(t *testing.T) {
			base := t.TempDir()
			if h.vital {
				_, stderr, status := h.on(t, environment(base, "SANDBOX_ISOLATION=degraded"), "", program(t), "serve")
				if status == 0 || !strings.Contains(stderr, "no sandbox can be made on this host: "+h.layers[0]) {
					t.Errorf("status %d, %s", status, stderr)
				}
				return
			}
			// It serves only if no row of the quick self-test breaks but by what is missing.
			d := serveOn(t, h.lacks, base, "SANDBOX_ISOLATION=degraded", "SANDBOX_SELF_TEST=quick")
			h.checkAPI(t, d)
			d.stop()
			for _, layer := range h.layers {
				if told := d.log.String(); !strings.Contains(told, `"isolation is degraded","layer":"`+layer+`"`) {
					t.Errorf("the log does not warn of %s:\n%s", layer, told)
				}
				if told := d.Greeting.String(); !strings.Contains(told, "isolation: degraded") || !strings.Contains(told, "  "+layer+": "+string(h.state)) {
					t.Errorf("the start message is:\n%s", told)
				}
			}
		})
	}
}

// checkAPI holds that a degraded daemon works, and tells of what it lacks wherever
// isolation is told.
func (h lesser) checkAPI(t *testing.T, d *daemon) {
	t.Helper()
	for _, user := range []string{"ana", "bob"} { // one of them has a worker that was warm
		if got := d.script(user, "echo works; id -u"); got.Content != "works\n1000\n" {
			t.Errorf("a run of %s gives %q", user, got.Content)
		}
	}
	system, err := d.client.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.checkReport(t, "/v1/system", system.Isolation)
	status, body := d.get("/v1/users/ana/sandbox", nil)
	var info protocol.SandboxInfo
	if err := json.Unmarshal(body, &info); err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %s", status, body)
	}
	h.checkReport(t, "the sandbox", info.Isolation)
	if info.Sandbox == nil || info.Sandbox.Isolation != "degraded" {
		t.Errorf("the sandbox's worker is %+v", info.Sandbox)
	}
	for _, s := range mustSandboxes(d).Sandboxes {
		if s.Isolation != "degraded" {
			t.Errorf("in the list of sandboxes: %+v", s)
		}
	}
	_, metrics := d.get("/metrics", nil)
	if !strings.Contains(string(metrics), "\ncarrel_isolation_degraded 1\n") {
		t.Error("no metric says that isolation is degraded")
	}
	for _, l := range system.Isolation.Layers {
		want := "0"
		if l.State == protocol.LayerOK {
			want = "1"
		}
		if line := `carrel_isolation_layer{layer="` + l.Name + `"} ` + want; !strings.Contains(string(metrics), "\n"+line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// serveOn is serve on a host that lacks something.
func serveOn(t *testing.T, lacks []string, baseDir string, more ...string) *daemon {
	t.Helper()
	return watch(t, ordeal.ServeOn(t, lacks, baseDir, more...))
}

func TestRequiredCgroupIsRefusedWhereThereIsNone(t *testing.T) {
	rootOnly := func(t *testing.T) {
		t.Helper()
		if os.Geteuid() != 0 {
			t.Skip("needs root: to take cgroups away")
		}
	}
	for _, lack := range []string{"cgroup", "cgroup=read-only"} {
		h := lesser{lacks: []string{lack}, layers: []string{jail.LayerCgroup}, state: protocol.LayerDegraded}
		for _, mode := range []string{"strict", "degraded"} {
			t.Run(lack+" "+mode, func(t *testing.T) {
				rootOnly(t)
				env := environment(t.TempDir(), "SANDBOX_REQUIRE=cgroup", "SANDBOX_ISOLATION="+mode)
				report, _, status := h.on(t, env, "", program(t), "doctor", "--json")
				var r protocol.IsolationReport
				if err := json.Unmarshal([]byte(report), &r); err != nil || status != 1 {
					t.Fatalf("doctor --json: status %d, %v", status, err)
				}
				h.checkReport(t, "doctor", r)
				_, stderr, status := h.on(t, env, "", program(t), "serve")
				if status == 0 {
					t.Error("serve has ended with status 0")
				}
				h.checkRefusal(t, stderr, r)
			})
		}
		t.Run(lack+" not required", func(t *testing.T) {
			rootOnly(t)
			d := serveOn(t, h.lacks, t.TempDir())
			if got := d.script("ana", "echo works"); got.Content != "works\n" {
				t.Errorf("a run gives %q", got.Content)
			}
			_, metrics := d.get("/metrics", nil)
			for _, line := range []string{`carrel_isolation_layer{layer="cgroup"} 0`, "carrel_isolation_degraded 0"} {
				if !strings.Contains(string(metrics), "\n"+line+"\n") {
					t.Errorf("the metrics lack %s", line)
				}
			}
			if told := d.Greeting.String(); !strings.Contains(told, "cgroup: degraded") {
				t.Errorf("the start message is:\n%s", told)
			}
			d.stop()
		})
	}
}
