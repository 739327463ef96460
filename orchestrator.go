package carrel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carrel/internal/audit"
	"carrel/internal/broker"
	"carrel/internal/cgroup"
	"carrel/internal/engine/local"
	"carrel/internal/hook/webhook"
	"carrel/internal/httpapi"
	"carrel/internal/jail"
	"carrel/internal/keyring"
	"carrel/internal/logline"
	"carrel/internal/metrics"
	"carrel/internal/pool"
	"carrel/internal/store"
	"carrel/internal/tracing"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// Orchestrator takes users' messages, has each worked on in that user's own
// sandbox, and keeps what happened. It is safe for concurrent use.
//
// It has one goroutine for the pool, one that removes expired directories, one that
// reads changed files again, one for each going run and, where the disk quota is soft, one for each user with runs.
// Shutdown ends them all and waits.
type Orchestrator struct {
	cfg       Config
	log       *slog.Logger
	version   string
	startedAt time.Time
	isolation protocol.IsolationReport

	dirs    *workspace.Dirs
	disk    *diskWatch // nil where the file system holds users to their quota
	room    *room
	audit   *audit.Log      // nil = none is kept
	cgroups *cgroup.Cgroups // nil where the host gives none
	store   *store.Store
	broker  *broker.Broker // nil = there is no key, and no way out of a sandbox
	engine  *local.Engine
	pool    *pool.Pool
	// permissions are the operator's; webhooks asks those among their hooks.
	permissions protocol.Permissions
	webhooks    *webhook.Caller

	keys        *keyring.Ring // nil = there is no sign-in
	certificate *certificate  // nil = the API speaks no TLS
	reloads     reloads

	registry *prometheus.Registry
	metrics  *metrics.Metrics
	tracer   *tracing.Tracer

	approvals   *approvals
	denials     denials
	transcripts chan struct{} // holds a value for each that is being read
	commits     sync.Mutex    // see files.Place

	// root is the context of everything that outlives a caller's: runs and pool.
	root    context.Context
	stop    context.CancelCauseFunc
	partsWG sync.WaitGroup // the pool, expiry, followFiles
	runsWG  sync.WaitGroup

	mu      sync.Mutex
	closing bool
	going   map[string]*goingRun // by run id
}

// Option changes what New makes.
type Option func(*Orchestrator)

// WithLogger gives the log; without it nothing is logged.
func WithLogger(l *slog.Logger) Option { return func(o *Orchestrator) { o.log = l } }

// WithVersion gives the version that /healthz and /v1/system tell.
func WithVersion(v string) Option { return func(o *Orchestrator) { o.version = v } }

