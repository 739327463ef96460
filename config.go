package carrel

import (
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"carrel/internal/broker"
	"carrel/internal/tracing"
)

// Config is everything that carrel can be told. [LoadConfig] reads it from the
// environment, a file and flags; an embedder starts from [DefaultConfig] and
// sets fields. [Config.Validate] is asked before anything starts.
//
// The tags are the one place where a key is described:
//
//	env         the key
//	envDefault  its default
//	shown       the default as pages show it, where it is found only later
//	min, max    the allowed range, both ends included
//	zero        what 0 means, where 0 lies outside of the range
//	oneof       the allowed words
//	meaning     the sentence for README and --help
type Config struct {
	// BaseDir is the root of what carrel keeps on disk.
	BaseDir string `env:"SANDBOX_BASE_DIR" envDefault:"./data" meaning:"root of all users' directories and of the embedded database"`
	// WorkerPath is the program of the jailed half; "" = beside carrel.
	WorkerPath string `env:"SANDBOX_WORKER_PATH" shown:"beside carrel" meaning:"path of the program carrel-worker"`

	MaxWorkers     int           `env:"SANDBOX_MAX_WORKERS" envDefault:"10" min:"1" max:"10000" meaning:"live workers at most"`
	WorkerTimeout  time.Duration `env:"SANDBOX_WORKER_TIMEOUT" envDefault:"300s" min:"1ms" max:"720h" meaning:"wall time of one run"`
	StartupTimeout time.Duration `env:"SANDBOX_STARTUP_TIMEOUT" envDefault:"30s" min:"1ms" max:"1h" meaning:"worker start to handshake"`
	IdleTimeout    time.Duration `env:"SANDBOX_IDLE_TIMEOUT" envDefault:"300s" min:"1ms" max:"720h" meaning:"an idle worker is retired after this"`
	// MaxRequests is 0 where a worker may serve any number of runs.
	MaxRequests int `env:"SANDBOX_MAX_REQUESTS" envDefault:"100" min:"0" max:"1000000000" meaning:"runs a worker serves before it is replaced; 0 = no limit"`
	// WarmWorkers is at most MaxWorkers; left out, it is lowered to that.
	WarmWorkers    int           `env:"SANDBOX_WARM_WORKERS" envDefault:"2" min:"0" max:"10000" meaning:"started workers not yet bound to a user; at most SANDBOX_MAX_WORKERS"`
	MaxRunsPerUser int           `env:"SANDBOX_MAX_RUNS_PER_USER" envDefault:"4" min:"1" max:"1000" meaning:"concurrent runs of one user, all on that user's one worker"`
	QueueSize      int           `env:"SANDBOX_QUEUE_SIZE" envDefault:"100" min:"0" max:"1000000" meaning:"runs waiting for a worker, fair between users; 0 = none waits"`
	QueueTimeout   time.Duration `env:"SANDBOX_QUEUE_TIMEOUT" envDefault:"30s" min:"1ms" max:"24h" meaning:"the longest wait for a worker"`

	// AllowedEnvVars names what is copied into workers' environments; empty
	// allows nothing.
	AllowedEnvVars []string `env:"SANDBOX_ALLOWED_ENV_VARS" envDefault:"LANG,LC_ALL,TZ" meaning:"names copied from the daemon's environment into the worker's; a name that looks like a secret is refused"`

	MemoryLimit Size    `env:"SANDBOX_MEMORY_LIMIT" envDefault:"1GiB" min:"16MiB" max:"16TiB" meaning:"memory of one sandbox, worker and tools together"`
	CPULimit    float64 `env:"SANDBOX_CPU_LIMIT" envDefault:"1.0" min:"0.01" max:"1024" meaning:"processors of one sandbox, worker and tools together"`
	PIDsLimit   int     `env:"SANDBOX_PIDS_LIMIT" envDefault:"256" min:"16" max:"4194304" meaning:"processes and threads of one sandbox, worker and tools together"`
	DiskQuota   Size    `env:"SANDBOX_DISK_QUOTA" envDefault:"1GiB" min:"1MiB" max:"1024TiB" meaning:"disk space of one user's directory"`
	// FileTTL is 0 where nothing expires.
	FileTTL time.Duration `env:"SANDBOX_FILE_TTL" envDefault:"720h" min:"1s" max:"87600h" zero:"never" meaning:"a user directory unused for longer is removed, and so is an attachment that no session needs any more; 0 = never"`

	Isolation string `env:"SANDBOX_ISOLATION" envDefault:"strict" oneof:"strict,degraded" meaning:"strict: refuse to start unless every required layer holds; degraded: start, and say on every sandbox what is missing"`
	SelfTest  string `env:"SANDBOX_SELF_TEST" envDefault:"off" oneof:"off,quick" meaning:"quick: attack a throw-away sandbox before the daemon serves, and refuse to if one row of some thirty does not hold; off: leave it to carrel doctor --attack"`
	// Require names layers that must hold besides those of strict.
	Require  []string `env:"SANDBOX_REQUIRE" oneof:"cgroup,quota" meaning:"layers to require besides: cgroup (aggregate memory, CPU, pids), quota (hard disk quota)"`
	UIDRange UIDRange `env:"SANDBOX_UID_RANGE" envDefault:"200000:65536" meaning:"root only: first host uid and count; one a user, kept as long as its directory, and the last SANDBOX_MAX_WORKERS for warm workers, unless SANDBOX_WARM_WORKERS is 0"`
	// Agent is the default agent of a run; never empty after LoadConfig.
	Agent string `env:"SANDBOX_AGENT" shown:"claude if a key is configured, else shell" meaning:"default agent of a run"`

	ApprovalTimeout time.Duration `env:"CARREL_APPROVAL_TIMEOUT" envDefault:"5m" min:"1s" max:"24h" meaning:"how long a run waits for a person to allow a tool; then it is denied"`
	// PermissionsFile is read once, when the daemon starts.
	PermissionsFile string `env:"CARREL_PERMISSIONS_FILE" meaning:"JSON file of permission rules and hooks: allow, ask, deny, default, hooks (see docs/permissions.md)"`

	Listen      string `env:"CARREL_LISTEN" envDefault:"127.0.0.1:8642" meaning:"address of the HTTP API; one that is not loopback is refused unless CARREL_API_KEYS_FILE is set"`
	APIKeysFile string `env:"CARREL_API_KEYS_FILE" meaning:"file of API keys, one a line: name:role:sha256-hex-of-the-key[:user] (see carrel key); read again when it changes"`
	// DrainTimeout is 0 where going runs are interrupted at once.
	DrainTimeout time.Duration `env:"CARREL_DRAIN_TIMEOUT" envDefault:"30s" min:"0s" max:"720h" meaning:"how long going runs have to come to their own end after SIGTERM; then they are interrupted"`
	// RateLimit is zero where there is none.
	RateLimit   RateLimit `env:"CARREL_RATE_LIMIT" shown:"no limit" meaning:"requests that each API key may make, as N/s, N/m or N/h: N may come at once; more are refused with 429"`
	TLSCertFile string    `env:"CARREL_TLS_CERT_FILE" meaning:"PEM file of the certificate and its chain: the API then speaks TLS alone; read again when it changes"`
	TLSKeyFile  string    `env:"CARREL_TLS_KEY_FILE" meaning:"PEM file of the certificate's key"`
	// DatabaseURL is never empty after LoadConfig; see [Config.SQLitePath].
	DatabaseURL string `env:"CARREL_DATABASE_URL" shown:"sqlite:<base dir>/carrel.db" meaning:"where runs and events are kept"`

	// AnthropicAPIKey holds the key, wherever it came from. An embedder sets it
	// through its UnmarshalText.
	AnthropicAPIKey     broker.Secret `env:"ANTHROPIC_API_KEY" meaning:"key of the model API, held by the broker alone"`
	AnthropicAPIKeyFile string        `env:"ANTHROPIC_API_KEY_FILE" meaning:"file that holds the key instead"`
	AnthropicBaseURL    string        `env:"ANTHROPIC_BASE_URL" envDefault:"https://api.anthropic.com" meaning:"address of the model API"`

	// A budget of 0 bounds nothing. Tokens are those of all kinds together.
	BudgetRunUSD        float64 `env:"CARREL_BUDGET_RUN_USD" envDefault:"0" min:"0" max:"1000000" meaning:"US dollars that one run may spend on the model API; 0 = no limit"`
	BudgetRunTokens     int     `env:"CARREL_BUDGET_RUN_TOKENS" envDefault:"0" min:"0" max:"1000000000000" meaning:"tokens, of all kinds together, that one run may use; 0 = no limit"`
	BudgetUserDayUSD    float64 `env:"CARREL_BUDGET_USER_DAY_USD" envDefault:"0" min:"0" max:"1000000" meaning:"US dollars that one user may spend a day (UTC); 0 = no limit"`
	BudgetUserDayTokens int     `env:"CARREL_BUDGET_USER_DAY_TOKENS" envDefault:"0" min:"0" max:"1000000000000" meaning:"tokens, of all kinds together, that one user may use a day (UTC); 0 = no limit"`
	// PricesFile is "" for the embedded prices.
	PricesFile string `env:"CARREL_PRICES_FILE" shown:"built in" meaning:"file of prices of models, in the form of internal/broker/prices.json, in place of the built-in ones; a model without a price costs as much as the dearest"`

	// AuditFile is "" or "-" where no audit log is kept; never empty after LoadConfig.
	AuditFile     string `env:"CARREL_AUDIT_FILE" shown:"<base dir>/audit.log" meaning:"file of the audit log: who had what run and what was decided, a JSON object a line (see docs/security.md); - = none"`
	AuditMaxBytes Size   `env:"CARREL_AUDIT_MAX_BYTES" envDefault:"64MiB" min:"64KiB" max:"1TiB" meaning:"the audit log is put aside as FILE.1 before it is larger"`
	AuditKeep     int    `env:"CARREL_AUDIT_KEEP" envDefault:"8" min:"1" max:"10000" meaning:"audit logs put aside that are kept, FILE.1 the newest"`
	AuditContent  bool   `env:"CARREL_AUDIT_CONTENT" envDefault:"false" meaning:"keep messages, commands, tools' inputs and paths in the audit log, the first 4 KiB of each"`
	AuditRequired bool   `env:"CARREL_AUDIT_REQUIRED" envDefault:"false" meaning:"refuse runs and commands while the audit log cannot be written"`

	// OTLPEndpoint is "" where no spans are exported.
	OTLPEndpoint  string          `env:"OTEL_EXPORTER_OTLP_ENDPOINT" meaning:"base address of an OTLP/HTTP receiver, to whose /v1/traces spans are sent (see docs/traces.md)"`
	OTLPHeaders   tracing.Headers `env:"OTEL_EXPORTER_OTLP_HEADERS" meaning:"headers of each request there: NAME=VALUE,… with values percent-encoded"`
	TraceModelAPI bool            `env:"CARREL_TRACE_MODEL_API" envDefault:"false" meaning:"send traceparent with requests to the model API, for a gateway of your own"`

	LogLevel slog.Level `env:"CARREL_LOG_LEVEL" envDefault:"info" meaning:"debug, info, warn or error"`
	// LogFormat is "" where the terminal decides.
	LogFormat string `env:"CARREL_LOG_FORMAT" shown:"text on a TTY, else json" oneof:"text,json" meaning:"text or json"`

	// fileWarnings is what reading the file gave cause to say.
	fileWarnings []string
}

