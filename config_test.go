package carrel

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// keyCanary stands for a key that must not be printed.
const keyCanary = "sk-canary-91c2d4"

// contractKeys are the keys that users rely on.
var contractKeys = []string{
	"SANDBOX_BASE_DIR", "SANDBOX_WORKER_PATH", "SANDBOX_MAX_WORKERS", "SANDBOX_WORKER_TIMEOUT", "SANDBOX_STARTUP_TIMEOUT",
	"SANDBOX_IDLE_TIMEOUT", "SANDBOX_MAX_REQUESTS", "SANDBOX_WARM_WORKERS", "SANDBOX_MAX_RUNS_PER_USER",
	"SANDBOX_QUEUE_SIZE", "SANDBOX_QUEUE_TIMEOUT", "SANDBOX_ALLOWED_ENV_VARS", "SANDBOX_MEMORY_LIMIT",
	"SANDBOX_CPU_LIMIT", "SANDBOX_PIDS_LIMIT", "SANDBOX_DISK_QUOTA", "SANDBOX_FILE_TTL", "SANDBOX_ISOLATION",
	"SANDBOX_SELF_TEST", "SANDBOX_REQUIRE", "SANDBOX_UID_RANGE", "SANDBOX_AGENT", "CARREL_APPROVAL_TIMEOUT", "CARREL_PERMISSIONS_FILE",
	"CARREL_LISTEN", "CARREL_API_KEYS_FILE", "CARREL_DRAIN_TIMEOUT", "CARREL_RATE_LIMIT", "CARREL_TLS_CERT_FILE", "CARREL_TLS_KEY_FILE",
	"CARREL_DATABASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_FILE", "ANTHROPIC_BASE_URL",
	"CARREL_BUDGET_RUN_USD", "CARREL_BUDGET_RUN_TOKENS", "CARREL_BUDGET_USER_DAY_USD", "CARREL_BUDGET_USER_DAY_TOKENS",
	"CARREL_PRICES_FILE", "CARREL_AUDIT_FILE", "CARREL_AUDIT_MAX_BYTES", "CARREL_AUDIT_KEEP", "CARREL_AUDIT_CONTENT", "CARREL_AUDIT_REQUIRED",
	"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "CARREL_TRACE_MODEL_API",
	"CARREL_LOG_LEVEL", "CARREL_LOG_FORMAT", "CARREL_CONFIG", "CARREL_URL", "CARREL_API_KEY",
}