// New checks the configuration and the host's isolation, opens the base
// directory and the database, and ends what a killed predecessor left. Errors: a
// *[ConfigError]; a *protocol.Error with CodeIsolationUnavailable that names each
// missing layer and its fix; what stands in the way on disk.
//
// ctx bounds New alone. Call Shutdown in the end.
func New(ctx context.Context, cfg Config, options ...Option) (*Orchestrator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o := &Orchestrator{
		cfg:         cfg,
		log:         slog.New(slog.DiscardHandler),
		version:     "dev",
		startedAt:   time.Now(),
		approvals:   newApprovals(cfg.ApprovalTimeout),
		denials:     newDenials(),
		transcripts: make(chan struct{}, maxTranscripts),
		going:       make(map[string]*goingRun),
	}
	for _, option := range options {
		option(o)
	}
	o.log = logline.New(o.log)
	o.root, o.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := o.open(ctx); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

func (o *Orchestrator) open(ctx context.Context) (err error) {
	worker, err := o.cfg.FindWorker()
	if err != nil {
		return err
	}
	o.isolation = Isolation(ctx, o.cfg)
	if err := CheckIsolation(o.isolation); err != nil {
		return err
	}
	o.warnOfIsolation(ctx)
	if err := o.readPermissions(); err != nil {
		return err
	}
	if err := errors.Join(o.openMetrics(), o.openTracer(ctx), o.openKeys(), o.openCertificate()); err != nil {
		return err
	}
	if err := o.openDirs(ctx); err != nil {
		return err
	}
	if err := o.openAudit(ctx); err != nil {
		return err
	}
	if o.store, err = store.Open(ctx, store.Options{URL: o.cfg.DatabaseURL, Logger: o.log}); err != nil {
		return err
	}
	if err := o.endInterrupted(ctx); err != nil {
		return err
	}
	if err := o.openBroker(ctx); err != nil {
		return err
	}
	if err := o.openCgroups(ctx); err != nil {
		return err
	}
	o.engine = local.New(local.Options{
		Worker:  worker,
		Dirs:    o.dirs,
		Limits:  o.jailLimits(),
		Cgroups: o.cgroups,
		Sum:     o.cfg.sumLimits(),
		Without: jail.Without(o.isolation),
		Env:     o.cfg.workerEnv,
		Logger:  o.log,
	})
	o.startPool()
	e := expiry{dirs: o.dirs, ttl: o.cfg.FileTTL, isAwaited: o.pool.InUse, audit: o.audit, log: o.log}
	o.partsWG.Go(func() { e.run(o.root) })
	o.partsWG.Go(func() { o.followFiles(o.root) })
	return nil
}

func (o *Orchestrator) openDirs(ctx context.Context) (err error) {
	options := workspace.Options{
		BaseDir:  o.cfg.BaseDir,
		Root:     os.Geteuid() == 0,
		UIDFirst: int(o.cfg.UIDRange.First),
		UIDCount: int(o.cfg.UIDRange.Count),
		SlotUIDs: o.cfg.slotUIDs(),
		Logger:   o.log,
	}
	// What the report promises is what is done: a hard quota that cannot be set
	// refuses users, it does not become a soft one.
	isHard := holds(o.isolation, jail.LayerQuota)
	if isHard {
		options.DiskQuota = int64(o.cfg.DiskQuota)
	}
	if o.dirs, err = workspace.Open(ctx, options); err != nil {
		return err
	}
	o.room = newRoom(int64(o.cfg.DiskQuota), o.dirs.DiskUsage)
	if !isHard {
		o.disk = newDiskWatch(o.root, int64(o.cfg.DiskQuota), o.dirs.DiskUsage, o.log) //nolint:contextcheck // it outlives New
	}
	return nil
}

func (o *Orchestrator) startPool() {
	warm := o.cfg.warmWorkers(o.isolation)
	if warm < o.cfg.WarmWorkers {
		o.log.WarnContext(o.root, "no worker is kept warm: the file system of SANDBOX_BASE_DIR has no id-mapped mounts; see carrel doctor")
	}
	o.pool = pool.New(o.engine, pool.Options{
		MaxWorkers:     o.cfg.MaxWorkers,
		Warm:           warm,
		MaxRequests:    o.cfg.MaxRequests,
		MaxRunsPerUser: o.cfg.MaxRunsPerUser,
		QueueSize:      o.cfg.QueueSize,
		QueueTimeout:   o.cfg.QueueTimeout,
		StartupTimeout: o.cfg.StartupTimeout,
		IdleTimeout:    o.cfg.IdleTimeout,
		PingInterval:   30 * time.Second,
		// Half of what the sandbox may have: the rest is for the next run's commands.
		MemoryMarkBytes: int64(o.cfg.MemoryLimit / 2),
		Pressure:        pressure,
		Agent:           o.cfg.Agent,
		Limits:          protocol.WorkerLimits{MaxRuns: o.cfg.MaxRunsPerUser},
		Isolation:       o.isolation.State,
		Approve: func(ctx context.Context, _ string, p protocol.ApproveParams) (protocol.ApproveResult, error) {
			return o.approvals.await(ctx, p)
		},
		ApprovalTimeout: o.cfg.ApprovalTimeout,
		Connect:         o.connect(),
		Permissions:     o.permissions,
		Hook:            o.askWebhook,
		Denied:          o.denied,
		Decided:         o.decided,
		Started:         o.started,
		Ended:           func(r pool.EndReason) { o.metrics.WorkerEnded(string(r)) },
		Logger:          o.log,
	})
	o.partsWG.Go(func() {
		if err := o.pool.Run(o.root); err != nil {
			o.log.ErrorContext(o.root, "pool ended", "error", err)
		}
	})
}

// endInterrupted gives an ending to the runs that a predecessor left going: it
// was killed, and its workers with it.
func (o *Orchestrator) endInterrupted(ctx context.Context) error {
	runs, err := o.store.Unfinished(ctx)
	if err != nil {
		return err
	}
	for _, run := range runs {
		open, err := openQuestions(ctx, o.store, run.RunID)
		if err != nil {
			return fmt.Errorf("end interrupted run %s: %w", run.RunID, err)
		}
		ctx := logline.With(ctx, logline.Fields{Run: run.RunID, UserID: run.UserID, Session: run.SessionID})
		r := &recorder{
			store: o.store, runID: run.RunID, seq: run.LastSeq, open: open, metrics: o.metrics,
			audit: o.audit, about: audit.Event{UserID: run.UserID, RunID: run.RunID, SessionID: run.SessionID, Agent: run.Agent},
		}
		err = r.end(ctx, protocol.Errorf(protocol.CodeInterrupted, "the daemon ended while the run was going"))
		if err != nil {
			return fmt.Errorf("end interrupted run %s: %w", run.RunID, err)
		}
	}
	if len(runs) > 0 {
		o.log.WarnContext(ctx, "runs of the last daemon are marked interrupted", "runs", len(runs))
	}
	return nil
}

// Handler is the HTTP API. loopback tells that its listener is reached from this
// machine alone.
func (o *Orchestrator) Handler(loopback bool) http.Handler {
	options := httpapi.Options{
		Logger: o.log, Version: o.version, Loopback: loopback, Metrics: o.Metrics(),
		Entered:       o.entered,
		Answered:      o.answered,
		SignInRefused: func(r httpapi.SignInRefusal) { o.metrics.SignInRefused(string(r)) },
		RateLimit:     httpapi.Rate{Requests: o.cfg.RateLimit.Requests, Per: o.cfg.RateLimit.Per},
	}
	if o.keys != nil {
		options.Identify = o.identify
	}
	return httpapi.New(service{o}, options)
}

// Server is a server for the HTTP API on the configured address, with the
// timeouts that suit it. Where there is a certificate, it has a TLSConfig, and is to
// be asked for ServeTLS without files. The caller serves, and shuts it down between
// [Orchestrator.Drain] and [Orchestrator.Shutdown].
func (o *Orchestrator) Server() *http.Server {
	host, _, err := net.SplitHostPort(o.cfg.Listen)
	server := httpapi.NewServer(o.Handler(err == nil && isLoopback(host)), o.log)
	if o.certificate != nil {
		server.TLSConfig = o.certificate.config()
	}
	return server
}

// Drain ends the runs: no new ones, and going ones have until ctx ends to come
// to their own end; then they are interrupted. Their readers can still read.
func (o *Orchestrator) Drain(ctx context.Context) {
	o.mu.Lock()
	o.closing = true
	o.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.runsWG.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		o.interrupt(protocol.Errorf(protocol.CodeInterrupted, "the daemon was shut down while the run was going"))
		<-ended // bounded by the pool's grace for a canceled run
	}
}

