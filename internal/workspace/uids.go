package workspace

import "carrel/protocol"

// uidRange hands out the uids of a range, each to one holder at a time. Dirs.mu
// guards it.
//
//	first                      first+users        first+count
//	├── one a user's directory ──┼── slots ─────────┤
//
// A slot uid is a process's for as long as that lives and never owns a file. The
// bound between the parts may move from one start to the next: a directory keeps
// its uid wherever that lies, and no slot has it meanwhile.
type uidRange struct {
	first, count, users int
	// next and nextSlot are where the search for a free uid starts, counted from
	// first. They move on with every uid handed out, so that one that was given
	// back rests as long as it can.
	next, nextSlot int
	owners         map[int]string // uid → name of its directory, or slotHolder
	byName         map[string]int
}

// slotHolder stands for the process that has a slot uid; no directory has a name
// with spaces.
const slotHolder = "a warm worker"

func newUIDRange(first, count, slots int) *uidRange {
	return &uidRange{
		first: first, count: count, users: count - slots, nextSlot: count - slots,
		owners: make(map[int]string), byName: make(map[string]int),
	}
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
	if uid < r.first+r.users {
		r.next = max(r.next, uid-r.first+1)
	}
	return nil
}

// reserve finds a free uid for the directory called name, or the one it has.
func (r *uidRange) reserve(name string) (int, error) {
	if uid, ok := r.byName[name]; ok {
		return uid, nil
	}
	uid, ok := r.free(0, r.users, r.next)
	if !ok {
		return 0, protocol.Errorf(protocol.CodeInternal,
			"no uid is free: all %d of the range %d:%d that are for users have a directory; widen SANDBOX_UID_RANGE or remove users", r.users, r.first, r.count)
	}
	r.owners[uid] = name
	r.byName[name] = uid
	r.next = uid - r.first + 1
	return uid, nil
}

// takeSlot finds a free slot uid.
func (r *uidRange) takeSlot() (int, error) {
	uid, ok := r.free(r.users, r.count, r.nextSlot)
	if !ok {
		return 0, protocol.Errorf(protocol.CodeInternal,
			"no slot uid is free: all %d, the last of the range %d:%d, have a worker or a directory", r.count-r.users, r.first, r.count)
	}
	r.owners[uid] = slotHolder
	r.nextSlot = uid - r.first + 1
	return uid, nil
}

// giveSlot takes back what takeSlot gave.
func (r *uidRange) giveSlot(uid int) {
	if name, taken := r.owners[uid]; taken && name == slotHolder {
		delete(r.owners, uid)
	}
}

// free looks for a uid without an owner from low up to before high, both counted
// from first, beginning at next.
func (r *uidRange) free(low, high, next int) (uid int, ok bool) {
	for i := range high - low {
		uid := r.first + low + (max(next-low, 0)+i)%(high-low)
		if _, taken := r.owners[uid]; !taken {
			return uid, true
		}
	}
	return 0, false
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
