// Package jail puts a worker process where it can reach its user's files and
// nothing else. The parent half ([Spawner], [Probe]) runs in the daemon, the
// child half ([Enter], [EnterTool]) in carrel-worker.
//
// The order of steps, and who takes them. A step stands where it does because
// the ones below it would no longer allow it.
//
//	daemon            spawner              PID 1 of the sandbox
//	  │ start ───────────▶│
//	  │                   │ clone ────────────▶│  1 arrive: descriptors made close-on-exec,
//	  │◀──────── pid ─────│                    │    stdin and stdout taken aside
//	  │ (cgroup v1: attach the pid)            │    waits: nothing has been built yet
//	  │ Plan ─────────────────────────────────▶│  2 private: no mount event leaves or enters
//	  │                                        │  3 root: a small tmpfs
//	  │                                        │  4 system: /usr … read-only, nosuid, nodev
//	  │                                        │  5 etc    6 dev    7 proc (hidepid)    8 tmp
//	  │                                        │  9 binary   10 network (lo only), hostname
//	  │◀──────────────────────────── ready ────│    waits: a warm worker stands here
//	  │ Binding ──────────────────────────────▶│ 11 bind: the user's directories (IDMap)
//	  │                                        │ 12 pivot: the old root is gone
//	  │                                        │ 13 limits, not dumpable
//	  │                                        │ 14 capabilities gone     (all threads)
//	  │                                        │ 15 no_new_privs          (all threads)
//	  │                                        │ 16 Landlock, worker tier (all threads)
//	  │                                        │ 17 seccomp               (all threads, last)
//	  │◀──────────────────────────── bound ────│
//	  │ JSON-RPC over stdin and stdout ◀──────▶│    and only now anything of a user's
//
// Landlock comes after pivot because it forbids every mount call, seccomp last
// because it forbids what the others need. A step that fails ends the process:
// there is no way to go on with less, unless the plan itself says so
// ([Plan.Without]), which only a configuration that asks for it can cause.
//
// The tool host (package tool) is a child of the worker and enters the tool
// tier by [EnterTool]: limits, a nested Landlock domain without /home/agent and
// without signals to the outside, a second seccomp filter. Every command of an
// agent is a child of a tool host.
package jail

//go:generate go run ./seccompgen seccomp_filter_linux_amd64.go
