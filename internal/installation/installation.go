package installation

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// State is how a part of the installation stands.
type State string

// The states of a [Finding].
const (
	OK            State = "ok"
	Warn          State = "warn"
	NotApplicable State = "not applicable"
)

// Finding is one line of the report.
type Finding struct {
	Name   string `json:"name"` // "unit", "user", …
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // what to do; only with a warning
}

// Options says what is installed, and where.
type Options struct {
	Root       fs.FS  // the machine's files; nil = those of this machine
	BaseDir    string // the daemon's base directory, as configured for this process
	MaxWorkers int
	PIDsLimit  int // tasks of one sandbox
}

// Files and names of the package.
const (
	service  = "carrel.service"
	socket   = "carrel.socket"
	userName = "carrel"
	envFile  = "etc/carrel/carrel.env"
	stateDir = "/var/lib/carrel"
)

// How many descriptors a daemon takes. A live worker takes 5.4 (43 by 8 workers),
// measured beside 32 of the daemon's own; the rest is for connections.
const (
	descriptorsOfWorker = 8
	descriptorsBesides  = 1024
)

// Check looks at everything. What it cannot read is a warning.
func Check(o Options) []Finding {
	if o.Root == nil {
		o.Root = os.DirFS("/")
	}
	c := checker{o: o}
	c.unit, c.unitErr = readUnit(o.Root, service)
	return []Finding{
		c.named("unit", c.installed),
		c.named("socket", c.socket),
		c.named("user", c.user),
		c.named("hardening", c.hardening),
		c.named("delegation", c.delegation),
		c.named("watchdog", c.watchdog),
		c.named("stop", c.stop),
		c.named("tasks", c.tasks),
		c.named("open-files", c.openFiles),
		c.named("env-file", c.envFile),
		c.named("base-dir", c.baseDir),
		c.named("user-namespaces", c.userNamespaces),
		c.named("apparmor", c.appArmor),
	}
}

type checker struct {
	o       Options
	unit    Unit
	unitErr error
}

func (c *checker) named(name string, check func() Finding) Finding {
	f := check()
	f.Name = name
	return f
}

func ok(format string, args ...any) Finding {
	return Finding{State: OK, Detail: fmt.Sprintf(format, args...)}
}

func notApplicable(why string) Finding { return Finding{State: NotApplicable, Detail: why} }

func warn(fix, format string, args ...any) Finding {
	return Finding{State: Warn, Fix: fix, Detail: fmt.Sprintf(format, args...)}
}

// ofUnit is what is found where there is no unit to look at.
func (c *checker) ofUnit() (f Finding, without bool) {
	if c.unitErr != nil {
		return warn("run carrel doctor as root", "carrel.service cannot be read: %v", c.unitErr), true
	}
	if c.unit.Path == "" {
		return notApplicable("carrel.service is not installed"), true
	}
	return Finding{}, false
}

const edit = "systemctl edit carrel.service: "

func (c *checker) installed() Finding {
	if f, without := c.ofUnit(); without {
		return f
	}
	if _, err := fs.Stat(c.o.Root, "run/systemd/system"); err != nil {
		return warn("start carrel serve by what this machine has in systemd's place", "%s is installed, and systemd does not run here", c.unit.Path)
	}
	if got := c.unit.last("Type"); got != "notify" && got != "notify-reload" {
		return warn(edit+"Type=notify", "%s has Type=%s: systemd does not learn when carrel is ready", c.unit.Path, got)
	}
	return ok("%s, Type=%s", c.unit.Path, c.unit.last("Type"))
}

func (c *checker) socket() Finding {
	u, err := readUnit(c.o.Root, socket)
	switch {
	case err != nil:
		return warn("run carrel doctor as root", "carrel.socket cannot be read: %v", err)
	case u.Path == "" && c.unit.Path == "":
		return notApplicable("carrel.socket is not installed")
	case u.Path == "":
		return warn("install carrel.socket (docs/install.md)", "there is no carrel.socket: a restart refuses connections until it is over")
	}
	listens := u.settings["ListenStream"]
	if len(listens) != 1 {
		return warn("systemctl edit carrel.socket: ListenStream= and one ListenStream=HOST:PORT", "%s has %d addresses, carrel takes one: %s", u.Path, len(listens), strings.Join(listens, ", "))
	}
	links, err := fs.Glob(c.o.Root, "etc/systemd/system/*.wants/"+socket)
	if err != nil || len(links) == 0 {
		return warn("systemctl enable --now carrel.socket", "%s is not enabled: a restart refuses connections until it is over", u.Path)
	}
	return ok("%s on %s", u.Path, listens[0])
}

// userLine is the line of a user in /etc/passwd, in its parts; nil if there is none.
func (c *checker) userLine(name string) ([]string, error) {
	text, err := fs.ReadFile(c.o.Root, "etc/passwd")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if parts := strings.Split(strings.TrimSpace(line), ":"); len(parts) == 7 && parts[0] == name {
			return parts, nil
		}
	}
	return nil, nil
}

// isRoot reports whether the unit's daemon is.
func (c *checker) isRoot() bool {
	name := c.unit.last("User")
	return c.unit.Path != "" && (name == "" || name == "root" || name == "0")
}