func mustLoad(t *testing.T, src ConfigSource) Config {
	t.Helper()
	cfg, err := LoadConfig(src)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// mustFail returns the lines of the error of a faulty source.
func mustFail(t *testing.T, src ConfigSource) []string {
	t.Helper()
	_, err := LoadConfig(src)
	if _, ok := errors.AsType[*ConfigError](err); !ok {
		t.Fatalf("error %v, want a *ConfigError", err)
	}
	return strings.Split(err.Error(), "\n")
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "carrel.env")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTableHasEveryKeyOfTheContract(t *testing.T) {
	if diff := cmp.Diff(contractKeys, knownKeys()); diff != "" {
		t.Errorf("keys (-contract +table):\n%s", diff)
	}
	for _, row := range (Config{}).Table() {
		if row.Meaning == "" {
			t.Errorf("%s has no meaning", row.Key)
		}
	}
	for _, f := range configFields() {
		if f.Tag.Get("min") != "" && f.bound("min").Interface() == f.bound("max").Interface() {
			t.Errorf("%s allows one value only", f.key())
		}
	}
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	want := map[string]string{
		"SANDBOX_BASE_DIR": "./data", "SANDBOX_WORKER_PATH": "", "SANDBOX_MAX_WORKERS": "10",
		"SANDBOX_WORKER_TIMEOUT": "5m0s", "SANDBOX_STARTUP_TIMEOUT": "30s", "SANDBOX_IDLE_TIMEOUT": "5m0s",
		"SANDBOX_MAX_REQUESTS": "100", "SANDBOX_WARM_WORKERS": "2", "SANDBOX_MAX_RUNS_PER_USER": "4",
		"SANDBOX_QUEUE_SIZE": "100", "SANDBOX_QUEUE_TIMEOUT": "30s", "SANDBOX_ALLOWED_ENV_VARS": "LANG,LC_ALL,TZ",
		"SANDBOX_MEMORY_LIMIT": "1GiB", "SANDBOX_CPU_LIMIT": "1", "SANDBOX_PIDS_LIMIT": "256", "SANDBOX_DISK_QUOTA": "1GiB",
		"SANDBOX_FILE_TTL": "720h0m0s", "SANDBOX_ISOLATION": "strict", "SANDBOX_SELF_TEST": "off", "SANDBOX_REQUIRE": "", "SANDBOX_UID_RANGE": "200000:65536",
		"SANDBOX_AGENT": "shell", "CARREL_PERMISSIONS_FILE": "", "CARREL_APPROVAL_TIMEOUT": "5m0s", "CARREL_LISTEN": "127.0.0.1:8642", "CARREL_API_KEYS_FILE": "",
		"CARREL_DRAIN_TIMEOUT": "30s", "CARREL_RATE_LIMIT": "", "CARREL_TLS_CERT_FILE": "", "CARREL_TLS_KEY_FILE": "",
		"CARREL_DATABASE_URL": "sqlite:data/carrel.db", "ANTHROPIC_API_KEY": "", "ANTHROPIC_API_KEY_FILE": "",
		"ANTHROPIC_BASE_URL": "https://api.anthropic.com", "CARREL_LOG_LEVEL": "info", "CARREL_LOG_FORMAT": "",
		"CARREL_BUDGET_RUN_USD": "0", "CARREL_BUDGET_RUN_TOKENS": "0", "CARREL_BUDGET_USER_DAY_USD": "0",
		"CARREL_BUDGET_USER_DAY_TOKENS": "0", "CARREL_PRICES_FILE": "", "CARREL_AUDIT_FILE": "data/audit.log", "CARREL_AUDIT_MAX_BYTES": "64MiB", "CARREL_AUDIT_KEEP": "8",
		"CARREL_AUDIT_CONTENT": "false", "CARREL_AUDIT_REQUIRED": "false",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_EXPORTER_OTLP_HEADERS": "", "CARREL_TRACE_MODEL_API": "false",
	}
	cfg := DefaultConfig()
	if diff := cmp.Diff(want, cfg.Redacted()); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	if err := cfg.Validate(); err != nil {
		t.Errorf("the defaults are at fault: %v", err)
	}
	if warnings := cfg.Warnings(); len(warnings) > 0 {
		t.Errorf("the defaults warn: %q", warnings)
	}
}

func TestRedactedValuesLoadAgain(t *testing.T) {
	cfg := mustLoad(t, ConfigSource{Environ: []string{
		"SANDBOX_MEMORY_LIMIT=1536MiB", "SANDBOX_DISK_QUOTA=5000001", "SANDBOX_CPU_LIMIT=0.25", "SANDBOX_FILE_TTL=0",
		"SANDBOX_ALLOWED_ENV_VARS=", "SANDBOX_REQUIRE=quota, cgroup", "CARREL_LOG_LEVEL=WARN", "CARREL_LOG_FORMAT=json",
		"CARREL_RATE_LIMIT=90/m",
	}})
	values := cfg.Redacted()
	again := mustLoad(t, ConfigSource{Overrides: values})
	if diff := cmp.Diff(values, again.Redacted()); diff != "" {
		t.Errorf("loaded again (-first +second):\n%s", diff)
	}
	if len(again.AllowedEnvVars) != 0 {
		t.Errorf("an empty list became %q", again.AllowedEnvVars)
	}
}

func TestFlagsWinOverEnvironmentOverFileOverDefaults(t *testing.T) {
	file := writeFile(t, "SANDBOX_MAX_WORKERS=20\nSANDBOX_QUEUE_SIZE=21\nSANDBOX_PIDS_LIMIT=22\n")
	cfg := mustLoad(t, ConfigSource{
		Environ:   []string{"CARREL_CONFIG=" + file, "SANDBOX_QUEUE_SIZE=31", "SANDBOX_PIDS_LIMIT=31", "SANDBOX_PIDS_LIMIT=32", "OTHER=x"},
		Overrides: map[string]string{"SANDBOX_PIDS_LIMIT": "42"},
	})
	got := []int{cfg.MaxRunsPerUser, cfg.MaxWorkers, cfg.QueueSize, cfg.PIDsLimit}
	if diff := cmp.Diff([]int{4, 20, 31, 42}, got); diff != "" {
		t.Errorf("default, file, environment, flag (-want +got):\n%s", diff)
	}
	other := writeFile(t, "SANDBOX_MAX_WORKERS=7\n")
	if cfg := mustLoad(t, ConfigSource{Environ: []string{"CARREL_CONFIG=" + file}, File: other}); cfg.MaxWorkers != 7 {
		t.Errorf("--config does not win over CARREL_CONFIG: %d workers", cfg.MaxWorkers)
	}
}

func TestEveryFaultIsReportedAtOnceWithKeyValueAndRange(t *testing.T) {
	file := writeFile(t, "# comment\nSANDBOX_PIDS_LIMIT=lots\n\nnonsense\nSANDBOX_PIDS_LIMIT=3\nCOLOUR=red\n")
	got := mustFail(t, ConfigSource{
		File: file,
		Environ: []string{
			"SANDBOX_MAX_WORKERS=0", "SANDBOX_WARM_WORKERS=3", "SANDBOX_MAX_WORKER=5", "CARREL_LISTN=secret", "SANDBOX_WORKER_TIMEOUT=300",
			"SANDBOX_CPU_LIMIT=NaN", "SANDBOX_MEMORY_LIMIT=1 gig", "SANDBOX_FILE_TTL=-1s", "SANDBOX_UID_RANGE=0:10",
			"SANDBOX_ISOLATION=none", "SANDBOX_REQUIRE=cgroup,magic", "CARREL_LOG_LEVEL=loud",
		},
		Overrides: map[string]string{"SANDBOX_AGENT": "claude"},
	})
	at := func(line int) string { return fmt.Sprintf("%s:%d", file, line) }
	want := []string{
		at(4) + ": is not of the form KEY=value",
		"CARREL_LISTN: unknown key; the nearest known one is CARREL_LISTEN (from environment)",
		"CARREL_LOG_LEVEL=loud: must be debug, info, warn or error (from environment)",
		"COLOUR: unknown key; the nearest known one is CARREL_URL (from " + at(6) + ")",
		"SANDBOX_AGENT=claude: claude needs a key: set ANTHROPIC_API_KEY or ANTHROPIC_API_KEY_FILE (allowed: shell; from flag)",
		"SANDBOX_CPU_LIMIT=NaN: out of range (allowed: 0.01..1024; from environment)",
		"SANDBOX_FILE_TTL=-1s: out of range (allowed: 0 (never) or 1s..87600h; from environment)",
		"SANDBOX_ISOLATION=none: is none of the allowed words (allowed: strict, degraded; from environment)",
		"SANDBOX_MAX_WORKER: unknown key; the nearest known one is SANDBOX_MAX_WORKERS (from environment)",
		"SANDBOX_MAX_WORKERS=0: out of range (allowed: 1..10000; from environment)",
		`SANDBOX_MEMORY_LIMIT="1 gig": must be a whole number of bytes, or one with a unit: 1048576, 512MiB, 1GiB (allowed: 16MiB..16TiB; from environment)`,
		"SANDBOX_PIDS_LIMIT: is set twice in the file (from " + at(5) + ")",
		"SANDBOX_PIDS_LIMIT=lots: must be a whole number (allowed: 16..4194304; from " + at(2) + ")",
		"SANDBOX_REQUIRE=magic: is none of the allowed words (allowed: cgroup, quota; from environment)",
		"SANDBOX_UID_RANGE=0:10: uids below 1000 belong to the system (allowed: first:count within 1000..4294967294, without 65534 and 65535; from environment)",
		"SANDBOX_WORKER_TIMEOUT=300: must be a duration with a unit, such as 90s or 1h30m (allowed: 1ms..720h; from environment)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestBothEndsOfEveryRangeAreAllowedAndNoStepBeyond(t *testing.T) {
	for _, f := range configFields() {
		if f.Tag.Get("min") == "" {
			continue
		}
		t.Run(f.key(), func(t *testing.T) {
			for _, end := range []string{"min", "max"} {
				cfg := DefaultConfig()
				cfg.MaxWorkers = 10000 // room for every number of warm ones
				v := reflect.ValueOf(&cfg).Elem().FieldByIndex(f.Index)
				v.Set(f.bound(end))
				if err := cfg.Validate(); err != nil && f.key() != "SANDBOX_MAX_WORKERS" {
					t.Errorf("%s is refused: %v", end, err)
				}
				step := int64(1)
				if end == "min" {
					step = -1
				}
				if v.CanFloat() {
					v.SetFloat(v.Float() + float64(step))
				} else {
					v.SetInt(v.Int() + step)
				}
				if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), f.key()) {
					t.Errorf("one beyond %s is allowed: %v", end, err)
				}
			}
		})
	}
}

