package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"

	"carrel"
	"carrel/internal/systemd"
	"carrel/protocol"
)

const (
	// lastWordsTime is what readers get to take a run's last event.
	lastWordsTime = 5 * time.Second
	// closingTime is what it takes at most to end workers and close what is open, as
	// systemd is told: the pool's grace, ten seconds for the groups, and the last commit.
	closingTime = 30 * time.Second
)

type serveCmd struct {
	Listen string `help:"Address of the HTTP API (CARREL_LISTEN); a socket from systemd takes its place." placeholder:"HOST:PORT"`
}

// Help adds the configuration to `carrel serve --help`.
func (serveCmd) Help() string {
	var text strings.Builder
	text.WriteString("Configuration (environment, or --config, or --set):\n")
	for _, k := range (carrel.Config{}).Table() {
		fmt.Fprintf(&text, "\n%s (%s): %s\n", k.Key, k.Default, k.Meaning)
	}
	return text.String()
}

func (s *serveCmd) Run(ctx context.Context, c *cli, out *output) error {
	// First of all: until then nothing else may take a descriptor.
	kept, err := systemd.Listener()
	if err != nil {
		return err
	}
	overrides := map[string]string{}
	switch {
	case kept != nil: // it is held to the same rules as an address of the configuration
		overrides["CARREL_LISTEN"] = kept.Addr().String()
	case s.Listen != "":
		overrides["CARREL_LISTEN"] = s.Listen
	}
	cfg, err := c.loadConfig(overrides)
	if err != nil {
		return err
	}
	log := newLogger(cfg)
	manager := systemd.NewManager(log)
	for _, w := range cfg.Warnings() {
		log.WarnContext(ctx, "configuration", "warning", w)
	}
	signals, stop := interrupted()
	defer stop()
	hangups := make(chan os.Signal, 1)
	if !isatty.IsTerminal(os.Stdin.Fd()) { // else it says that the terminal is gone
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}
	// The address first: who has it in use learns that before anything starts.
	listener := kept
	if kept == nil {
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen); err != nil {
			return fmt.Errorf("listen on %s (CARREL_LISTEN): %w", cfg.Listen, err)
		}
	}
	o, err := carrel.New(ctx, cfg, carrel.WithLogger(log), carrel.WithVersion(version))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if cfg.SelfTest == "quick" {
		began := time.Now()
		tried, err := quickTest(ctx, cfg, o.System().Isolation)
		if err != nil {
			return errors.Join(err, listener.Close(), o.Shutdown(ctx))
		}
		log.InfoContext(ctx, "self-test: every attack held that the layers of this host can hold", "tried", tried, "took", time.Since(began))
	}
	server := o.Server()
	served := make(chan error, 1)
	go func() { served <- answer(server, listener) }()
	announce(out, cfg, listener.Addr().String(), o.System())
	unwatch := feedWatchdog(ctx, manager, o)
	defer unwatch()
	status := "serving on " + listener.Addr().String()
	manager.Ready(ctx, status)

	for {
		select {
		case err := <-served:
			unwatch()
			return errors.Join(err, o.Shutdown(ctx))
		case <-hangups:
			manager.Reloading(ctx)
			o.Reload(ctx)
			o.ReopenAudit(ctx) // as logrotate asks for
			manager.Ready(ctx, status)
		case sig := <-signals:
			if kept != nil {
				passOn(server, kept)
				if err := <-served; !errors.Is(err, net.ErrClosed) {
					log.WarnContext(ctx, "the server ended before it was asked to", "error", err)
				}
			}
			manager.Stopping(ctx, cfg.DrainTimeout+lastWordsTime+closingTime, "draining: going runs have "+cfg.DrainTimeout.String())
			log.InfoContext(ctx, "draining: no new runs, going ones get time; once more to hurry", "signal", sig.String(), "time", cfg.DrainTimeout)
			d := draining{orchestrator: o, server: server, time: cfg.DrainTimeout, drained: unwatch}
			return d.run(ctx, signals)
		}
	}
}

// feedWatchdog feeds systemd's watchdog with what the daemon answers; stop ends that, and waits.
func feedWatchdog(ctx context.Context, manager *systemd.Manager, o *carrel.Orchestrator) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { manager.Watch(ctx, o.Alive) })
	return func() {
		cancel()
		watching.Wait()
	}
}

// passOn leaves new connections to the process that systemd starts after this one, with
// the same socket. Connections that stand are served until their answer; idle ones are
// closed, so that their clients come again, and wait in the socket's queue.
func passOn(server *http.Server, kept net.Listener) {
	_ = kept.Close() // which ends Serve
	server.SetKeepAlivesEnabled(false)
}

// answer serves until the server is shut down, with TLS where it has a certificate.
func answer(server *http.Server, listener net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

// draining is the end of a daemon, in order: runs, then their readers, then the rest.
type draining struct {
	orchestrator *carrel.Orchestrator
	server       *http.Server
	time         time.Duration // what going runs get
	drained      func()        // called when there is nothing left to ask the daemon for
}

func (d draining) run(ctx context.Context, signals <-chan os.Signal) error {
	o, server := d.orchestrator, d.server
	drainCtx, cancel := context.WithTimeout(ctx, d.time)
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-drainCtx.Done():
		}
	}()
	o.Drain(drainCtx)
	var err error
	lastCtx, cancelLast := context.WithTimeout(ctx, lastWordsTime)
	defer cancelLast()
	if server.Shutdown(lastCtx) != nil {
		err = errors.Join(err, server.Close())
	}
	d.drained()
	return errors.Join(err, o.Shutdown(ctx))
}

// announce tells a newcomer where the daemon is, how well it isolates, and what
// to type.
func announce(out *output, cfg carrel.Config, address string, s protocol.System) {
	url, key := "http://"+address, ""
	if cfg.TLSCertFile != "" {
		url = "https://" + address
	}
	if cfg.APIKeysFile != "" {
		key = ` -H "Authorization: Bearer $CARREL_API_KEY"`
	}
	fmt.Fprintf(out.stdout, "carrel %s listens on %s\n", version, url)
	fmt.Fprintf(out.stdout, "isolation: %s%s\n", s.Isolation.State, besides(s.Isolation))
	fmt.Fprintf(out.stdout, "try:\n  curl -N %s/v1/execute%s -H 'Accept: text/event-stream' \\\n"+
		"    -H 'Content-Type: application/json' -d '{\"user_id\": \"ana\", \"message\": \"id; pwd; ls -la /\"}'\n", url, key)
}

// besides names what is not as good as it could be, whether required or not.
func besides(r protocol.IsolationReport) string {
	text := ""
	for _, l := range r.Layers {
		if l.State != protocol.LayerOK {
			text += fmt.Sprintf("\n  %s: %s: %s; without it %s", l.Name, l.State, l.Detail, l.Meaning)
		}
	}
	if text != "" {
		text = ", and:" + text + "\n  (carrel doctor tells how to get these)"
	}
	return text
}

// newLogger logs to stderr, for people on a terminal, else for machines.
func newLogger(cfg carrel.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "text" || cfg.LogFormat == "" && isatty.IsTerminal(os.Stderr.Fd()) {
		return slog.New(slog.NewTextHandler(os.Stderr, options))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options))
}
