package broker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carrel/internal/store"
)

func TestPricesOfModels(t *testing.T) {
	million := tokens{input: 1e6, output: 1e6, cacheRead: 1e6, cacheCreate5m: 1e6, cacheCreate1h: 1e6}
	tests := []struct {
		model string
		t     tokens
		usd   float64
		known bool
	}{
		{"claude-opus-4-5", million, 5 + 25 + .5 + 6.25 + 10, true},
		{"claude-opus-4-5-20251101", million, 5 + 25 + .5 + 6.25 + 10, true},
		{"claude-3-5-haiku-latest", tokens{input: 1e6}, .8, true},
		{"anthropic/claude-sonnet-4-6", tokens{output: 1e6}, 15, true},
		{"claude-haiku-5-5", tokens{input: 60_000, cacheRead: 40_000, output: 1e6}, .006 + .0004 + .5, true},
		{"claude-haiku-5-5", tokens{input: 60_000, cacheRead: 40_001, output: 1e6}, .03 + .00200005 + 2.5, true},
		{"claude-opus-4-55", tokens{input: 1e6}, 15, false},
		{"", tokens{cacheRead: 1e6}, 1.5, false},
		{"gpt", tokens{output: 1e6, cacheCreate1h: 1e6}, 75 + 30, false},
	}
	p := DefaultPrices()
	for _, tt := range tests {
		if got := p.spending(tt.model, tt.t).CostNanoUSD; got != int64(tt.usd*1e9+.5) {
			t.Errorf("%s %+v costs %d, want $%g", tt.model, tt.t, got, tt.usd)
		}
		if _, known := p.of(tt.model); known != tt.known {
			t.Errorf("%q: known %t", tt.model, known)
		}
	}
	if got := p.spending("claude-opus-4-5", million); got.Usage().Tokens() != 5e6 || got.CacheCreationTokens != 2e6 || got.Requests != 0 {
		t.Errorf("spending %+v", got)
	}
	if got := p.spending("claude-opus-4-5", tokens{}); got != (store.Spending{}) {
		t.Errorf("nothing costs %+v", got)
	}
}

func TestOperatorsPricesTakeThePlaceOfOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prices.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"models":{"local":{"input":0,"output":0.001,"cache_read":0,"cache_write_5m":0,"cache_write_1h":0}}}`)
	p, err := ReadPricesFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.spending("claude-opus-5", tokens{input: 5, output: 7}).CostNanoUSD; got != 7 {
		t.Errorf("cost %d, the one price there is makes 7", got)
	}
	for name, text := range map[string]string{
		"no json": `models`, "no models": `{"models":{}}`, "missing": `{"models":{"m":{"input":1}}}`,
		"misspelt":      `{"models":{"m":{"imput":1,"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}}}`,
		"negative":      `{"models":{"m":{"input":-1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}}}`,
		"out of reason": `{"models":{"m":{"input":1e7,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}}}`,
		"bad long":      `{"models":{"m":{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1,"long_prompt":{"above_tokens":5}}}}`,
		"long of none":  `{"models":{"m":{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1,"long_prompt":{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}}}}`,
		"given twice":   `{"models":{"m":{"input":1,"input":2,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}}}`,
		"too long":      strings.Repeat(" ", maxPricesBytes+1),
	} {
		write(text)
		if _, err := ReadPricesFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := ReadPricesFile(path + ".none"); err == nil {
		t.Error("a missing file is taken")
	}
}