// sqliteScheme starts the URL of an embedded database: sqlite:PATH.
const sqliteScheme = "sqlite:"

// DefaultConfig returns the configuration of an empty environment.
func DefaultConfig() Config {
	cfg, err := LoadConfig(ConfigSource{})
	if err != nil {
		panic("carrel: the defaults are at fault: " + err.Error())
	}
	return cfg
}

// LoadConfig reads the configuration: defaults, under the file, under the
// environment, under flags. Its error is a [*ConfigError] with every fault.
//
// An empty value is as good as none, except for a list, where it is the empty
// list.
func LoadConfig(src ConfigSource) (Config, error) {
	set, faults := src.settings()
	cfg, parseFaults := parseConfig(set)
	faults = append(faults, parseFaults...)
	cfg.fileWarnings = set.warnings
	faults = append(faults, cfg.readKeyFile()...)
	cfg.fillIn(set)

	for _, fault := range cfg.check() {
		// A value that could not be read has left its field at zero; what that
		// breaks has its fault already.
		if !hasFault(parseFaults, fault.Key) {
			faults = append(faults, fault)
		}
	}
	if len(faults) > 0 {
		return Config{}, newConfigError(faults, set)
	}
	return cfg, nil
}

// Validate reports everything that is wrong with a configuration, as a
// [*ConfigError].
func (c Config) Validate() error {
	if faults := c.check(); len(faults) > 0 {
		return newConfigError(faults, settings{})
	}
	return nil
}

