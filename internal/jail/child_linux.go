package jail

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/fdpass"
)

// The descriptors PID 1 is started with.
const (
	fdStdin = iota
	fdStdout
	fdStderr
	fdControl
	fdFirstOther
)

// Entered is what a worker has after Enter: it is inside.
type Entered struct {
	UserID string
	Env    []string // KEY=value
	Limits Limits
	// Missing names layers the plan did without.
	Missing []string
	// In and Out are the real stdin and stdout, taken aside; nothing a library
	// or a tool prints can enter the JSON-RPC stream.
	In, Out *os.File
	// Home is the one way to /home/agent; no path leads there.
	Home *os.Root
	// Broker is the line to the broker, a non-blocking socket; nil = there is none.
	// It is close-on-exec, and no tool host is to be given it: who has it can spend
	// in the user's name.
	Broker *os.File
}

// Enter carries out the steps of the package's drawing in PID 1. It waits twice,
// for a [Plan] and for a [Binding]. After an error the process must end; the
// parent has been told which step failed.
func Enter() (*Entered, error) {
	e := &Entered{}
	control, err := e.arrive()
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()

	var plan Plan
	files, err := control.Recv(&plan)
	if err != nil {
		return nil, fmt.Errorf("wait for plan: %w", err)
	}
	s := &sequence{control: control, missing: plan.Without}
	e.build(s, &plan, files)
	fdpass.CloseAll(files)
	if err := s.report(); err != nil {
		return nil, err
	}

	var b Binding
	if files, err = control.Recv(&b); err != nil {
		return nil, fmt.Errorf("wait for binding: %w", err)
	}
	e.bind(s, &b, files)
	fdpass.CloseAll(files)
	e.restrict(s)
	if err := s.report(); err != nil {
		return nil, err
	}
	return e, nil
}

// arrive makes every inherited descriptor close-on-exec before anything else, so
// that none can reach a tool, and takes stdin and stdout aside.
func (e *Entered) arrive() (*fdpass.Conn, error) {
	if err := unix.CloseRange(fdControl, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("close range: %w", err)
	}
	control, err := fdpass.New(os.NewFile(fdControl, "control"))
	if err != nil {
		return nil, fmt.Errorf("control line (is this process started by carrel?): %w", err)
	}
	if e.In, e.Out, err = takeStdio(); err != nil {
		return nil, errors.Join(err, control.Close())
	}
	return control, nil
}

func takeStdio() (in, out *os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = null.Close() }()
	aside := func(fd, replacement int) (*os.File, error) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, fdFirstOther)
		if err != nil {
			return nil, err
		}
		// Non-blocking, so that the runtime's poller reads it and not a thread.
		if err := unix.SetNonblock(dup, true); err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(dup), "stdio"), unix.Dup3(replacement, fd, 0)
	}
	if in, err = aside(fdStdin, int(null.Fd())); err != nil {
		return nil, nil, fmt.Errorf("take stdin aside: %w", err)
	}
	if out, err = aside(fdStdout, fdStderr); err != nil {
		return nil, nil, fmt.Errorf("take stdout aside: %w", err)
	}
	return in, out, nil
}

func (e *Entered) build(s *sequence, plan *Plan, files []*os.File) {
	e.Limits, e.Missing = plan.Limits, plan.Without
	var worker *os.File
	if len(files) > 0 {
		worker = files[0]
	}
	s.step("private", makePrivate)
	s.step("root", mountRoot)
	s.step("system", mountSystem)
	s.step("etc", mountEtc)
	s.step("dev", func() error { return mountDev(plan.Limits.TmpBytes) })
	s.step("proc", func() error {
		if !plan.has(LayerHidepid) {
			return nil // the empty directory stays: the host's own /proc would show its processes
		}
		if err := mountProc(); err != nil {
			return err
		}
		return shareInotify()
	})
	s.step("tmp", func() error { return mountTmp(plan.Limits.TmpBytes) })
	s.step("binary", func() error { return mountWorker(plan.Worker, worker) })
	s.step("network", func() error {
		if !plan.has(LayerNetwork) {
			return nil
		}
		return setUpNetwork(plan.has(LayerHidepid))
	})
	s.step("hostname", func() error {
		if !plan.has(LayerUTS) {
			return nil
		}
		return unix.Sethostname([]byte(hostName))
	})
}

func (e *Entered) bind(s *sequence, b *Binding, files []*os.File) {
	e.UserID, e.Env = b.UserID, b.Env
	if b.Broker {
		s.step("broker", func() (err error) {
			files, err = e.takeBroker(files)
			return err
		})
	}
	s.step("bind", func() error { return bindUser(b, files) })
	s.step("pivot", func() (err error) {
		if err := pivot(); err != nil {
			return err
		}
		if e.Home, err = os.OpenRoot(HomeDir); err != nil {
			return err
		}
		return sealRoot()
	})
}

// takeBroker keeps the first descriptor, which came close-on-exec, and returns the
// others. Its place is emptied, so that it is not closed with them.
func (e *Entered) takeBroker(files []*os.File) ([]*os.File, error) {
	if len(files) == 0 {
		return nil, errors.New("the line was announced and did not come")
	}
	e.Broker, files[0] = files[0], nil
	return files[1:], nil
}

func (e *Entered) restrict(s *sequence) {
	s.step("limits", func() error { return setLimits(e.Limits) })
	s.step("hide", hideMemory)
	s.step("capabilities", dropCapabilities)
	s.step("no_new_privs", noNewPrivs)
	s.step("landlock", func() error {
		if !s.has(LayerLandlock) {
			return nil
		}
		home, err := e.Home.Open(".")
		if err != nil {
			return err
		}
		defer func() { _ = home.Close() }()
		return landlock(int(home.Fd()))
	})
	s.step("seccomp", func() error {
		if !s.has(LayerSeccomp) {
			return nil
		}
		return loadFilter(baseFilter[:])
	})
}

// sequence carries out steps until one fails, and tells the parent.
type sequence struct {
	control *fdpass.Conn
	missing []string
	steps   []StepTime
	failed  *SetupError
}

func (s *sequence) has(layer string) bool { return (&Plan{Without: s.missing}).has(layer) }

func (s *sequence) step(name string, do func() error) {
	if s.failed != nil {
		return
	}
	start := time.Now()
	if err := do(); err != nil {
		s.failed = &SetupError{Step: name, Err: err}
		return
	}
	s.steps = append(s.steps, StepTime{Step: name, Took: time.Since(start)})
}

func (s *sequence) report() error {
	r := report{Steps: s.steps}
	s.steps = nil
	if s.failed != nil {
		r.Failed, r.Error = s.failed.Step, s.failed.Err.Error()
	}
	if err := s.control.Send(r); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if s.failed != nil {
		return s.failed
	}
	return nil
}
