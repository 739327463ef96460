package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
)

// progressEvery is how often a person sees a new figure.
const progressEvery = 200 * time.Millisecond

// progress shows a person how far a copy is. Where nobody looks it is silent.
type progress struct {
	to    io.Writer // nil = nobody looks
	bytes int64
	all   int64 // negative: nobody knows
	shown time.Time
}

func newProgress(out *output, all int64) *progress {
	p := &progress{all: all}
	if f, ok := out.stderr.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		p.to = f
	}
	return p
}

// Write counts what is copied.
func (p *progress) Write(b []byte) (int, error) {
	p.bytes += int64(len(b))
	if p.to != nil && time.Since(p.shown) >= progressEvery {
		p.shown = time.Now()
		p.show()
	}
	return len(b), nil
}

func (p *progress) show() {
	const mib = 1 << 20
	text := fmt.Sprintf("%.1f MiB", float64(p.bytes)/mib)
	if p.all > 0 {
		text += fmt.Sprintf(" of %.1f, %d %%", float64(p.all)/mib, 100*p.bytes/p.all)
	}
	_, _ = fmt.Fprintf(p.to, "\r%s\x1b[K", text)
}

func (p *progress) end() {
	if p.to != nil {
		_, _ = fmt.Fprint(p.to, "\r\x1b[K")
	}
}
