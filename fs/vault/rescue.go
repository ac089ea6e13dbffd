package vault

import (
	"errors"
	"fmt"

	"encfsrun/fs/guarded"
)

// rescue goes on after a write, a sync or the making of a segment has failed, once: all that is not durable is sealed anew into
// another segment, which names as its predecessor's end the last good one; then what was left of the batch is done. Numbers of
// blocks stay, so that no record changes, but for the chain values in commits. If that fails too, the error is both.
func (w *appender) rescue(b *batch, cause error) error {
	if isFull(cause) {
		w.ballast.release() // this is what it is there for
	}
	err := w.reseal()
	if err == nil && b != nil && !b.sealed {
		err = w.put(b)
	}
	if err == nil {
		err = w.settleDisk()
	}
	if err != nil {
		return errors.Join(cause, err)
	}
	w.warn(&RescueError{cause, w.tail.number})
	return nil
}

// reseal seals the kept blocks anew and appends them to a segment of their own.
func (w *appender) reseal() error {
	if len(w.kept) == 0 {
		return nil
	}
	failed := w.made[len(w.made)-1]
	w.tail = w.good
	failed.sums = failed.sums[:w.good.blocks:w.good.blocks] // what is behind is void
	if err := w.makeSegment(false); err != nil {
		return err
	}
	plain := w.reopened.Bytes()
	defer guarded.Wipe(plain)
	value := w.tail.chain
	for i := range w.kept {
		if err := w.resealBlock(i, plain, value); err != nil {
			return err
		}
		value = chain(value, chainBlock, w.kept[i].sum.Hash)
	}
	return w.writeKept(0)
}

// resealBlock opens a kept block and seals it for the newest segment, after blocks whose chain value is given.
func (w *appender) resealBlock(i int, plain []byte, before Root) error {
	k, number, sealed := &w.kept[i], w.good.next+uint64(i), w.keptAt(i, 1)
	if err := w.keys.OpenBlock(plain, sealed, k.segment, number); err != nil {
		return fmt.Errorf("seal block %d anew: %w", number, err)
	}
	if k.commit != nil {
		copy(plain[k.commit.at:][:len(before)], before[:])
	}
	w.mem.Lock() // readers look at it
	defer w.mem.Unlock()
	k.segment = w.tail.id
	err := w.sealBlock(sealed, plain, number)
	k.sum = sum(sealed)
	return err
}
