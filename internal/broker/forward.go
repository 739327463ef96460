package broker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"carrel/internal/door"
	"carrel/internal/logline"
	"carrel/internal/store"
)

const (
	// chunkBytes is read from an upstream at a time, at most; what there is goes on
	// at once, however little.
	chunkBytes = 32 << 10
	// pricingTime is how long an answer that nobody waits for is read on, until it
	// has told its price.
	pricingTime = answerTime
)

var (
	errGivenUp = errors.New("nobody waits for the answer any more")
	errTold    = errors.New("the answer holds the key")
	errEncoded = errors.New("the answer is encoded, and its figures cannot be read")
)

// exchange is one request that was let out, and its answer.
type exchange struct {
	broker *Broker
	meter  *Meter
	began  time.Time
	cancel context.CancelCauseFunc

	bytesIn  atomic.Int64 // the transport reads the body in a goroutine of its own
	bytesOut int64
	status   int
	cut      bool
	metered  bool // its answer should tell figures
	reader   reader
	guard    keyGuard
	spent    store.Spending // booked

	traceparent string
	ended       func(Exchange) // nil = nobody wants to know

	mu       sync.Mutex
	over     bool // the handler is about to return
	priced   bool // the answer has told a price
	givenUp  bool
	patience *time.Timer // with an answer that was given up unpriced
}

// serve is the handler of a link.
func (l *Link) serve(w http.ResponseWriter, r *http.Request) {
	b := l.broker
	if !b.enter() {
		b.refuse(w, unavailable("shutting down"))
		return
	}
	defer b.requests.Done()
	// RequestURI is the target as it was sent. Nothing is taken from r.URL.
	to, ok := b.routes[r.Method+" "+r.RequestURI]
	switch {
	case !ok:
		b.refuse(w, forbid(NotAllowed, "this method and target are not allowed"))
		return
	case r.ContentLength > b.maxBody:
		b.refuse(w, tooLarge())
		return
	}
	select {
	case l.account.slots <- struct{}{}:
		defer func() { <-l.account.slots }()
	case <-r.Context().Done():
		return
	}
	if r.Context().Err() != nil {
		return
	}
	x := &exchange{broker: b, began: time.Now(), metered: strings.HasSuffix(to.url.Path, "/messages"), reader: noReader{}}
	// Values of the caller's context, and the end of the broker's: its own end is
	// heard by giveUp.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	defer cancel(nil)
	x.cancel = cancel
	if refused := l.admit(ctx, r.Header.Get(door.RunHeader), x); refused != nil {
		b.refuse(w, refused)
		return
	}
	ctx = logline.Carry(ctx, x.meter.ctx)
	defer context.AfterFunc(b.ctx, func() { cancel(errClosed) })() //nolint:contextcheck // the end of the broker, beside that of the caller
	defer context.AfterFunc(r.Context(), x.giveUp)()
	x.carryOut(ctx, w, r, to)
}

// refuse answers a request that is not let out.
func (b *Broker) refuse(w http.ResponseWriter, f *refusal) {
	if b.o.Refused != nil {
		b.o.Refused(f.reason)
	}
	f.write(w)
}

// carryOut forwards, and charges what it cost.
func (x *exchange) carryOut(ctx context.Context, w http.ResponseWriter, r *http.Request, to route) {
	whole := false
	if began := x.broker.o.Began; began != nil {
		x.traceparent, x.ended = began(x.meter.runID)
	}
	defer context.AfterFunc(ctx, func() { x.stopWriting(w) })()
	defer func() {
		x.meter.leave(x)
		x.cut = !whole
		x.charge(ctx)
	}()
	resp, refused := x.forward(ctx, w, r, to)
	if refused != nil {
		x.status = refused.status
		refused.write(w)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if err := x.hand(ctx, w, resp); err != nil {
		x.broker.log.DebugContext(ctx, "an answer was cut", "error", err)
		// The stream is reset: an answer that is not whole must not look whole.
		panic(http.ErrAbortHandler)
	}
	whole = true
}

// forward sends the request on, with the key.
func (x *exchange) forward(ctx context.Context, w http.ResponseWriter, r *http.Request, to route) (*http.Response, *refusal) {
	b := x.broker
	out := (&http.Request{
		Method:        r.Method,
		URL:           to.url,
		Host:          to.url.Host,
		Header:        only(r.Header, requestHeaders, clientPrefix),
		ContentLength: r.ContentLength,
		Body:          &countedBody{ReadCloser: http.MaxBytesReader(w, r.Body, b.maxBody), read: &x.bytesIn},
	}).WithContext(ctx)
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	if out.Header["User-Agent"] == nil {
		out.Header["User-Agent"] = nil // or the transport would put its own there
	}
	out.Header.Set("Accept-Encoding", "identity") // its figures must be readable
	if x.traceparent != "" {
		out.Header.Set("Traceparent", x.traceparent)
	}
	key := b.o.Key.current(ctx, b.log)
	if !key.IsSet() {
		return nil, unavailable("no key is configured")
	}
	out.Header.Set("X-Api-Key", key.reveal())
	x.guard.key = []byte(key.reveal())
	resp, err := b.send.RoundTrip(out)
	if err != nil {
		return nil, x.explain(ctx, err)
	}
	return resp, nil
}

// explain makes an answer of why there is none.
func (x *exchange) explain(ctx context.Context, err error) *refusal {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge()
	}
	timeout, ok := errors.AsType[net.Error](err)
	if ctx.Err() == nil {
		x.broker.log.WarnContext(ctx, "the model API gave no answer", slog.Any("error", err))
	}
	return unreached(ok && timeout.Timeout())
}

