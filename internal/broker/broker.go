package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"carrel/internal/store"
	"carrel/protocol"
)

const (
	// MaxBodyBytes bounds a request's body: the Messages API's own limit.
	MaxBodyBytes = 32 << 20
	// maxRequests is how many requests of one user are under way at a time; more
	// wait for their turn.
	maxRequests = 16
	// maxWaiting bounds those together for each link. It is what a client takes for
	// granted until it has read the settings of the line; fewer would be refused to
	// it in its first moment.
	maxWaiting = 100
	// answerTime is how long an upstream may take to begin its answer: the longest
	// that the official clients allow an answer that is not streamed.
	answerTime = 10 * time.Minute
	// unstored is how many charges wait to be stored; then requests wait to end.
	unstored = 1024
)

// Upstream is one API that sandboxes may use.
type Upstream struct {
	// BaseURL is its address, such as "https://api.anthropic.com".
	BaseURL string
	// Allow lists what may be asked of it, each a method and a target, byte for
	// byte: "POST /v1/messages". An empty list allows nothing.
	Allow []string
}

// MessagesAPI is what the Messages API offers and an agent needs. The second form
// of each is that of the official clients' beta interface.
func MessagesAPI() []string {
	return []string{
		"POST /v1/messages",
		"POST /v1/messages?beta=true",
		"POST /v1/messages/count_tokens",
		"POST /v1/messages/count_tokens?beta=true",
	}
}

// Ledger keeps what was spent. [store.Store] is one.
type Ledger interface {
	AddCharges(ctx context.Context, charges []store.Charge) error
	SpentToday(ctx context.Context, userID string) (store.Spending, error)
}

// Options say what a Broker lets out, and what for.
type Options struct {
	Upstreams []Upstream
	Key       *Key
	Prices    *Prices // nil = DefaultPrices
	// UserDay is what a user's requests of one day (UTC) are paid from.
	UserDay Budget
	Ledger  Ledger
	// Began is told of each request that is let out, by its run. What it returns is sent
	// as traceparent, unless it is "", and told how it ended, unless that is nil.
	Began func(runID string) (traceparent string, ended func(Exchange))
	// Answered is told of each request that was let out, once it has ended, and Refused
	// of each that was not; nil = nobody wants to know. They must not block.
	Answered func(Exchange)
	Refused  func(Refusal)
	Logger   *slog.Logger
	// Transport sends requests on; nil = one of the broker's own.
	Transport http.RoundTripper
}

// Exchange is a request that was let out, and its answer.
type Exchange struct {
	Model string // by which its answer is priced; "" = the table has none such
	// Status is what the sandbox was answered; 0 = nothing.
	Status            int
	Cut               bool // the answer did not come to its end
	Took              time.Duration
	BytesIn, BytesOut int64 // of the two bodies
	Usage             protocol.Usage
}

// route is where an allowed request goes.
type route struct{ url *url.URL }

// Broker lets requests out. It is safe for concurrent use.
type Broker struct {
	o       Options
	log     *slog.Logger
	routes  map[string]route // by method and target
	maxBody int64            // MaxBodyBytes
	send    http.RoundTripper
	charges chan store.Charge
	stored  chan struct{} // closed when the last charge is

	ctx  context.Context //nolint:containedctx // of all requests: they outlive their callers until they are priced
	stop context.CancelCauseFunc

	mu       sync.Mutex
	closed   bool
	requests sync.WaitGroup // Add under mu, while not closed
	links    map[*Link]struct{}
	accounts map[string]*account // by user; one is small, and stays
	total    store.Spending
	unpriced map[string]struct{} // models that were warned of
}

var errClosed = errors.New("the broker is closed")

