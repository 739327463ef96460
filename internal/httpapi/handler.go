package httpapi

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"carrel/internal/logline"
	"carrel/protocol"
)

// Options adjusts [New]. The zero value is sane.
type Options struct {
	Logger  *slog.Logger // nil: nothing is logged
	Version string       // told by /healthz and /openapi.json
	// Metrics serves GET /metrics; nil: there are none.
	Metrics http.Handler
	// Entered is asked for the context of each request that has a route and whose caller
	// has signed in; nil: it is as it was.
	Entered func(ctx context.Context, pattern string, h http.Header) context.Context
	// Answered is told of each request once it has been answered, and SignInRefused of
	// each that nobody, or nobody any more, may make; nil: nobody wants to know.
	Answered      func(context.Context, Answered)
	SignInRefused func(SignInRefusal)
	// Loopback says that the listener is reached from this machine alone. Then
	// browsers are the way in from outside, and both of their tricks are
	// refused: a foreign name that resolves to this machine (DNS rebinding) and
	// a foreign page's request to it (cross-site request forgery).
	Loopback bool
	// Identify tells whose an API key is; false if nobody's. nil: there is no
	// sign-in, and every caller is an admin called "local".
	Identify func(key string) (Caller, bool)
	// RateLimit bounds the requests of each caller.
	RateLimit Rate
	// KeepAlive is the time between the comments that keep an SSE connection
	// through proxies; 0 means 15 s (CONTRACT, section 3).
	KeepAlive time.Duration
	// SlowReader is how long one write (64 KiB at most) may block before the
	// connection is cut; 0 means 30 s. An SSE client resumes by its last id.
	SlowReader time.Duration
}

const (
	defaultKeepAlive  = 15 * time.Second
	defaultSlowReader = 30 * time.Second
)

// api is the handler. What changes in it are the limits' counts and turns alone.
type api struct {
	service     Service
	log         *slog.Logger
	opts        Options
	routes      []route
	crossOrigin *http.CrossOriginProtection
	attempts    *attempts
	requests    *buckets // by caller; nil: there is no limit
	transcripts *turns
	description []byte // of the API: OpenAPI
}

// New makes the handler of the whole API.
func New(service Service, opts Options) http.Handler {
	opts.KeepAlive = cmp.Or(opts.KeepAlive, defaultKeepAlive)
	opts.SlowReader = cmp.Or(opts.SlowReader, defaultSlowReader)
	a := &api{
		service:     service,
		log:         cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)),
		opts:        opts,
		routes:      table(),
		crossOrigin: http.NewCrossOriginProtection(),
		attempts:    newAttempts(),
		transcripts: newTurns(),
	}
	if opts.Identify == nil {
		a.description = OpenAPI(opts.Version)
	} else {
		a.description = OpenAPI("") // as health has it
	}
	if opts.RateLimit.Requests > 0 {
		a.requests = newBuckets(opts.RateLimit, maxCallers)
	}
	return a
}

// ServeHTTP implements http.Handler: every request passes here, gets an id, is
// answered, and leaves one line in the log.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, requestID: rand.Text(), began: time.Now()}
	w.Header().Set("X-Request-Id", x.requestID)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r = r.WithContext(logline.With(r.Context(), logline.Fields{}))
	x.ctx = r.Context()
	defer a.finish(x, r)
	if r.Body != http.NoBody {
		x.body.ReadCloser = r.Body
		r.Body = &x.body // which is not the server's own: that one stays as it is
	}
	limitBodyTime(w, r, drainTimeout)
	x.err = a.serve(x, r)
	if x.err != nil && x.status == 0 {
		a.writeProblem(x, x.err)
	}
}

// serve guards, signs in, routes and handles. An error it returns before anything
// was written becomes the problem document of the answer. Who has no key learns
// nothing, not even which paths there are.
func (a *api) serve(x *exchange, r *http.Request) error {
	if err := a.guardBrowser(r); err != nil {
		return err
	}
	route, noRoute := match(a.routes, r)
	x.pattern = route.Pattern
	if noRoute != nil || route.Rule != Open {
		caller, err := a.signIn(r)
		if err != nil {
			return err
		}
		x.caller = caller.Name
		ctx, done := caller.attach(r.Context())
		defer done()
		if a.opts.Entered != nil && noRoute == nil {
			ctx = a.opts.Entered(ctx, route.Pattern, r.Header)
			x.ctx = ctx
		}
		r = r.WithContext(ctx)
	}
	if noRoute != nil {
		return noRoute
	}
	if err := a.permit(route.Rule, r); err != nil {
		return err
	}
	logline.Fill(r.Context(), logline.Fields{
		Run: r.PathValue("run_id"), UserID: r.PathValue("user_id"), Session: r.PathValue("session_id"),
	})
	if err := checkQuery(r.URL.RawQuery, route.Query); err != nil {
		return err
	}
	if route.Method == http.MethodGet && r.ContentLength != 0 {
		return invalid("body: a %s has none", r.Method) // and limitBodyTime would cut a stream
	}
	return route.handle(a, x, r)
}

// checkQuery refuses query parameters that the route does not know or that are
// given twice, and queries that are malformed (url.URL.Query drops those).
func checkQuery(raw string, known []string) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return protocol.Errorf(protocol.CodeInvalidRequest, "query: malformed")
	}
	for name, given := range values {
		if !slices.Contains(known, name) {
			return unknownName("query parameter", name, known)
		}
		if len(given) > 1 {
			return protocol.Errorf(protocol.CodeInvalidRequest, "query parameter %q: given %d times", name, len(given))
		}
	}
	return nil
}

// userID reads {user_id} from the path.
func userID(r *http.Request) (string, error) {
	id := r.PathValue("user_id")
	return id, protocol.CheckUserID(id)
}

// runPath is where a run is found. The escape keeps whatever a run id holds out
// of the header's syntax.
func runPath(runID string) string {
	return "/v1/runs/" + url.PathEscape(runID)
}
