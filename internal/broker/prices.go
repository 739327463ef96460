package broker

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"

	"carrel/internal/exact"
	"carrel/internal/store"
)

// defaultPrices are those of Anthropic's own API. Source and date stand in the file.
//
//go:embed prices.json
var defaultPrices []byte

// maxPricesBytes bounds a file of prices; the default one has 5 KiB.
const maxPricesBytes = 1 << 20

// dated is the date at the end of a model's full name; the price is that of the
// name before it.
var dated = regexp.MustCompile(`-(\d{8}|latest)$`)

// tokens are what one answer reports.
type tokens struct {
	input, output, cacheRead     int64
	cacheCreate5m, cacheCreate1h int64
}

func (t tokens) prompt() int64 { return t.input + t.cacheRead + t.cacheCreate5m + t.cacheCreate1h }

// rates are prices of one token, in 1e-9 US dollars.
type rates struct {
	input, output, cacheRead     int64
	cacheCreate5m, cacheCreate1h int64
}

// price is what a model costs.
type price struct {
	rates

	longAbove int64 // a prompt of more tokens has the long rates, all of it; 0 = none does
	long      rates
}

// Prices tell what tokens of each model cost.
type Prices struct {
	models  map[string]price
	dearest price // each rate the highest there is
}

// DefaultPrices returns the prices that this version was built with.
func DefaultPrices() *Prices {
	p, err := parsePrices(defaultPrices)
	if err != nil {
		panic("broker: the embedded prices are at fault: " + err.Error())
	}
	return p
}

// ReadPricesFile reads prices in the form of prices.json: the operator's, which
// take the place of the embedded ones, all of them.
func ReadPricesFile(path string) (*Prices, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read prices: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxPricesBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read prices: %w", err)
	}
	if len(text) > maxPricesBytes {
		return nil, fmt.Errorf("read prices: %s: more than %d bytes", path, maxPricesBytes)
	}
	p, err := parsePrices(text)
	if err != nil {
		return nil, fmt.Errorf("read prices: %s: %w", path, err)
	}
	return p, nil
}

// perMTok are US dollars per million tokens, as a file has them.
type perMTok struct {
	Input        *float64 `json:"input"`
	Output       *float64 `json:"output"`
	CacheRead    *float64 `json:"cache_read"`
	CacheWrite5m *float64 `json:"cache_write_5m"`
	CacheWrite1h *float64 `json:"cache_write_1h"`
}

func parsePrices(text []byte) (*Prices, error) {
	var file struct {
		Source     string `json:"source"`
		AsOf       string `json:"as_of"`
		Unit       string `json:"unit"`
		NotCovered string `json:"not_covered"`
		Models     map[string]struct {
			perMTok

			Long *struct {
				perMTok

				Above int64 `json:"above_tokens"`
			} `json:"long_prompt"`
		} `json:"models"`
	}
	if err := exact.Decode(text, &file); err != nil { // a misspelt price would be a price of nothing
		return nil, err
	}
	if len(file.Models) == 0 {
		return nil, errors.New("no models")
	}
	p := &Prices{models: make(map[string]price, len(file.Models))}
	for name, m := range file.Models {
		var pr price
		var err error
		if pr.rates, err = m.rates(); err == nil && m.Long != nil {
			pr.longAbove = m.Long.Above
			if pr.long, err = m.Long.rates(); err == nil && pr.longAbove <= 0 {
				err = errors.New("above_tokens: must be more than 0")
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		p.models[name] = pr
		p.dearest.rates = p.dearest.atLeast(pr.rates).atLeast(pr.long)
	}
	return p, nil
}

func (m perMTok) rates() (r rates, err error) {
	for _, one := range []struct {
		name string
		from *float64
		to   *int64
	}{
		{"input", m.Input, &r.input},
		{"output", m.Output, &r.output},
		{"cache_read", m.CacheRead, &r.cacheRead},
		{"cache_write_5m", m.CacheWrite5m, &r.cacheCreate5m},
		{"cache_write_1h", m.CacheWrite1h, &r.cacheCreate1h},
	} {
		const most = 1e6 // a dollar a token; no sum of tokens then leaves an int64
		switch {
		case one.from == nil:
			return rates{}, fmt.Errorf("%s: is missing", one.name)
		case *one.from < 0 || *one.from > most:
			return rates{}, fmt.Errorf("%s: must be from 0 to %g", one.name, most)
		}
		// Dollars per million are millionths of a dollar each: a thousand of 1e-9.
		*one.to = int64(math.Ceil(*one.from*1000 - 1e-6))
	}
	return r, nil
}

func (r rates) atLeast(other rates) rates {
	return rates{
		input: max(r.input, other.input), output: max(r.output, other.output), cacheRead: max(r.cacheRead, other.cacheRead),
		cacheCreate5m: max(r.cacheCreate5m, other.cacheCreate5m), cacheCreate1h: max(r.cacheCreate1h, other.cacheCreate1h),
	}
}

// Models lists the models that have a price, in order of the alphabet.
func (p *Prices) Models() []string { return slices.Sorted(maps.Keys(p.models)) }

// of finds a model's price. A model that is not known is the dearest of all, so
// that a budget never lets through more than it should.
func (p *Prices) of(model string) (pr price, known bool) {
	if name, ok := p.name(model); ok {
		return p.models[name], true
	}
	return p.dearest, false
}

// name finds the model's name in the table.
func (p *Prices) name(model string) (name string, known bool) {
	// Gateways put a provider before the name: "anthropic/claude-…".
	name = model[strings.LastIndexByte(model, '/')+1:]
	for _, n := range []string{name, dated.ReplaceAllString(name, "")} {
		if _, ok := p.models[n]; ok {
			return n, true
		}
	}
	return "", false
}

// spending is what an answer of the model costs.
func (p *Prices) spending(model string, t tokens) store.Spending {
	pr, _ := p.of(model)
	r := pr.rates
	if pr.longAbove > 0 && t.prompt() > pr.longAbove {
		r = pr.long
	}
	return store.Spending{
		InputTokens:         t.input,
		OutputTokens:        t.output,
		CacheReadTokens:     t.cacheRead,
		CacheCreationTokens: t.cacheCreate5m + t.cacheCreate1h,
		CostNanoUSD: t.input*r.input + t.output*r.output + t.cacheRead*r.cacheRead +
			t.cacheCreate5m*r.cacheCreate5m + t.cacheCreate1h*r.cacheCreate1h,
	}
}