// Shutdown drains, ends every worker and closes what is open. Nothing is left
// running afterwards.
func (o *Orchestrator) Shutdown(ctx context.Context) error {
	o.Drain(ctx)
	return o.close()
}

// interrupt cancels every going run.
func (o *Orchestrator) interrupt(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, g := range o.going {
		g.cancel(cause)
	}
}

// close lets go of what open made, in reverse; no run is going.
func (o *Orchestrator) close() error {
	var errs []error
	if o.pool != nil {
		// No lease is left: this only waits for idle workers to be gone.
		errs = append(errs, o.pool.Shutdown(o.root))
	}
	o.stop(nil)
	o.partsWG.Wait()
	o.disk.wait()
	if o.engine != nil {
		o.engine.Close()
	}
	if o.webhooks != nil {
		o.webhooks.Close()
	}
	if o.cgroups != nil {
		errs = append(errs, o.cgroups.Close(o.root))
	}
	if o.broker != nil {
		o.broker.Close() // puts the last charges into the store
	}
	if o.tracer != nil {
		o.closeTracer(o.root)
	}
	if o.store != nil {
		errs = append(errs, o.store.Close())
	}
	errs = append(errs, o.closeAudit(o.root))
	if o.dirs != nil {
		errs = append(errs, o.dirs.Close())
	}
	return errors.Join(errs...)
}

// FindWorker gives the path of the program of the jailed half.
func (c *Config) FindWorker() (string, error) {
	path := c.WorkerPath
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find carrel-worker: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "carrel-worker")
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("find carrel-worker: %w (it belongs beside carrel; else set SANDBOX_WORKER_PATH)", err)
	}
	return path, nil
}
