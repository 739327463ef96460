package carrel

import (
	"encoding"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check returns everything wrong with c.
func (c Config) check() []Fault {
	faults := c.checkTags()
	if c.BaseDir == "" {
		faults = append(faults, Fault{Key: "SANDBOX_BASE_DIR", Reason: "must not be empty"})
	}
	// Where either figure is out of range by itself, comparing them says nothing.
	if c.WarmWorkers > c.MaxWorkers && !hasFault(faults, "SANDBOX_WARM_WORKERS") && !hasFault(faults, "SANDBOX_MAX_WORKERS") {
		faults = append(faults, Fault{
			Key: "SANDBOX_WARM_WORKERS", Value: strconv.Itoa(c.WarmWorkers),
			Reason: "is more than SANDBOX_MAX_WORKERS", Allowed: "0.." + strconv.Itoa(c.MaxWorkers),
		})
	}
	if err := c.UIDRange.check(); err != nil {
		faults = append(faults, Fault{
			Key: "SANDBOX_UID_RANGE", Value: c.UIDRange.String(), Reason: err.Error(), Allowed: uidRangeAllowed,
		})
	} else if slots := c.slotUIDs(); int64(c.UIDRange.Count) <= int64(slots) && !hasFault(faults, "SANDBOX_MAX_WORKERS") {
		faults = append(faults, Fault{
			Key: "SANDBOX_UID_RANGE", Value: c.UIDRange.String(),
			Reason:  "leaves no uid for users: warm workers need the last " + strconv.Itoa(slots),
			Allowed: "a count above SANDBOX_MAX_WORKERS, or SANDBOX_WARM_WORKERS=0",
		})
	}
	if err := c.checkAgent(c.Agent); err != nil {
		faults = append(faults, Fault{
			Key: "SANDBOX_AGENT", Value: c.Agent, Reason: err.Error(), Allowed: strings.Join(c.agents(), ", "),
		})
	}
	faults = append(faults, checkEnvVars(c.AllowedEnvVars)...)
	faults = append(faults, checkListen(c.Listen, c.APIKeysFile != "")...)
	faults = append(faults, c.checkKeysFile()...)
	faults = append(faults, c.checkTLS()...)
	if err := c.RateLimit.check(); err != nil {
		faults = append(faults, Fault{
			Key: "CARREL_RATE_LIMIT", Value: c.RateLimit.String(), Reason: err.Error(), Allowed: rateLimitAllowed,
		})
	}
	if _, err := c.SQLitePath(); err != nil && !isPostgresURL(c.DatabaseURL) {
		faults = append(faults, Fault{Key: "CARREL_DATABASE_URL", Reason: "is of no known form", Allowed: "sqlite:PATH"})
	}
	faults = append(faults, checkBaseURL("ANTHROPIC_BASE_URL", c.AnthropicBaseURL)...)
	if c.OTLPEndpoint != "" {
		faults = append(faults, checkBaseURL("OTEL_EXPORTER_OTLP_ENDPOINT", c.OTLPEndpoint)...)
	}
	if _, err := c.prices(); err != nil {
		faults = append(faults, Fault{Key: "CARREL_PRICES_FILE", Value: c.PricesFile, Reason: err.Error()})
	}
	if c.AuditRequired && !c.hasAudit() {
		faults = append(faults, Fault{Key: "CARREL_AUDIT_REQUIRED", Value: "true", Reason: "there is no audit log to require: CARREL_AUDIT_FILE names none"})
	}
	return append(faults, checkUnbuilt(c)...)
}

// hasAudit reports whether an audit log is kept.
func (c *Config) hasAudit() bool { return c.AuditFile != "" && c.AuditFile != "-" }

// checkTags checks ranges and words as the tags of Config say.
func (c Config) checkTags() []Fault {
	var faults []Fault
	for _, f := range configFields() {
		v := reflect.ValueOf(c).FieldByIndex(f.Index)
		if f.Tag.Get("min") != "" && !f.inRange(v) {
			faults = append(faults, Fault{Key: f.key(), Value: render(v), Reason: "out of range", Allowed: f.allowed()})
		}
		words := f.words()
		if words == nil {
			continue
		}
		given, isList := reflect.TypeAssert[[]string](v)
		if !isList {
			given = []string{v.String()}
		}
		for _, word := range given {
			// A word with a default of its own may be left out.
			if !slices.Contains(words, word) && (word != "" || f.Tag.Get("shown") == "") {
				faults = append(faults, Fault{Key: f.key(), Value: word, Reason: "is none of the allowed words", Allowed: f.allowed()})
			}
		}
	}
	return faults
}

// inRange reports whether v lies between the field's min and max, or is a zero
// that has a meaning. NaN lies in no range.
func (f configField) inRange(v reflect.Value) bool {
	if f.Tag.Get("zero") != "" && v.IsZero() {
		return true
	}
	lowest, highest := f.bound("min"), f.bound("max")
	if v.CanFloat() {
		return v.Float() >= lowest.Float() && v.Float() <= highest.Float()
	}
	return v.Int() >= lowest.Int() && v.Int() <= highest.Int()
}

// bound reads a bound from its tag, which is written as a value of the field
// would be. That every tag can be read, a test holds.
func (f configField) bound(tag string) reflect.Value {
	text := f.Tag.Get(tag)
	v := reflect.New(f.Type)
	var err error
	switch p := v.Interface().(type) {
	case encoding.TextUnmarshaler:
		err = p.UnmarshalText([]byte(text))
	case *time.Duration:
		*p, err = time.ParseDuration(text)
	case *float64:
		*p, err = strconv.ParseFloat(text, 64)
	case *int:
		*p, err = strconv.Atoi(text)
	}
	if err != nil {
		panic("carrel: tag " + tag + " of " + f.key() + ": " + err.Error())
	}
	return v.Elem()
}

// keyException is the one secret that may be allowed into sandboxes; it costs a
// warning.
const keyException = "ANTHROPIC_API_KEY"

// checkEnvVars refuses names that look like secrets (CONTRACT, configuration:
// SANDBOX_ALLOWED_ENV_VARS), in whatever case they are written.
func checkEnvVars(names []string) []Fault {
	var faults []Fault
	for _, name := range names {
		fault := Fault{Key: "SANDBOX_ALLOWED_ENV_VARS", Value: name}
		switch {
		case !isEnvName(name):
			fault.Reason, fault.Allowed = "is no name of an environment variable", "letters, digits and _, no digit first"
		case name != keyException && looksSecret(name):
			fault.Reason = "looks like a secret, which must not enter a sandbox; take it off the list"
		default:
			continue
		}
		faults = append(faults, fault)
	}
	return faults
}

func looksSecret(name string) bool {
	name = strings.ToUpper(name)
	if strings.HasPrefix(name, "OTEL_EXPORTER_OTLP_") && strings.HasSuffix(name, "_HEADERS") { // of each signal there is one
		return true
	}
	hasPrefix := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	hasSuffix := func(suffix string) bool { return strings.HasSuffix(name, suffix) }
	return slices.ContainsFunc([]string{
		"DB_", "DATABASE_", "POSTGRES_", "MYSQL_", "REDIS_", "RABBITMQ_", "AMQP_", "AZURE_", "AWS_",
		"SECRET_", "JWT_", "API_KEY_", "PRIVATE_", "CREDENTIAL_",
	}, hasPrefix) || slices.ContainsFunc([]string{"_KEY", "_TOKEN", "_SECRET", "_PASSWORD"}, hasSuffix)
}

// checkListen refuses an address that other machines can reach while nobody has
// to sign in.
func checkListen(address string, hasKeys bool) []Fault {
	fault := Fault{Key: "CARREL_LISTEN", Value: address}
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	switch {
	case err != nil:
		fault.Reason, fault.Allowed = "must be host:port", "a port from 0 to 65535; 0 = any free one"
	case !isLoopback(host) && !hasKeys:
		fault.Reason = "is not a loopback address, and without CARREL_API_KEYS_FILE everyone who reaches it could run anything"
		fault.Allowed = "127.0.0.0/8, [::1], localhost"
	default:
		return nil
	}
	return []Fault{fault}
}

// isLoopback reports whether a host is this machine alone. "localhost" is
// (RFC 6761 §6.3); an empty host is every address.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, "localhost")
	}
	return addr.Unmap().IsLoopback()
}

func isLoopbackURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && isLoopback(u.Hostname())
}

func checkBaseURL(key, text string) []Fault {
	u, err := url.Parse(text)
	if err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" &&
		u.User == nil && u.RawQuery == "" && u.Fragment == "" {
		return nil
	}
	return []Fault{{Key: key, Reason: "is of no known form", Allowed: "https://host[:port][/path], without a user, query or fragment"}}
}
