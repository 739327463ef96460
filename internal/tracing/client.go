package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	// tryTime is how long one try to send spans may take.
	tryTime = 10 * time.Second
	// tries are made to send spans, retryPause and then twice as long apart.
	tries      = 3
	retryPause = time.Second
	// complainEvery is how often the log tells that spans are lost.
	complainEvery = time.Minute
	// maxAnswerBytes is read of an answer.
	maxAnswerBytes = 64 << 10
)

// client sends spans by OTLP/HTTP in protobuf. The official one links gRPC (7 MiB).
type client struct {
	url    string
	header http.Header
	http   *http.Client
	log    *slog.Logger
	sent   func(spans int, err error)
	ctx    context.Context //nolint:containedctx // of all requests
	end    context.CancelFunc

	stopped chan struct{} // closed when the last is over

	mu         sync.Mutex
	complained time.Time
}

var _ otlptrace.Client = (*client)(nil)

func newClient(ctx context.Context, o Options) *client {
	c := &client{
		url:    strings.TrimSuffix(o.Endpoint, "/") + "/v1/traces",
		header: o.Headers.all.Clone(),
		log:    o.Logger,
		sent:   o.Sent,

		stopped: make(chan struct{}),
		http: &http.Client{
			// The headers are for the one address.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
		},
	}
	if c.header == nil {
		c.header = http.Header{}
	}
	c.header.Set("Content-Type", "application/x-protobuf")
	c.header.Set("User-Agent", "carrel/"+o.Version)
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.sent == nil {
		c.sent = func(int, error) {}
	}
	c.ctx, c.end = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

// Start implements [otlptrace.Client].
func (c *client) Start(context.Context) error { return nil }

// Stop implements [otlptrace.Client].
func (c *client) Stop(context.Context) error {
	defer close(c.stopped)
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements [otlptrace.Client]. What fails is told here, in our log and
// not in OpenTelemetry's.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// The request's message, ExportTraceServiceRequest, has the same one field as this,
	// and stands in a package that links gRPC.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err == nil {
		ctx, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(c.ctx, cancel) //nolint:contextcheck // the end of the client, beside that of the batch
		err = c.send(ctx, body)
		stop()
		cancel()
	}
	n := 0
	for _, r := range spans {
		for _, s := range r.GetScopeSpans() {
			n += len(s.GetSpans())
		}
	}
	c.sent(n, err)
	if err != nil {
		c.complain(ctx, n, err)
	}
	return nil
}

// errRefused is an answer that another try will not change.
var errRefused = errors.New("refused")

func (c *client) send(ctx context.Context, body []byte) error {
	pause := retryPause
	for try := 1; ; try++ {
		err := c.post(ctx, body)
		if err == nil || errors.Is(err, errRefused) || try == tries {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		pause *= 2
	}
}

func (c *client) post(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = c.header.Clone()
	resp, err := c.http.Do(req)
	if err != nil {
		// Without the URL, which may hold what is nobody's business.
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswerBytes)) // so that the connection can be used again
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("it answered %d", resp.StatusCode) // OTLP's list of what may be tried again
	default:
		return fmt.Errorf("it answered %d: %w", resp.StatusCode, errRefused)
	}
}

func (c *client) complain(ctx context.Context, spans int, err error) {
	c.mu.Lock()
	quiet := time.Since(c.complained) < complainEvery
	if !quiet {
		c.complained = time.Now()
	}
	c.mu.Unlock()
	if !quiet {
		c.log.WarnContext(ctx, "spans are lost: the OTLP endpoint does not take them", slog.Int("spans", spans), slog.Any("error", err))
	}
}
