package carrel

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"carrel/internal/broker"
	"carrel/internal/tracing"
)

// ConfigKey is one row of the table of keys.
type ConfigKey struct {
	Key     string
	Default string // "" = none
	Allowed string // range or words; "" where the meaning says it
	Meaning string
}

// Table returns the keys in the order in which pages show them.
func (Config) Table() []ConfigKey {
	var rows []ConfigKey
	for _, f := range configFields() {
		row := ConfigKey{Key: f.key(), Default: f.Tag.Get("envDefault"), Allowed: f.allowed(), Meaning: f.Tag.Get("meaning")}
		if shown, ok := f.Tag.Lookup("shown"); ok {
			row.Default = shown
		}
		rows = append(rows, row)
	}
	return append(rows,
		ConfigKey{Key: keyConfig, Meaning: "KEY=value file that holds any of the keys above; the environment wins over it"},
		ConfigKey{Key: keyURL, Meaning: "running daemon that run, exec, files, ps and logs talk to"},
		ConfigKey{Key: keyAPIKey, Meaning: "API key that they sign in with there"},
	)
}

// Redacted returns the configuration by key, without secrets.
func (c Config) Redacted() map[string]string {
	values := make(map[string]string)
	for _, f := range configFields() {
		values[f.key()] = render(reflect.ValueOf(c).FieldByIndex(f.Index))
	}
	return values
}

// knownKeys returns every key that may be set.
func knownKeys() []string {
	var keys []string
	for _, row := range (Config{}).Table() {
		keys = append(keys, row.Key)
	}
	return keys
}

// configField is a field of Config that has a key.
type configField struct{ reflect.StructField }

func configFields() []configField {
	var fields []configField
	for f := range reflect.TypeFor[Config]().Fields() {
		if f.Tag.Get("env") != "" {
			fields = append(fields, configField{f})
		}
	}
	return fields
}

func (f configField) key() string { return f.Tag.Get("env") }

// words returns the words that are allowed; nil if any are.
func (f configField) words() []string {
	if words := f.Tag.Get("oneof"); words != "" {
		return strings.Split(words, ",")
	}
	return nil
}

// allowed says in words what the tags allow.
func (f configField) allowed() string {
	lowest, highest := f.Tag.Get("min"), f.Tag.Get("max")
	switch zero := f.Tag.Get("zero"); {
	case f.Type == reflect.TypeFor[UIDRange]():
		return uidRangeAllowed
	case f.Type == reflect.TypeFor[RateLimit]():
		return rateLimitAllowed
	case lowest == "":
		return strings.Join(f.words(), ", ")
	case zero != "":
		return "0 (" + zero + ") or " + lowest + ".." + highest
	default:
		return lowest + ".." + highest
	}
}

// form says how a value of the field must look; the text of parsers is not
// shown, since it repeats what it could not read.
func (f configField) form() string {
	switch {
	case f.Type == reflect.TypeFor[time.Duration]():
		return "must be a duration with a unit, such as 90s or 1h30m"
	case f.Type == reflect.TypeFor[slog.Level]():
		return "must be debug, info, warn or error"
	case f.Type.Kind() == reflect.Float64:
		return "must be a number"
	case f.Type.Kind() == reflect.Bool:
		return "must be true or false"
	default:
		return "must be a whole number"
	}
}

// secret reports whether a value of the field must not be shown. A URL may hold
// a password.
func (f configField) secret() bool {
	return f.Type == reflect.TypeFor[broker.Secret]() || f.Type == reflect.TypeFor[tracing.Headers]() || strings.HasSuffix(f.key(), "_URL")
}

// parseConfig reads the values into a Config, defaults where there are none.
func parseConfig(set settings) (Config, []Fault) {
	var cfg Config
	err := env.ParseWithOptions(&cfg, env.Options{Environment: set.environment()})
	var faults []Fault
	if all, ok := errors.AsType[env.AggregateError](err); ok {
		for _, one := range all.Errors {
			faults = append(faults, parseFault(one, set))
		}
	} else if err != nil {
		faults = append(faults, Fault{Reason: err.Error()})
	}

	v := reflect.ValueOf(&cfg).Elem()
	for _, f := range configFields() {
		if f.Type.Kind() != reflect.Slice {
			continue
		}
		// env takes an empty value for none; an empty list is a list.
		list := v.FieldByIndex(f.Index)
		if given, ok := set.values[f.key()]; ok && given.value == "" {
			list.SetZero()
		}
		list.Set(reflect.ValueOf(trimWords(list.Interface().([]string))))
	}
	return cfg, faults
}

// trimWords drops white space around the words of a list, and words that are
// nothing else.
func trimWords(list []string) []string {
	var words []string
	for _, word := range list {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	return words
}

// parseFault makes a fault of one error of caarlos0/env.
func parseFault(err error, set settings) Fault {
	wrong, ok := errors.AsType[env.ParseError](err)
	if !ok {
		return Fault{Reason: err.Error()}
	}
	for _, f := range configFields() {
		if f.Name != wrong.Name {
			continue
		}
		fault := Fault{Key: f.key(), Reason: f.form(), Allowed: f.allowed()}
		// Our own types tell themselves what is wrong.
		switch f.Type {
		case reflect.TypeFor[Size](), reflect.TypeFor[UIDRange](), reflect.TypeFor[RateLimit](), reflect.TypeFor[broker.Secret](), reflect.TypeFor[tracing.Headers]():
			fault.Reason = wrong.Err.Error()
		}
		if !f.secret() {
			fault.Value = set.values[fault.Key].value
		}
		return fault
	}
	return Fault{Reason: err.Error()}
}

// render gives a value as it could be set.
func render(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case broker.Secret:
		if !x.IsSet() {
			return ""
		}
		return x.String()
	case slog.Level:
		return strings.ToLower(x.String())
	case []string:
		return strings.Join(x, ",")
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	case string:
		// Only a URL that check refuses holds a password, and check is not
		// always asked first.
		if strings.Contains(x, "://") && strings.Contains(x, "@") {
			return "[redacted]"
		}
		return x
	default:
		return fmt.Sprint(x)
	}
}

// quoteValue gives a value as a fault shows it: quoted where a reader might
// mistake its ends, and not endlessly long.
func quoteValue(s string) string {
	const longest = 120
	if len(s) > longest {
		return strconv.Quote(s[:longest]) + "…"
	}
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` || strings.ContainsAny(s, " ()") {
		return quoted
	}
	return s
}