func (c *checker) user() Finding {
	if f, without := c.ofUnit(); without {
		return f
	}
	name := c.unit.last("User")
	if c.isRoot() {
		return warn(edit+"User=carrel, or leave it: each user of the product then has a host uid of its own", "the daemon runs as root: what breaks out of it has the machine")
	}
	line, err := c.userLine(name)
	switch {
	case err != nil:
		return warn("run carrel doctor as root", "/etc/passwd: %v", err)
	case line == nil:
		return warn("useradd --system --home-dir "+stateDir+" --shell /usr/sbin/nologin "+name, "there is no user %s in /etc/passwd", name)
	case line[2] == "0":
		return warn(edit+"User=carrel", "the user %s is root by another name", name)
	}
	if shell := path.Base(line[6]); shell != "nologin" && shell != "false" {
		return warn("usermod --shell /usr/sbin/nologin "+name, "%s can log in, with %s", name, line[6])
	}
	return ok("%s, uid %s", name, line[2])
}

func (c *checker) hardening() Finding {
	if f, without := c.ofUnit(); without {
		return f
	}
	if broken := c.unit.broken(); len(broken) > 0 {
		return warn(edit+"take these away (docs/install.md)", "the unit has what breaks sandboxes: %s", strings.Join(broken, "; "))
	}
	if capabilities, set := c.unit.settings["CapabilityBoundingSet"]; set && len(capabilities) == 0 && c.isRoot() {
		return warn(edit+"CapabilityBoundingSet=~ and SecureBits=", "the daemon is root without root's capabilities: no sandbox can be made")
	}
	if !c.unit.isOn("NoNewPrivileges") {
		return warn(edit+"NoNewPrivileges=yes", "NoNewPrivileges is off: set-user-id programs work for the daemon")
	}
	return ok("nothing that breaks sandboxes")
}

func (c *checker) delegation() Finding {
	if f, without := c.ofUnit(); without {
		return f
	}
	const fix = edit + "Delegate=cpu memory pids"
	delegate := c.unit.settings["Delegate"]
	if len(delegate) == 0 {
		return warn(fix, "no control group is delegated: nothing bounds a sandbox in sum")
	}
	switch strings.ToLower(c.unit.last("Delegate")) {
	case "yes", "true", "on", "1":
		return ok("all controllers")
	case "no", "false", "off", "0":
		return warn(fix, "Delegate=%s: nothing bounds a sandbox in sum", c.unit.last("Delegate"))
	}
	all := strings.Join(delegate, " ")
	for _, controller := range []string{"cpu", "memory", "pids"} {
		if !strings.Contains(" "+all+" ", " "+controller+" ") {
			return warn(fix, "Delegate=%s lacks %s", all, controller)
		}
	}
	return ok("%s", all)
}

func (c *checker) watchdog() Finding {
	if f, without := c.ofUnit(); without {
		return f
	}
	switch got := c.unit.last("WatchdogSec"); got {
	case "", "0", "0s", "infinity":
		return warn(edit+"WatchdogSec=60s", "there is no watchdog: a daemon that hangs stays so")
	default:
		if c.unit.last("Restart") == "" || c.unit.last("Restart") == "no" {
			return warn(edit+"Restart=on-failure", "the watchdog ends a daemon that hangs, and nothing starts another")
		}
		return ok("WatchdogSec=%s, Restart=%s", got, c.unit.last("Restart"))
	}
}

func (c *checker) stop() Finding {
	if f, without := c.ofUnit(); without {
		return f
	}
	if got := c.unit.last("KillMode"); got != "mixed" {
		return warn(edit+"KillMode=mixed", "KillMode=%s: a stop kills the sandboxes whose runs it should let end", got)
	}
	if got := c.unit.last("OOMPolicy"); got == "stop" || got == "kill" {
		return warn(edit+"OOMPolicy=continue", "OOMPolicy=%s: a sandbox without memory ends the daemon", got)
	}
	return ok("KillMode=mixed")
}

func (c *checker) tasks() Finding {
	if f, without := c.ofUnit(); without {
		return f
	}
	need := c.o.MaxWorkers * c.o.PIDsLimit
	got := c.unit.last("TasksMax")
	n, err := strconv.Atoi(got)
	switch {
	case got == "infinity" || err == nil && n >= need:
		return ok("TasksMax=%s, sandboxes may take %d", got, need)
	case got == "":
		return warn(fmt.Sprintf("%sTasksMax=%d", edit, need), "TasksMax is systemd's default, sandboxes may take %d (SANDBOX_MAX_WORKERS × SANDBOX_PIDS_LIMIT)", need)
	default:
		return warn(fmt.Sprintf("%sTasksMax=%d", edit, need), "TasksMax=%s, sandboxes may take %d (SANDBOX_MAX_WORKERS × SANDBOX_PIDS_LIMIT)", got, need)
	}
}

func (c *checker) openFiles() Finding {
	if f, without := c.ofUnit(); without {
		return f
	}
	need := descriptorsBesides + descriptorsOfWorker*c.o.MaxWorkers
	got := c.unit.last("LimitNOFILE")
	_, hard, isPair := strings.Cut(got, ":")
	if !isPair {
		hard = got
	}
	n, err := strconv.Atoi(hard)
	switch {
	case hard == "infinity" || err == nil && n >= need:
		return ok("LimitNOFILE=%s", got)
	case got == "":
		return ok("LimitNOFILE is systemd's default")
	default:
		return warn(edit+"LimitNOFILE=524288", "LimitNOFILE=%s, %d workers and their callers want %d", got, c.o.MaxWorkers, need)
	}
}