func TestWarmWorkersFollowMaxWorkersUnlessSet(t *testing.T) {
	if cfg := mustLoad(t, ConfigSource{Environ: []string{"SANDBOX_MAX_WORKERS=1"}}); cfg.WarmWorkers != 1 {
		t.Errorf("%d warm workers of 1", cfg.WarmWorkers)
	}
	got := mustFail(t, ConfigSource{Environ: []string{"SANDBOX_MAX_WORKERS=1", "SANDBOX_WARM_WORKERS=2"}})
	want := []string{"SANDBOX_WARM_WORKERS=2: is more than SANDBOX_MAX_WORKERS (allowed: 0..1; from environment)"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNamesThatLookLikeSecretsAreNotAllowed(t *testing.T) {
	refused := []string{
		"DB_HOST", "DATABASE_URL", "POSTGRES_X", "MYSQL_X", "REDIS_URL", "RABBITMQ_X", "AMQP_X", "AZURE_X", "AWS_REGION",
		"SECRET_X", "JWT_X", "API_KEY_X", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "PRIVATE_X", "CREDENTIAL_X", "MY_KEY", "GITHUB_TOKEN", "APP_SECRET", "X_PASSWORD",
		"aws_region", "Db_x", "github_token", "anthropic_api_key", "1X", "A-B", "A=B",
	}
	got := mustFail(t, ConfigSource{Environ: []string{"SANDBOX_ALLOWED_ENV_VARS=LANG," + strings.Join(refused, ",")}})
	if len(got) != len(refused) {
		t.Errorf("%d faults for %d names:\n%s", len(got), len(refused), strings.Join(got, "\n"))
	}
	cfg := mustLoad(t, ConfigSource{Environ: []string{"SANDBOX_ALLOWED_ENV_VARS=TZ, MONKEY,TOKEN,KEYBOARD,X_KEYS,ANTHROPIC_API_KEY,"}})
	if diff := cmp.Diff([]string{"TZ", "MONKEY", "TOKEN", "KEYBOARD", "X_KEYS", "ANTHROPIC_API_KEY"}, cfg.AllowedEnvVars); diff != "" {
		t.Error(diff)
	}
	if w := cfg.Warnings(); len(w) != 1 || !strings.Contains(w[0], "ANTHROPIC_API_KEY") {
		t.Errorf("warnings %q, want one on ANTHROPIC_API_KEY", w)
	}
}

func TestOnlyALoopbackAddressIsListenedOn(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "127.9.9.9:80", "[::1]:65535", "localhost:1", "[::ffff:127.0.0.1]:1"} {
		mustLoad(t, ConfigSource{Environ: []string{"CARREL_LISTEN=" + address}})
	}
	for _, address := range []string{":8642", "0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:65536", "127.1:1", "127.0.0.1.example.org:1"} {
		got := mustFail(t, ConfigSource{Environ: []string{"CARREL_LISTEN=" + address}})
		if len(got) != 1 || !strings.HasPrefix(got[0], "CARREL_LISTEN=") {
			t.Errorf("%s gives %q", address, got)
		}
	}
}

func TestWhatIsNotBuiltYetIsRefusedWithASentence(t *testing.T) {
	got := mustFail(t, ConfigSource{Environ: []string{
		"CARREL_DATABASE_URL=postgres://u:" + keyCanary + "@h/db", "SANDBOX_AGENT=acp",
	}})
	want := []string{
		"CARREL_DATABASE_URL: Postgres is not available in this version (allowed: sqlite:PATH; from environment)",
		"SANDBOX_AGENT=acp: there is no such agent (allowed: shell; from environment)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAuditLogCanBeSwitchedOffUnlessItIsRequired(t *testing.T) {
	if cfg := mustLoad(t, ConfigSource{Environ: []string{"CARREL_AUDIT_FILE=-"}}); cfg.hasAudit() {
		t.Error("there is one")
	}
	for environ, want := range map[string]string{
		"CARREL_AUDIT_FILE=- CARREL_AUDIT_REQUIRED=true": "there is no audit log to require",
		"CARREL_AUDIT_CONTENT=some":                      "must be true or false",
	} {
		if got := mustFail(t, ConfigSource{Environ: strings.Fields(environ)}); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s gives %q", environ, got)
		}
	}
}

func TestAgentIsClaudeWhereThereIsAKey(t *testing.T) {
	key := "ANTHROPIC_API_KEY=" + keyCanary
	for environ, want := range map[string]string{"": "shell", key: "claude", key + "\nSANDBOX_AGENT=shell": "shell", key + "\nSANDBOX_AGENT=claude": "claude"} {
		cfg := mustLoad(t, ConfigSource{Environ: strings.Fields(environ)})
		if w := cfg.Warnings(); cfg.Agent != want || len(w) > 0 {
			t.Errorf("%d variables: the agent is %s, warnings %q", len(strings.Fields(environ)), cfg.Agent, w)
		}
	}
}

func TestKeyIsPrintedNowhere(t *testing.T) {
	file := writeFile(t, keyCanary+"\n")
	sources := map[string]ConfigSource{
		"environment": {Environ: []string{"ANTHROPIC_API_KEY=" + keyCanary}},
		"flag":        {Overrides: map[string]string{"ANTHROPIC_API_KEY": keyCanary}},
		"file":        {File: writeFile(t, `ANTHROPIC_API_KEY="`+keyCanary+`"`)},
		"key file":    {Environ: []string{"ANTHROPIC_API_KEY_FILE=" + file}},
	}
	for name, src := range sources {
		t.Run(name, func(t *testing.T) {
			cfg := mustLoad(t, src)
			if !cfg.AnthropicAPIKey.IsSet() {
				t.Fatal("the key is not set")
			}
			out := fmt.Sprintf("%v %+v %#v %q %q", cfg, cfg, cfg, cfg.Redacted(), cfg.Warnings())
			if strings.Contains(out, keyCanary) {
				t.Errorf("the key leaks: %s", out)
			}
			if got := cfg.Redacted()["ANTHROPIC_API_KEY"]; got != "[redacted]" {
				t.Errorf("Redacted shows %q", got)
			}
		})
	}
	faulty := []ConfigSource{
		{Environ: []string{"ANTHROPIC_API_KEY=" + keyCanary + " x"}},
		{Environ: []string{"ANTHROPIC_API_KEY=" + keyCanary, "ANTHROPIC_API_KEY_FILE=" + file}},
		{Environ: []string{"CARREL_API_KEI=" + keyCanary}},
		{File: writeFile(t, "CARREL_API_KEY="+keyCanary)},
		{Overrides: map[string]string{"CARREL_API_KEY": keyCanary}},
		{Environ: []string{"ANTHROPIC_BASE_URL=https://u:" + keyCanary + "@h"}},
		{Environ: []string{"CARREL_DATABASE_URL=mysql://u:" + keyCanary + "@h"}},
		{File: writeFile(t, "ANTHROPIC_API_KEY "+keyCanary)},
		{File: writeFile(t, "ANTHROPIC_API_KEY='"+keyCanary)},
		{File: writeFile(t, "ANTHROPIC_APIKEY="+keyCanary)},
	}
	for i, src := range faulty {
		if got := strings.Join(mustFail(t, src), "\n"); strings.Contains(got, keyCanary) {
			t.Errorf("fault %d leaks: %s", i, got)
		}
	}
}

func TestWarnsOfAKeyThatOthersCanRead(t *testing.T) {
	file := writeFile(t, "ANTHROPIC_API_KEY="+keyCanary+"\nANTHROPIC_BASE_URL=http://gateway.example.org\n"+
		"OTEL_EXPORTER_OTLP_HEADERS=x-key="+keyCanary+"\nOTEL_EXPORTER_OTLP_ENDPOINT=http://collector.example.org\n")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	warnings := strings.Join(mustLoad(t, ConfigSource{File: file}).Warnings(), "\n")
	for _, want := range []string{"has mode 0644", "the key over the network unencrypted", "OTLP_HEADERS over the network unencrypted"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("no warning with %q in:\n%s", want, warnings)
		}
	}
}

