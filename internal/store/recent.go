package store

import (
	"slices"
	"sort"

	"carrel/protocol"
)

// recent holds the last committed events of a run: the slices as the writer
// took them, each following the one before without a gap. Nobody changes them,
// so all readers share them.
type recent struct {
	parts  [][]protocol.Event
	events int
	bytes  int64
}

// add puts a part behind the others and drops the oldest until the bounds hold,
// if need be the new one too.
func (r *recent) add(part []protocol.Event) {
	r.parts = append(r.parts, part)
	r.events += len(part)
	r.bytes += sizeOfAll(part)
	drop := 0
	for drop < len(r.parts) && (r.events > recentEvents || r.bytes > recentBytes) {
		r.events -= len(r.parts[drop])
		r.bytes -= sizeOfAll(r.parts[drop])
		r.parts[drop] = nil
		drop++
	}
	r.parts = r.parts[drop:]
}

// after returns events that follow seq, at least the next one and at most a
// batch, or none if the next one is not here. The result is not to be changed.
func (r *recent) after(seq int64) []protocol.Event {
	i := sort.Search(len(r.parts), func(i int) bool {
		part := r.parts[i]
		return part[len(part)-1].Seq > seq
	})
	if i == len(r.parts) {
		return nil
	}
	skip := seq + 1 - r.parts[i][0].Seq
	if skip < 0 {
		return nil
	}
	events := batchOf(r.parts[i][skip:])
	// A reader that is behind by many small parts gets them at once.
	for i++; i < len(r.parts) && len(events)+len(r.parts[i]) <= batchEvents; i++ {
		events = append(events, r.parts[i]...)
	}
	return batchOf(events)
}

// batchOf cuts events to what one call of Next gives. Nothing can be appended to
// the result in place.
func batchOf(events []protocol.Event) []protocol.Event {
	var bytes int64
	for i, ev := range events {
		bytes += sizeOf(ev)
		if i == batchEvents || (i > 0 && bytes > batchBytes) {
			return events[:i:i]
		}
	}
	return slices.Clip(events)
}

func sizeOfAll(events []protocol.Event) int64 {
	var bytes int64
	for _, ev := range events {
		bytes += sizeOf(ev)
	}
	return bytes
}
