package protocol

import "time"

// LayerState is what a host gives of one isolation layer.
type LayerState string

// The states of a layer.
const (
	LayerOK       LayerState = "ok"
	LayerDegraded LayerState = "degraded" // weaker than it should be, or optional and absent
	LayerMissing  LayerState = "missing"
)

// Layer is one line of an isolation report.
type Layer struct {
	Name   string     `json:"name"` // "user-namespace", "landlock", …
	State  LayerState `json:"state"`
	Detail string     `json:"detail,omitempty"` // "ABI 7"
	// Meaning tells what is at risk without the layer, Fix how to get it; both
	// empty while State is ok.
	Meaning  string `json:"meaning,omitempty"`
	Fix      string `json:"fix,omitempty"`
	Required bool   `json:"required"`
}

// IsolationReport is what stands between a sandbox and the rest.
type IsolationReport struct {
	Mode   string  `json:"mode"`   // "strict" or "degraded": what was asked for
	State  string  `json:"state"`  // "strict" if every required layer holds, else "degraded"
	Kernel string  `json:"kernel"` // release
	Root   bool    `json:"root"`   // one host uid per user, else all share the daemon's
	Layers []Layer `json:"layers"`
}

// SandboxState is where a worker stands in its life.
type SandboxState string

// The states of a worker, as the pool's drawing shows them.
const (
	SandboxStarting SandboxState = "starting"
	SandboxReady    SandboxState = "ready" // warm, bound to nobody
	SandboxIdle     SandboxState = "idle"
	SandboxBusy     SandboxState = "busy"
	SandboxDraining SandboxState = "draining"
)

// Sandbox is one live worker.
type Sandbox struct {
	UserID      string       `json:"user_id,omitempty"` // none while warm
	State       SandboxState `json:"state"`
	PID         int          `json:"pid"` // on the host
	StartedAt   time.Time    `json:"started_at"`
	LastUsedAt  time.Time    `json:"last_used_at,omitzero"`
	Runs        int          `json:"runs"`         // served so far
	ActiveRuns  int          `json:"active_runs"`  // going now
	MemoryBytes int64        `json:"memory_bytes"` // worker and tools together
	CPUSeconds  float64      `json:"cpu_seconds"`
	Isolation   string       `json:"isolation"` // "strict" or "degraded"
}

// Sandboxes is the live pool: GET /v1/sandboxes.
type Sandboxes struct {
	Sandboxes []Sandbox `json:"sandboxes"`
	Warm      int       `json:"warm"`   // ready and bound to nobody
	Queued    int       `json:"queued"` // runs waiting for a worker
}

// System is GET /v1/system.
type System struct {
	Version       string            `json:"version"`
	StartedAt     time.Time         `json:"started_at"`
	Isolation     IsolationReport   `json:"isolation"`
	Pool          PoolFigures       `json:"pool"`
	Usage         Totals            `json:"usage"`
	Configuration map[string]string `json:"configuration"` // by key; secrets redacted
}

// Totals is what all runs have used of the model API since the daemon started.
type Totals struct {
	Usage

	Requests int64 `json:"requests"`
}

// PoolFigures counts what the pool holds.
type PoolFigures struct {
	MaxWorkers int            `json:"max_workers"`
	Workers    int            `json:"workers"`
	ByState    map[string]int `json:"by_state"`
	Warm       int            `json:"warm"`
	Queued     int            `json:"queued"`
	QueueSize  int            `json:"queue_size"`
}

// SandboxInfo is GET /v1/users/{user_id}/sandbox.
type SandboxInfo struct {
	UserID    string          `json:"user_id"`
	Sandbox   *Sandbox        `json:"sandbox,omitempty"` // none while no worker lives
	Limits    SandboxLimits   `json:"limits"`
	DiskBytes int64           `json:"disk_bytes"`
	Isolation IsolationReport `json:"isolation"`
}

// SandboxLimits is what one sandbox may use, worker and tools together.
type SandboxLimits struct {
	MemoryBytes int64   `json:"memory_bytes"`
	CPUs        float64 `json:"cpus"`
	PIDs        int     `json:"pids"`
	DiskBytes   int64   `json:"disk_bytes"`
}
