package vault

import (
	"slices"

	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
)

// noteCommit makes a commit that was written the newest, or notes its new chain value where it was written anew.
func (v *Vault) noteCommit(session seal.ID, m commitMark, chain Root) {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := v.state
	if m.sequence < st.last.sequence {
		return
	}
	st.last, st.session, st.closed = point{m.sequence, chain}, session, m.closing
	st.noteEpoch(record.EpochRecord{Session: session, Sequence: m.sequence})
}

// adopt lets the vault read from the segments that its session has made, as far as they are durable: copies, for the session goes
// on with its own.
func (v *Vault) adopt(w *appender) {
	v.mu.Lock()
	defer v.mu.Unlock()
	segs := slices.DeleteFunc(slices.Clone(v.segs), func(x *segment) bool { return x.header.session == w.session })
	for _, made := range w.made {
		durable := *made
		durable.sums = slices.Clip(made.sums)
		segs = append(segs, &durable)
	}
	w.adopted = len(w.made)
	v.segs, v.tail = segs, w.tail
	v.durable = v.newest()
}
