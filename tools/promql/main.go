// Command carrel-promql evaluates queries and alert rules over scrapes of /metrics, with
// Prometheus' own parser, storage and engine. It reads a [request] as JSON from standard
// input and writes an [answer]. It is a module of its own: what it takes is nothing that
// carrel should link, or wait for.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// request is what to evaluate.
type request struct {
	ContentType string   `json:"content_type"` // of the scrapes
	Scrapes     [][]byte `json:"scrapes"`      // bodies, the oldest first, taken as a minute apart
	Queries     []string `json:"queries"`
	Rules       string   `json:"rules"` // a rule file
}

// answer is what came of it: one result for each query, then one for each rule.
type answer struct {
	Results []result `json:"results"`
}

// result is what a query gives at the moment of the last scrape.
type result struct {
	Query   string   `json:"query"`
	Alert   string   `json:"alert,omitempty"`
	Samples []string `json:"samples"`
	// Firing is what an alert's expression gives as it stands. Its samples are those
	// that it gives where comparisons tell their truth and filter nothing.
	Firing []string `json:"firing,omitempty"`
	Error  string   `json:"error,omitempty"`
}

const interval = time.Minute

func main() {
	if err := run(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "carrel-promql:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	var req request
	if err := json.NewDecoder(in).Decode(&req); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	dir, err := os.MkdirTemp("", "carrel-promql-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := tsdb.Open(dir, promslog.NewNopLogger(), nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	last := time.Now().Truncate(interval)
	begin := last.Add(-interval * time.Duration(len(req.Scrapes)-1))
	for i, body := range req.Scrapes {
		if err := ingest(ctx, db, body, req.ContentType, begin.Add(time.Duration(i)*interval)); err != nil {
			return fmt.Errorf("scrape %d: %w", i, err)
		}
	}
	e := &evaluation{db: db, at: last, parser: parser.NewParser(parser.Options{})}
	e.engine = promql.NewEngine(promql.EngineOpts{
		Logger: promslog.NewNopLogger(), MaxSamples: 1e7, Timeout: time.Minute, LookbackDelta: 5 * time.Minute,
		EnableAtModifier: true, EnableNegativeOffset: true, Parser: e.parser,
	})
	var a answer
	for _, q := range req.Queries {
		a.Results = append(a.Results, e.query(ctx, q))
	}
	rules, err := e.rules(ctx, req.Rules)
	if err != nil {
		return err
	}
	a.Results = append(a.Results, rules...)
	return json.NewEncoder(out).Encode(a)
}

// ingest stores a scrape as Prometheus would, with the labels of its target.
func ingest(ctx context.Context, db *tsdb.DB, body []byte, contentType string, at time.Time) error {
	p, err := textparse.New(body, contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return err
	}
	app := db.Appender(ctx)
	target := func(l labels.Labels) labels.Labels {
		return labels.NewBuilder(l).Set("job", "carrel").Set("instance", "127.0.0.1:8642").Labels()
	}
	if _, err := app.Append(0, target(labels.FromStrings("__name__", "up")), at.UnixMilli(), 1); err != nil {
		return err
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return app.Commit()
		}
		if err != nil {
			return errors.Join(err, app.Rollback())
		}
		if err := store(app, p, entry, at, target); err != nil {
			return errors.Join(err, app.Rollback())
		}
	}
}

func store(app storage.Appender, p textparse.Parser, entry textparse.Entry, at time.Time, target func(labels.Labels) labels.Labels) error {
	var l labels.Labels
	var err error
	switch entry {
	case textparse.EntrySeries:
		_, _, v := p.Series()
		p.Labels(&l)
		_, err = app.Append(0, target(l), at.UnixMilli(), v)
	case textparse.EntryHistogram:
		_, _, h, fh := p.Histogram()
		p.Labels(&l)
		_, err = app.AppendHistogram(0, target(l), at.UnixMilli(), h, fh)
	}
	return err
}

// evaluation is one moment of one storage.
type evaluation struct {
	db     *tsdb.DB
	engine *promql.Engine
	parser parser.Parser
	at     time.Time
}

func (e *evaluation) query(ctx context.Context, text string) result {
	r := result{Query: text}
	samples, err := e.samples(ctx, text)
	if err != nil {
		r.Error = err.Error()
	}
	r.Samples = samples
	return r
}

// samples lists what a query gives, one line a sample.
func (e *evaluation) samples(ctx context.Context, text string) ([]string, error) {
	q, err := e.engine.NewInstantQuery(ctx, e.db, nil, text, e.at)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, res.Err
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		var lines []string
		for _, s := range v {
			lines = append(lines, s.String())
		}
		return lines, nil
	case promql.Scalar:
		return []string{v.String()}, nil
	default:
		return nil, fmt.Errorf("gives a %s", v.Type())
	}
}

// rules checks a rule file as Prometheus does when it loads it, and evaluates its alerts.
func (e *evaluation) rules(ctx context.Context, text string) ([]result, error) {
	if text == "" {
		return nil, nil
	}
	groups, errs := rulefmt.Parse([]byte(text), false, model.UTF8Validation, e.parser, promslog.NewNopLogger())
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var all []result
	for _, g := range groups.Groups {
		for _, rule := range g.Rules {
			expr, err := e.parser.ParseExpr(rule.Expr)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rule.Alert, err)
			}
			unfiltered(expr)
			r := e.query(ctx, expr.String())
			r.Alert, r.Query = rule.Alert, rule.Expr
			if r.Firing, err = e.samples(ctx, rule.Expr); err != nil {
				r.Error = err.Error()
			}
			all = append(all, r)
		}
	}
	return all, nil
}

// unfiltered makes comparisons tell 0 or 1: a healthy daemon's alerts give nothing, and
// so does a misspelt one's.
func unfiltered(expr parser.Expr) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		b, ok := n.(*parser.BinaryExpr)
		if !ok {
			return nil
		}
		if b.Op.IsComparisonOperator() {
			b.ReturnBool = true
		}
		return nil
	})
}
