package tool_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"carrel/internal/jail"
	"carrel/internal/tool"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if made, err := built(); err == nil && made != besideTheWorker() {
		_ = os.RemoveAll(filepath.Dir(made))
	}
	os.Exit(code)
}

// besideTheWorker is where the gate's program stands (make test-programs).
func besideTheWorker() string {
	return filepath.Join(filepath.Dir(os.Getenv("SANDBOX_WORKER_PATH")), "carrel-tooltest")
}

// built is package tooltest as a program: never this one, which may have cgo. Its
// directory can be walked to by every uid. It is the gate's, or one that is built now.
var built = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // built once a test binary
	if _, err := os.Stat(besideTheWorker()); err == nil {
		return besideTheWorker(), nil
	}
	dir, err := os.MkdirTemp("", "carrel-tooltest-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "tooltest")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "carrel/internal/tool/tooltest") //nolint:noctx // once, for all tests
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New("build tooltest: " + string(out) + err.Error())
	}
	return program, os.Chmod(dir, 0o755)
})

// sandbox is a real one with the tools in it.
type sandbox struct {
	t               *testing.T
	workspace, home string // host paths
	in              *json.Encoder

	mu    sync.Mutex
	next  int
	waits map[string]*pending
}

// pending is a call under way.
type pending struct {
	mu       sync.Mutex
	streamed string
	done     chan struct{}
	result   tool.Result
	dir      string
	text     string
	// seen is closed once watch stands in the output.
	watch string
	seen  chan struct{}
}

// order and answer are tooltest's.
type order struct {
	ID      string
	Call    tool.Call
	NewRun  bool
	Cancel  string
	Resolve string
}

type answer struct {
	ID     string
	Stream tool.Stream
	Text   string
	Result *tool.Result
	Dir    string
}

// enter makes a sandbox. A machine that cannot is told by a skip, unless
// REQUIRE_KERNEL is set.
func enter(t *testing.T) *sandbox {
	t.Helper()
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	trial, err := jail.NewTrial(t.Context(), jail.TrialOptions{
		Worker: program, UserID: "tools", Env: jail.BaseEnv("tools", nil), Stdio: [3]*os.File{stdin, stdout, os.Stderr},
	})
	_, _ = stdin.Close(), stdout.Close()
	if err != nil {
		_, _ = in.Close(), out.Close()
		if os.Getenv("REQUIRE_KERNEL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s := &sandbox{t: t, in: json.NewEncoder(in), waits: make(map[string]*pending)}
	s.workspace, s.home = trial.Dirs()
	var reader sync.WaitGroup
	reader.Go(func() { s.read(out) })
	t.Cleanup(func() {
		_ = in.Close()
		reader.Wait() // the end of its output is the end of everything in there
		_ = out.Close()
		if err := trial.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *sandbox) read(from *os.File) {
	for lines := json.NewDecoder(from); ; {
		var a answer
		if lines.Decode(&a) != nil {
			return
		}
		s.mu.Lock()
		p := s.waits[a.ID]
		s.mu.Unlock()
		p.take(a)
	}
}

func (p *pending) take(a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.Stream != "" {
		p.streamed += a.Text
		if p.watch != "" && contains(p.streamed, p.watch) {
			close(p.seen)
			p.watch = ""
		}
		return
	}
	if a.Result != nil {
		p.result = *a.Result
	}
	p.dir, p.text = a.Dir, a.Text
	close(p.done)
}

func (s *sandbox) send(o order, watch string) *pending {
	s.t.Helper()
	p := &pending{done: make(chan struct{}), watch: watch, seen: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.ID == "" {
		s.next++
		o.ID = "call-" + strconv.Itoa(s.next)
	}
	s.waits[o.ID] = p
	if err := s.in.Encode(o); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// start begins a call; input is what the model wrote.
func (s *sandbox) start(name string, input any) *pending {
	return s.send(order{Call: call(s.t, name, input)}, "")
}

func (p *pending) wait() tool.Result {
	<-p.done
	return p.result
}

func (s *sandbox) call(name string, input any) tool.Result { return s.start(name, input).wait() }

func (s *sandbox) bash(command string) tool.Result {
	return s.call("bash", map[string]any{"command": command})
}

// newRun ends the run and gives the directory in which the next one starts.
func (s *sandbox) newRun() string {
	p := s.send(order{NewRun: true}, "")
	<-p.done
	return p.dir
}

func call(t *testing.T, name string, input any) tool.Call {
	t.Helper()
	raw, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	return tool.Call{Name: name, Input: raw}
}