// readKeyFile takes the key from ANTHROPIC_API_KEY_FILE.
func (c *Config) readKeyFile() []Fault {
	const key = "ANTHROPIC_API_KEY_FILE"
	switch {
	case c.AnthropicAPIKeyFile == "":
		return nil
	case c.AnthropicAPIKey.IsSet():
		return []Fault{{Key: key, Reason: "ANTHROPIC_API_KEY is set too; set one of the two"}}
	}
	secret, err := broker.ReadSecretFile(c.AnthropicAPIKeyFile)
	if err != nil {
		return []Fault{{Key: key, Reason: err.Error()}}
	}
	c.AnthropicAPIKey = secret
	return nil
}

// fillIn finds the defaults that hang on other keys.
func (c *Config) fillIn(set settings) {
	if !set.has("SANDBOX_WARM_WORKERS") {
		c.WarmWorkers = max(0, min(c.WarmWorkers, c.MaxWorkers))
	}
	if c.Agent == "" {
		c.Agent = c.agents()[0]
	}
	if c.DatabaseURL == "" {
		c.DatabaseURL = sqliteScheme + filepath.Join(c.BaseDir, "carrel.db")
	}
	if c.AuditFile == "" {
		c.AuditFile = filepath.Join(c.BaseDir, "audit.log")
	}
}