// hand passes an answer on as it comes. An error tells that it did not come to its
// end.
func (x *exchange) hand(ctx context.Context, w http.ResponseWriter, resp *http.Response) error {
	x.status = resp.StatusCode
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return errEncoded
	}
	x.reader = readerOf(resp)
	header := w.Header()
	for name, values := range only(resp.Header, answerHeaders, limitsPrefix) {
		if x.guard.in(values) {
			return errTold
		}
		header[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	flusher := http.NewResponseController(w)
	_ = flusher.Flush()
	chunk := make([]byte, chunkBytes)
	for {
		n, err := resp.Body.Read(chunk)
		x.count(chunk[:n])
		safe, told := x.guard.pass(chunk[:n], err != nil)
		if told {
			x.broker.log.ErrorContext(ctx, "the model API's answer holds the key; it was cut")
			return errTold
		}
		if len(safe) > 0 {
			// A caller that is gone is no reason to stop: giveUp stops, in time.
			_, _ = w.Write(safe)
			_ = flusher.Flush()
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// readerOf chooses what can read the answer's figures.
func readerOf(resp *http.Response) reader {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return noReader{}
	case kind == "text/event-stream":
		return &streamReader{}
	default:
		return &objectReader{}
	}
}

// count books what the next bytes tell, before anybody else sees them.
func (x *exchange) count(p []byte) {
	x.bytesOut += int64(len(p))
	if !x.reader.read(p) {
		return
	}
	f := x.reader.figures()
	x.bookFigures(f)
	if f.reported {
		x.mu.Lock()
		x.priced = true
		givenUp := x.givenUp
		x.mu.Unlock()
		if givenUp {
			x.cancel(errGivenUp)
		}
	}
}

func (x *exchange) bookFigures(f figures) {
	spent := x.broker.o.Prices.spending(f.model, f.tokens)
	if change := spent.Less(x.spent); change != (store.Spending{}) {
		x.meter.book(change)
	}
	x.spent = spent
}

// giveUp ends an exchange that nobody waits for any more: at once if its price is
// known, else as soon as it is. Else a worker could have answers made and never
// pay, by leaving each before its end.
func (x *exchange) giveUp() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.givenUp {
		return
	}
	x.givenUp = true
	if x.priced {
		x.cancel(errGivenUp)
		return
	}
	x.patience = time.AfterFunc(pricingTime, func() { x.cancel(errGivenUp) })
}

// stopWriting ends a write that a worker holds up by not reading: it would keep its
// slot beyond the end of its run.
func (x *exchange) stopWriting(w http.ResponseWriter) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over { // w is the handler's no longer
		_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
	}
}

// charge puts the exchange into the books.
func (x *exchange) charge(ctx context.Context) {
	x.mu.Lock()
	x.over = true
	if x.patience != nil {
		x.patience.Stop()
	}
	x.mu.Unlock()
	f := x.reader.figures()
	x.broker.warnUnpriced(ctx, f.model)
	if x.metered && !x.cut && !f.reported && x.status/100 == 2 {
		x.broker.log.WarnContext(ctx, "an answer told no usage, and is not paid for")
	}
	x.meter.book(store.Spending{Requests: 1})
	x.spent.Requests = 1
	took := time.Since(x.began)
	x.tell(f, took)
	x.broker.charges <- store.Charge{
		Time:     x.began,
		UserID:   x.meter.link.account.userID,
		RunID:    x.meter.runID,
		Model:    f.model,
		Status:   x.status,
		Cut:      x.cut || f.failed,
		BytesIn:  x.bytesIn.Load(),
		BytesOut: x.bytesOut,
		Duration: took,
		Spending: x.spent,
	}
}

// tell tells whoever wants to know.
func (x *exchange) tell(f figures, took time.Duration) {
	model, _ := x.broker.o.Prices.name(f.model)
	all := Exchange{
		Model: model, Status: x.status, Cut: x.cut || f.failed, Took: took,
		BytesIn: x.bytesIn.Load(), BytesOut: x.bytesOut, Usage: x.spent.Usage(),
	}
	if answered := x.broker.o.Answered; answered != nil {
		answered(all)
	}
	if x.ended != nil {
		x.ended(all)
	}
}

// countedBody counts what is read of a request's body.
type countedBody struct {
	io.ReadCloser

	read *atomic.Int64
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.read.Add(int64(n))
	return n, err
}
