package broker

import (
	"encoding/json"
	"testing"
)

// FuzzPrices reads a file of prices. What is taken is JSON, each model in it has the
// price that stands there alone under its name, and no number of tokens makes a cost
// that is negative or, of a model without a price, less than a known one's.
func FuzzPrices(f *testing.F) {
	const one = `{"input":1,"output":2.5,"cache_read":0.1,"cache_write_5m":1e6,"cache_write_1h":0}`
	for _, seed := range []string{
		`{"models":{"m":` + one + `}}`, `{"models":{"m":` + one + `,"M":` + one + `}}`, `{"models":{"m":` + one + `}} trailing`,
		`{"models":{"m":` + one + `},"models":{"n":` + one + `}}`, `{"models":{"":` + one + `}}`, `{"models":{"a/b-20250101":` + one + `}}`,
		`{"models":{"m":{"input":1e-300,"output":1e400}}}`, `null`,
		`{"models":{"m":{"input":1,"input":9,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1,"long_prompt":{"above_tokens":1}}}}`,
	} {
		f.Add([]byte(seed), int64(1), int64(maxTokens))
	}
	f.Add(defaultPrices, int64(0), int64(200_001))
	f.Fuzz(func(t *testing.T, text []byte, in, out int64) {
		p, err := parsePrices(text)
		if err != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q is taken, and is no JSON", text)
		}
		n := tokens{input: min(max(in, 0), maxTokens), output: min(max(out, 0), maxTokens)}
		n.cacheRead, n.cacheCreate5m, n.cacheCreate1h = n.output, n.input, n.output
		unknown := p.spending("\x00 no such model", n)
		for name := range p.models {
			if got := p.spending(name, n); got.CostNanoUSD < 0 || got.CostNanoUSD > unknown.CostNanoUSD {
				t.Errorf("%+v of %q cost %d, of an unknown model %d", n, name, got.CostNanoUSD, unknown.CostNanoUSD)
			}
		}
		if again, err := parsePrices(append([]byte(" "), text...)); err != nil || len(again.models) != len(p.models) {
			t.Errorf("read again: %v", err)
		}
	})
}
