package architecture

// room is one package of the module and what it may import. Standard library
// packages are free, but for [bans].
type room struct {
	path string // below the module; "." is the root package
	// rooms are the packages of the module it may import, foreign the prefixes of
	// import paths of other modules. Tests are free: they may look everywhere.
	rooms   []string
	foreign []string
	why     string
}

// rooms is the import table. A new package needs a row, a removed one loses it.
// docs/architecture.md draws the same picture for people.
var rooms = []room{
	// What both halves share.
	{
		path: "protocol",
		why:  "what crosses a boundary is linked into both halves and every client, so it costs nobody anything",
	},
	{
		path:  "internal/jsonrpc",
		rooms: []string{"protocol"},
		why:   "one peer for both halves: it knows messages, not who sends them",
	},
	{path: "internal/logline", why: "whom a line of the log is about, for every room of the host half that logs: it links nothing"},
	{
		path:    "internal/fdpass",
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "descriptors over a socketpair: plain mechanism, used on both sides of a jail",
	},
	{
		path:    "internal/reap",
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "waiting for children and orphans: plain mechanism",
	},
	{
		path:    "internal/jail",
		rooms:   []string{"internal/fdpass", "internal/reap", "protocol"},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "its child half runs before anything is trusted: what it links is what an attacker finds there",
	},
	{
		path:    "internal/jail/seccompgen",
		foreign: []string{"github.com/elastic/go-seccomp-bpf", "golang.org/x/net/bpf", "golang.org/x/sys/unix"},
		why:     "assembles the filters when they are written, so that nothing does when a worker starts",
	},
	{
		path:    "internal/jail/attack",
		rooms:   []string{"internal/jail"},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "what an attacker would try; it uses nothing of ours but the names of layers",
	},
	{
		path:  "internal/jail/attack/attacker",
		rooms: []string{"internal/jail/attack"},
		why:   "the attacker as a program of its own, for tests",
	},

	// The jailed half.
	{
		path:    "internal/denial",
		rooms:   []string{"internal/jail", "protocol"},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "reads what a layer has denied out of errnos and last words; the host asks it for the layers' names",
	},
	{
		path:  "internal/tool",
		rooms: []string{"internal/denial", "internal/fdpass", "internal/jail", "internal/reap", "protocol"},
		foreign: []string{
			"github.com/bmatcuk/doublestar/v4", "golang.org/x/sys/unix",
		},
		why: "what an agent can do; which agent asks is none of its business",
	},
	{
		path:  "internal/tool/tooltest",
		rooms: []string{"internal/jail", "internal/reap", "internal/tool"},
		why:   "the tools as a program that stands in the worker's place, for their tests",
	},
	{path: "internal/exact", why: "reads an operator's JSON file; whose it is, it does not know"},
	{
		path:    "internal/hook",
		rooms:   []string{"internal/exact", "internal/jail", "internal/tool", "protocol"},
		foreign: []string{"github.com/bmatcuk/doublestar/v4", "mvdan.cc/sh/v3"},
		why:     "decides whether a tool may be used; both halves read the file with it, the worker obeys it",
	},
	{
		path:  "internal/hook/webhook",
		rooms: []string{"protocol"},
		why:   "posts to the operator's URLs: the host half, which alone knows them",
	},
	{
		path:  "internal/agent",
		rooms: []string{"internal/hook", "internal/tool", "protocol"},
		why:   "message to tool to event; it reaches the host through the events it emits alone",
	},
	{
		path:  "internal/agent/shell",
		rooms: []string{"internal/agent", "internal/denial", "internal/jail", "internal/tool", "protocol"},
		why:   "one agent; the others do not know it",
	},
	{
		path: "internal/door",
		why:  "the jailed half's side of the line to the broker: it knows the line, and no key",
	},
	{
		path:    "internal/agent/claude",
		rooms:   []string{"internal/agent", "internal/agent/session", "internal/door", "internal/jail", "internal/tool", "protocol"},
		foreign: []string{"github.com/anthropics/anthropic-sdk-go", "golang.org/x/sync"},
		why:     "the model's client; the one room of the jailed half that speaks HTTP",
	},
	{
		path:    "internal/agent/claude/bare",
		foreign: []string{"github.com/anthropics/anthropic-sdk-go"},
		why:     "the SDK alone, for the benchmark that holds the chain against it: nothing of ours is in it",
	},
	{
		path:  "internal/agent/session",
		rooms: []string{"protocol"},
		why:   "transcripts: the jailed half writes them and the host may read them, so it links neither half",
	},
	{
		path: "internal/worker",
		rooms: []string{
			"internal/agent", "internal/agent/claude", "internal/agent/shell", "internal/denial", "internal/door", "internal/fdpass",
			"internal/hook", "internal/jail", "internal/jsonrpc", "internal/reap", "internal/tool", "protocol",
		},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "wires the jailed half, and nothing of the host's",
	},
	{
		path:  "cmd/carrel-worker",
		rooms: []string{"internal/jail", "internal/tool", "internal/worker"},
		why:   "chooses which part of the jailed half this process is",
	},

	// The host half.
	{
		path:    "internal/cgroup",
		rooms:   []string{"internal/beneath"},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "the kernel's own bounds around a sandbox; it knows no sandbox",
	},
	{
		path:    "internal/audit",
		rooms:   []string{"protocol"},
		foreign: []string{"golang.org/x/sys/unix", "golang.org/x/time/rate"},
		why:     "one file that is added to: what is worth a line, its callers know",
	},
	{
		path: "internal/memory",
		why:  "reads what the host says of its memory; who asks is none of its business",
	},
	{
		path:  "internal/engine",
		rooms: []string{"protocol"},
		why:   "the seam: the pool sees processes, not how they come to be",
	},
	{
		path:    "internal/engine/local",
		rooms:   []string{"internal/cgroup", "internal/engine", "internal/fdpass", "internal/jail", "internal/workspace", "protocol"},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "the one room of the host that starts sandboxes of this machine",
	},
	{
		path:    "internal/pool",
		rooms:   []string{"internal/engine", "internal/jsonrpc", "internal/logline", "protocol"},
		foreign: []string{"golang.org/x/sync"},
		why:     "lends workers of any engine; it stores nothing and answers nobody's HTTP",
	},
	{
		path:    "internal/beneath",
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "one way to open what a sandbox can rename, for all of the host half that must",
	},
	{
		path:    "internal/workspace",
		rooms:   []string{"internal/beneath", "protocol"},
		foreign: []string{"github.com/oklog/ulid/v2", "golang.org/x/sys/unix"},
		why:     "users' directories, whatever runs in them",
	},
	{
		path:    "internal/files",
		rooms:   []string{"internal/beneath", "protocol"},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "files in and out of a tree that a sandbox owns: it is handed descriptors, and knows neither users nor quotas",
	},
	{
		path:  "internal/broker",
		rooms: []string{"internal/door", "internal/exact", "internal/logline", "internal/store", "protocol"},
		why:   "the only room with keys: the less it links, the fewer can leak them",
	},
	{
		path:    "internal/store",
		rooms:   []string{"protocol"},
		foreign: []string{"github.com/pressly/goose/v3", "modernc.org/sqlite"},
		why:     "the one room with a database, so that another can take its place",
	},
	{
		path:    "internal/store/storetest",
		rooms:   []string{"internal/store", "protocol"},
		foreign: []string{"github.com/google/go-cmp"},
		why:     "what every store has to do, whichever it is",
	},
	{
		path:    "internal/tracing",
		foreign: []string{"go.opentelemetry.io", "golang.org/x/net/http/httpguts", "google.golang.org/protobuf"},
		why:     "the one room that knows OpenTelemetry; what a span is about, the root tells",
	},
	{
		path:    "internal/metrics",
		rooms:   []string{"protocol"},
		foreign: []string{"github.com/prometheus/client_golang"},
		why:     "counts what it is told: whose it is and where it comes from, it does not know",
	},
	{
		path:  "internal/keyring",
		rooms: []string{"protocol"},
		why:   "whose an API key is: what it links is what could leak one",
	},
	{path: "internal/spelling", why: "how far a word is from another; whose words, it does not know"},
	{
		path:  "internal/agui",
		rooms: []string{"protocol"},
		why:   "turns events into those of another protocol: what brings them there, it does not know",
	},
	{
		path:    "internal/httpapi",
		rooms:   []string{"internal/agui", "internal/logline", "internal/spelling", "protocol"},
		foreign: []string{"golang.org/x/time/rate"},
		why:     "speaks to its own small Service, so that it can be tested without a pool, and a pool without it",
	},
	{
		path:    "internal/openapitest",
		foreign: []string{"github.com/santhosh-tekuri/jsonschema/v6"},
		why:     "holds answers against the OpenAPI document, in tests: of the API it knows that document alone",
	},
	{
		path: ".",
		rooms: []string{
			"internal/agent/session", "internal/audit", "internal/broker", "internal/cgroup", "internal/denial", "internal/engine", "internal/engine/local", "internal/files", "internal/hook", "internal/hook/webhook", "internal/httpapi",
			"internal/jail", "internal/keyring", "internal/logline", "internal/memory", "internal/metrics", "internal/pool", "internal/spelling", "internal/store", "internal/tracing", "internal/workspace", "protocol",
		},
		foreign: []string{"github.com/caarlos0/env/v11", "github.com/oklog/ulid/v2", "github.com/prometheus/client_golang", "golang.org/x/sync", "golang.org/x/sys/unix"},
		why:     "the front door wires the rooms of the host half",
	},
	{
		path:  "client",
		rooms: []string{"protocol"},
		why:   "whoever embeds the client must not get a database with it",
	},
	{path: "internal/installation", why: "reads how carrel is installed: files alone, and nothing of ours"},
	{
		path:    "internal/systemd",
		foreign: []string{"github.com/coreos/go-systemd/v22"},
		why:     "what a unit agrees on with a daemon: it knows systemd, and nothing of the daemon",
	},
	{
		path:    "internal/selftest",
		rooms:   []string{"client", "internal/jail", "internal/jail/attack", "internal/jsonrpc", "protocol"},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "judges attacks on throw-away sandboxes and a throw-away daemon of its own, and touches no other",
	},
	{
		path:    "cmd/carrel",
		rooms:   []string{".", "client", "internal/installation", "internal/jail/attack", "internal/keyring", "internal/selftest", "internal/systemd", "protocol"},
		foreign: []string{"github.com/alecthomas/kong", "github.com/mattn/go-isatty", "golang.org/x/sys/unix"},
		why:     "chooses a command; what a command does is the front door's",
	},

	// What holds the rest.
	{
		path:    "internal/ordeal",
		rooms:   []string{"client", "internal/cgroup"},
		foreign: []string{"golang.org/x/sys/unix"},
		why:     "drives the built programs from outside: it knows the API and the machine, and none of our insides",
	},
	{
		path:    "internal/lesshost",
		foreign: []string{"golang.org/x/net/bpf", "golang.org/x/sys/unix"},
		why:     "stands for a lesser kernel below the built programs: it knows the kernel's answers, and nothing of ours",
	},
	{path: "internal/anthropictest", why: "a Messages API for tests and the demo: it knows the wire alone"},
	{path: "internal/architecture", why: "this test"},
	{path: "deploy", why: "what carrel is installed with is no code: its tests are all there is"},
	{path: "bench", why: "drives the built programs from outside, beside others: its tests are all there is"},
	{
		path:  "bench/standin",
		rooms: []string{"internal/agent", "internal/agent/shell", "internal/worker", "protocol"},
		why:   "carrel's worker with an agent that sends as fast as it is told to",
	},
	{path: "examples/go", rooms: []string{"client", "protocol"}, why: "what a product would write: it has the client, and nothing else of ours"},
	{path: "tools/demo", rooms: []string{"internal/anthropictest"}, why: "a scripted model beside the built daemon, which it uses as anybody would"},
	{path: "tools/testcount", why: "the gate's counter builds before anything else does"},
}

