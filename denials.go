package carrel

import (
	"cmp"
	"sync/atomic"

	"carrel/internal/audit"
	"carrel/internal/denial"
	"carrel/protocol"
)

// otherLayer counts denials by a layer that there is none of by that name.
const otherLayer = "other"

// denials counts what workers say that their sandboxes have denied, by layer: a worker
// cannot make another label.
type denials map[string]*atomic.Int64

func newDenials() denials {
	d := denials{otherLayer: new(atomic.Int64)}
	for _, layer := range denial.Layers() {
		d[layer] = new(atomic.Int64)
	}
	return d
}

func (d denials) add(layer string) {
	count := d[layer]
	if count == nil {
		count = d[otherLayer]
	}
	count.Add(1)
}

// denied takes in what the pool has checked: the run or command is going, and of that
// user. The rest is a worker's word, and its line says so.
func (o *Orchestrator) denied(userID string, p protocol.DeniedParams) {
	o.denials.add(p.Layer)
	o.noteWorker(userID, cmp.Or(p.RunID, p.ExecID), audit.Event{
		Action: audit.Denied, Decision: audit.Deny, Layer: p.Layer, Rule: p.Rule, Target: p.Target, Inferred: p.Inferred,
	})
}

// decided takes in, from the pool, who has decided what of a tool.
func (o *Orchestrator) decided(userID string, p protocol.DecidedParams) {
	o.noteWorker(userID, p.RunID, audit.Event{
		Action: audit.ToolDecided, Decision: p.Decision, Tool: p.Tool, CallID: p.CallID, By: string(p.By), Rule: p.Rule, Content: p.Input,
	})
}

// noteWorker writes down what a worker says of something going.
func (o *Orchestrator) noteWorker(userID, id string, e audit.Event) {
	o.mu.Lock()
	g := o.going[id]
	o.mu.Unlock()
	if g != nil {
		e.Caller, e.SessionID = g.about.Caller, g.about.SessionID
	}
	e.Source, e.UserID, e.RunID = audit.FromWorker, userID, id
	_ = o.audit.Write(o.root, e)
}
