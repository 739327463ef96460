package workspace

import "carrel/protocol"

// uidRange hands out the uids of a range, each to one directory at a time.
// Dirs.mu guards it.
type uidRange struct {
	first, count int
	// next is where the search for a free uid starts, counted from first. It
	// moves on with every uid handed out, so that one that was given back rests
	// as long as it can.
	next   int
	owners map[int]string // uid → name of its directory
	byName map[string]int
}

func newUIDRange(first, count int) *uidRange {
	return &uidRange{first: first, count: count, owners: make(map[int]string), byName: make(map[string]int)}
}

func (r *uidRange) contains(uid int) bool { return uid >= r.first && uid < r.first+r.count }

// claim notes that the directory called name has uid already. A uid outside of
// the range or of another directory is a conflict.
func (r *uidRange) claim(uid int, name string) error {
	if !r.contains(uid) {
		return protocol.Errorf(protocol.CodeConflict, "its uid %d lies outside of the range %d:%d", uid, r.first, r.count)
	}
	if owner, taken := r.owners[uid]; taken && owner != name {
		return protocol.Errorf(protocol.CodeConflict, "its uid %d belongs to %s too", uid, owner)
	}
	r.owners[uid] = name
	r.byName[name] = uid
	r.next = max(r.next, uid-r.first+1)
	return nil
}

// reserve finds a free uid for the directory called name, or the one it has.
func (r *uidRange) reserve(name string) (int, error) {
	if uid, ok := r.byName[name]; ok {
		return uid, nil
	}
	for i := range r.count {
		uid := r.first + (r.next+i)%r.count
		if _, taken := r.owners[uid]; taken {
			continue
		}
		r.owners[uid] = name
		r.byName[name] = uid
		r.next = (uid - r.first + 1) % r.count
		return uid, nil
	}
	return 0, protocol.Errorf(protocol.CodeInternal,
		"no uid is free: all %d of the range %d:%d have a directory; widen SANDBOX_UID_RANGE or remove users", r.count, r.first, r.count)
}

// rename moves the uid of one name to another, as its directory moves.
func (r *uidRange) rename(from, to string) {
	if uid, ok := r.byName[from]; ok {
		delete(r.byName, from)
		r.byName[to], r.owners[uid] = uid, to
	}
}

// release gives back the uid of the directory called name, if it has one.
func (r *uidRange) release(name string) {
	if uid, ok := r.byName[name]; ok {
		delete(r.byName, name)
		delete(r.owners, uid)
	}
}