func TestFileThatCannotBeReadIsAFault(t *testing.T) {
	for _, file := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir(), writeFile(t, strings.Repeat("#\n", maxConfigFileBytes/2+1))} {
		if got := mustFail(t, ConfigSource{File: file}); len(got) != 1 || !strings.HasPrefix(got[0], file+": ") {
			t.Errorf("%s gives %q", file, got)
		}
	}
	got := mustFail(t, ConfigSource{File: writeFile(t, "CARREL_CONFIG=x\nCARREL_URL=y\nCARREL_API_KEY=z\n")})
	if len(got) != 3 {
		t.Errorf("keys that stand in no file give %q", got)
	}
}

func TestConfigFileTakesCommentsBlankLinesAndQuotes(t *testing.T) {
	text := "\n# c\n  # c\nA=1\r\n B = two words \nC=x # c\nD=x#y\nE='a \"b\" \\ # c' # c\nF=\"a 'b' \\\" \\\\ # c\"\nG=\nH=# c\nI=a=b\n"
	lines, faults := parseConfigFile(text)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	got := make(map[string]string)
	for _, line := range lines {
		got[line.key] = line.value
	}
	want := map[string]string{"A": "1", "B": "two words", "C": "x", "D": "x#y", "E": `a "b" \ # c`, "F": `a 'b' " \ # c`, "G": "", "H": "", "I": "a=b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{"A", "=x", "export A=x", "1A=x", "A='x", `A="x`, `A="\`, `A="\n"`, "A='x'y", "A=\x00", "A=\xff", "\ufeffA=x"} {
		if _, faults := parseConfigFile(line); len(faults) != 1 {
			t.Errorf("%q is taken", line)
		}
	}
}