// New makes a broker; Close ends it. ctx gives values, and ends nothing.
func New(ctx context.Context, o Options) (*Broker, error) {
	if o.Key == nil || o.Ledger == nil {
		return nil, errors.New("new broker: it needs a key and a ledger")
	}
	if o.Prices == nil {
		o.Prices = DefaultPrices()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Broker{
		o:        o,
		log:      o.Logger,
		routes:   make(map[string]route),
		maxBody:  MaxBodyBytes,
		send:     o.Transport,
		charges:  make(chan store.Charge, unstored),
		stored:   make(chan struct{}),
		links:    make(map[*Link]struct{}),
		accounts: make(map[string]*account),
		unpriced: make(map[string]struct{}),
	}
	for _, u := range o.Upstreams {
		if err := b.addRoutes(u); err != nil {
			return nil, fmt.Errorf("new broker: %w", err)
		}
	}
	if b.send == nil {
		b.send = newTransport()
	}
	b.ctx, b.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	go b.keepBooks(context.WithoutCancel(ctx))
	return b, nil
}

func (b *Broker) addRoutes(u Upstream) error {
	base, err := url.Parse(u.BaseURL)
	switch {
	case err != nil:
		return errors.New("base url: is none") // err would repeat it, and it may hold a password
	case (base.Scheme != "https" && base.Scheme != "http") || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return errors.New("base url: must be https://host[:port][/path]")
	}
	for _, allowed := range u.Allow {
		method, target, ok := strings.Cut(allowed, " ")
		to, err := url.ParseRequestURI(target)
		if !ok || method == "" || method == http.MethodConnect || err != nil || !strings.HasPrefix(target, "/") || strings.ContainsAny(target, "% ") {
			return fmt.Errorf("allow %q: must be a method and a plain target, such as POST /v1/messages", allowed)
		}
		if _, twice := b.routes[allowed]; twice {
			return fmt.Errorf("allow %q: is there twice", allowed)
		}
		full := *base
		full.Path = strings.TrimSuffix(base.Path, "/") + to.Path
		full.RawPath = ""
		full.RawQuery = to.RawQuery
		b.routes[allowed] = route{url: &full}
	}
	return nil
}

// newTransport is used through RoundTrip alone: it follows no redirect and keeps
// no cookie.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment, // the daemon's own
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: answerTime,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   maxRequests,
		DisableCompression:    true,
	}
}

// Connect makes a line for one worker, which is this user's alone. The file is the
// worker's end, to be passed into the sandbox and closed here.
func (b *Broker) Connect(userID string) (*Link, *os.File, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, nil, fmt.Errorf("connect to broker: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, nil, errors.Join(errClosed, ours.Close(), theirs.Close())
	}
	a := b.accounts[userID]
	if a == nil {
		a = newAccount(userID)
		b.accounts[userID] = a
	}
	l := newLink(b, a, ours)
	b.links[l] = struct{}{}
	return l, theirs, nil
}

// Total is what has been spent through this broker.
func (b *Broker) Total() store.Spending {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total
}

// Close ends every link and request, and stores what they cost.
func (b *Broker) Close() {
	b.mu.Lock()
	again := b.closed
	b.closed = true
	links := make([]*Link, 0, len(b.links))
	for l := range b.links {
		links = append(links, l)
	}
	b.mu.Unlock()
	if !again {
		for _, l := range links {
			l.Close()
		}
		b.stop(errClosed)
		b.requests.Wait()
		close(b.charges)
		if t, ok := b.send.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
	<-b.stored
}

// enter counts a request in, so that Close waits for it.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.requests.Add(1)
	return true
}

// keepBooks stores charges: all that have come while the last ones were stored.
func (b *Broker) keepBooks(ctx context.Context) {
	defer close(b.stored)
	for first := range b.charges {
		batch := []store.Charge{first}
		for more := true; more && len(batch) < unstored; {
			select {
			case c, ok := <-b.charges:
				if more = ok; ok {
					batch = append(batch, c)
				}
			default:
				more = false
			}
		}
		b.storeCharges(ctx, batch)
	}
}

// storeCharges tries until the ledger takes them, or the broker closes: a full disk
// must not make requests free after a restart.
func (b *Broker) storeCharges(ctx context.Context, batch []store.Charge) {
	const wait = time.Second
	for {
		err := b.o.Ledger.AddCharges(ctx, batch)
		if err == nil {
			return
		}
		b.log.ErrorContext(ctx, "charges are not stored", slog.Int("charges", len(batch)), slog.Any("error", err))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-b.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// warnUnpriced says once of a model that it has no price.
func (b *Broker) warnUnpriced(ctx context.Context, model string) {
	const most = 100
	if _, known := b.o.Prices.of(model); known || model == "" {
		return
	}
	b.mu.Lock()
	_, said := b.unpriced[model]
	said = said || len(b.unpriced) >= most
	if !said {
		b.unpriced[model] = struct{}{}
	}
	b.mu.Unlock()
	if !said {
		b.log.WarnContext(ctx, "a model has no price; its tokens cost as much as the dearest: see CARREL_PRICES_FILE",
			slog.String("model", model[:min(len(model), 80)]))
	}
}