// ban keeps packages, with all below them, out of everything that the jailed half
// links, through whichever room they would come in.
type ban struct {
	paths []string // import paths
	why   string
}

// jailedHalf is the program that the bans are about.
const jailedHalf = "carrel/cmd/carrel-worker"

// httpClients are the rooms of the jailed half that may name net/http. It cannot be
// banned whole, since the model's client is made of it (docs/adr/009).
var httpClients = []string{"internal/agent/claude", "internal/door"}

// publicClient is what other programs embed, and publicRooms is what it brings along.
const publicClient = "carrel/client"

var publicRooms = []string{"protocol"}

// bans is what the jailed half never links. It starts faster for it, and what is
// not there can neither leak nor be turned against the host.
var bans = []ban{
	{
		paths: []string{"carrel/internal/broker"},
		why:   "keys: the jailed half cannot even name one",
	},
	{
		paths: []string{
			"carrel/internal/audit", "carrel/internal/engine", "carrel/internal/hook/webhook", "carrel/internal/httpapi", "carrel/internal/pool", "carrel/internal/store",
			"carrel/internal/workspace", "carrel/client",
		},
		why: "the host half",
	},
	{
		paths: []string{"database/sql", "modernc.org", "github.com/pressly/goose", "github.com/jackc/pgx"},
		why:   "database drivers: events leave a sandbox over JSON-RPC alone",
	},
	{
		// (OpenTelemetry's API, which does nothing by itself, comes with the model's client.)
		paths: []string{
			"github.com/prometheus", "go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "go.opentelemetry.io/proto",
			"google.golang.org/protobuf", "carrel/internal/metrics", "carrel/internal/tracing", "carrel/internal/logline",
		},
		why: "metrics and traces: the host measures",
	},
	{
		paths: []string{
			"github.com/danielgtaylor/huma", "github.com/go-chi/chi", "github.com/gin-gonic/gin", "github.com/labstack/echo",
			"google.golang.org/grpc",
		},
		why: "HTTP frameworks: a worker serves nobody",
	},
	{
		paths: []string{"github.com/elastic/go-seccomp-bpf", "golang.org/x/net/bpf", "github.com/moby/profiles"},
		why:   "a filter assembler: filters are assembled when they are written",
	},
	{
		paths: []string{"github.com/alecthomas/kong", "github.com/caarlos0/env", "github.com/coreos/go-systemd"},
		why:   "flags, configuration, systemd: the orchestrator tells a worker all it needs",
	},
	{
		paths: []string{"testing", "net/http/pprof", "plugin"},
		why:   "test and debugging doors",
	},
}