// agents lists the agents a run may have, the default first: claude takes a key.
func (c *Config) agents() []string {
	if c.AnthropicAPIKey.IsSet() {
		return []string{agentClaude, agentShell}
	}
	return []string{agentShell}
}

// The agents by name.
const (
	agentClaude = "claude"
	agentShell  = "shell"
)

// checkAgent reports why a run may not have this agent; nil if it may.
func (c *Config) checkAgent(name string) error {
	switch {
	case slices.Contains(c.agents(), name):
		return nil
	case name == agentClaude:
		return errors.New("claude needs a key: set ANTHROPIC_API_KEY or ANTHROPIC_API_KEY_FILE")
	default:
		return errors.New("there is no such agent")
	}
}

// SQLitePath returns the file of the embedded database, or an error if
// DatabaseURL names another kind.
func (c Config) SQLitePath() (string, error) {
	path, ok := strings.CutPrefix(c.DatabaseURL, sqliteScheme)
	if !ok || path == "" {
		return "", errors.New("CARREL_DATABASE_URL: not of the form sqlite:PATH")
	}
	return path, nil
}

// Warnings returns what is allowed and still wants to be said at start, one
// sentence each.
func (c Config) Warnings() []string {
	warnings := append([]string(nil), c.fileWarnings...)
	for _, name := range c.AllowedEnvVars {
		if name == keyException {
			warnings = append(warnings, "SANDBOX_ALLOWED_ENV_VARS: ANTHROPIC_API_KEY puts the key into every sandbox; the broker makes that unnecessary")
		}
	}
	if c.AnthropicAPIKey.IsSet() && strings.HasPrefix(c.AnthropicBaseURL, "http://") && !isLoopbackURL(c.AnthropicBaseURL) {
		warnings = append(warnings, "ANTHROPIC_BASE_URL: http:// sends the key over the network unencrypted")
	}
	if c.OTLPHeaders.IsSet() && strings.HasPrefix(c.OTLPEndpoint, "http://") && !isLoopbackURL(c.OTLPEndpoint) {
		warnings = append(warnings, "OTEL_EXPORTER_OTLP_ENDPOINT: http:// sends OTEL_EXPORTER_OTLP_HEADERS over the network unencrypted")
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err == nil && !isLoopback(host) && !c.hasTLS() {
		warnings = append(warnings, "CARREL_LISTEN: other machines reach this address and there is no TLS: API keys, messages and files go over the network in the clear, unless a proxy in front ends TLS; set CARREL_TLS_CERT_FILE and CARREL_TLS_KEY_FILE")
	}
	return warnings
}