func TestNearestKeyHasTheLeastDistance(t *testing.T) {
	for wrong, want := range map[string]string{
		"SANDBOX_MAXWORKERS": "SANDBOX_MAX_WORKERS", "SANDBOX_MEM_LIMIT": "SANDBOX_MEMORY_LIMIT",
		"CARREL_DB_URL": "CARREL_URL", "SANDBOX_TTL": "SANDBOX_FILE_TTL", "CARREL_LOGLEVEL": "CARREL_LOG_LEVEL",
	} {
		if got := nearest(wrong, knownKeys()); got != want {
			t.Errorf("nearest to %s is %s, want %s", wrong, got, want)
		}
	}
}

func TestLogLevelIgnoresCase(t *testing.T) {
	for _, level := range []string{"debug", "Info", "WARN", "error"} {
		cfg := mustLoad(t, ConfigSource{Environ: []string{"CARREL_LOG_LEVEL=" + level}})
		if got := cfg.Redacted()["CARREL_LOG_LEVEL"]; got != strings.ToLower(level) {
			t.Errorf("%s became %s", level, got)
		}
	}
}

func TestEmptyValueIsAsGoodAsNone(t *testing.T) {
	var environ []string
	for _, key := range slices.Sorted(maps.Keys(DefaultConfig().Redacted())) {
		environ = append(environ, key+"=")
	}
	want, got := DefaultConfig().Redacted(), mustLoad(t, ConfigSource{Environ: environ}).Redacted()
	want["SANDBOX_ALLOWED_ENV_VARS"] = "" // the empty list
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if ttl := mustLoad(t, ConfigSource{Environ: []string{"SANDBOX_FILE_TTL=0"}}).FileTTL; ttl != time.Duration(0) {
		t.Errorf("0 became %s", ttl)
	}
}

func TestUIDRangeHasRoomForUsersBesideTheWarmWorkers(t *testing.T) {
	small := []string{"SANDBOX_UID_RANGE=200000:10", "SANDBOX_MAX_WORKERS=10"}
	got := mustFail(t, ConfigSource{Environ: small})
	want := []string{"SANDBOX_UID_RANGE=200000:10: leaves no uid for users: warm workers need the last 10 " +
		"(allowed: a count above SANDBOX_MAX_WORKERS, or SANDBOX_WARM_WORKERS=0; from environment)"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	for _, more := range []string{"SANDBOX_WARM_WORKERS=0", "SANDBOX_UID_RANGE=200000:11"} {
		mustLoad(t, ConfigSource{Environ: append(slices.Clip(small), more)})
	}
}
