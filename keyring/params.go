package keyring

import "encfsrun/fs/guarded"

// Limits of Argon2id parameters in a slot; format. RFC 9106 section 3.1 sets
// the lower bounds: at least one pass, and 8 KiB of memory for each lane. The
// upper bounds answer a denial of service: whoever can alter a header must not
// make opening it take all memory or hours before its MAC can be verified.
const (
	MinMemoryKiB   = 8
	MaxMemoryKiB   = 4 << 20 // 4 GiB
	MinTime        = 1
	MaxTime        = 64
	MinParallelism = 1
	MaxParallelism = 16

	// MaxCost bounds memory × time, which is what a derivation takes of a
	// machine, in KiB passes: 64 GiB passes. That is 32 times RFC 9106 section
	// 4's first recommended option (2 GiB, one pass), which is the default's
	// cost too: half a minute where that takes a second. Without it, a header
	// of eight slots of 4 GiB and 64 passes would keep a machine busy for
	// a quarter of an hour and more.
	MaxCost = 64 << 20

	kibPerLane = 8
)

// What a new slot costs where memory is no matter. Four lanes is the choice
// of RFC 9106 section 4 for any machine; the passes make it about one second
// on two cores of 2024.
const (
	defaultMemoryKiB   = 256 << 10 // 256 MiB
	defaultTime        = 8
	defaultParallelism = 4
)

// Params is the cost of Argon2id.
type Params struct {
	MemoryKiB   uint32 // in KiB
	Time        uint32 // passes over the memory
	Parallelism uint32 // lanes
}

// KDF derives the 32-byte input key of a passphrase slot with Argon2id. It
// refuses parameters out of range with a *ParameterError before it allocates;
// other failures, such as memory that is not there, are a *KDFError. The caller destroys the result.
type KDF func(passphrase *guarded.Buffer, salt []byte, p Params) (*guarded.Buffer, error)

// Validate returns a *ParameterError for the first parameter out of range.
func (p Params) Validate() error {
	return checkParams(uint64(p.MemoryKiB), uint64(p.Time), uint64(p.Parallelism))
}

// checkParams takes wide integers so that what a header says is judged before
// it is narrowed.
func checkParams(memoryKiB, time, parallelism uint64) error {
	if parallelism < MinParallelism || parallelism > MaxParallelism {
		return &ParameterError{"parallelism", parallelism, MinParallelism, MaxParallelism}
	}
	if lowest := max(MinMemoryKiB, kibPerLane*parallelism); memoryKiB < lowest || memoryKiB > MaxMemoryKiB {
		return &ParameterError{"memory in KiB", memoryKiB, lowest, MaxMemoryKiB}
	}
	if time < MinTime || time > MaxTime {
		return &ParameterError{"time", time, MinTime, MaxTime}
	}
	if cost := memoryKiB * time; cost > MaxCost { // both are small by now
		return &ParameterError{"memory in KiB times time", cost, MinMemoryKiB * MinTime, MaxCost}
	}
	return nil
}

// DefaultParams is about one second and 256 MiB.
func DefaultParams() Params {
	return Params{MemoryKiB: defaultMemoryKiB, Time: defaultTime, Parallelism: defaultParallelism}
}

// Calibrate returns the parameters for a new slot on a machine with so many
// bytes of memory available (see AvailableMemory): the defaults, or, when
// those would take more than a quarter of it, a quarter in more passes, so that an
// attempt still takes about one second as far as MaxTime allows. reduced says
// that the memory is less than the default's: a slot easier to attack, which
// is to be said aloud.
func Calibrate(available int64) (p Params, reduced bool) {
	p = DefaultParams()
	quarter := max(available, 0) / 4 / 1024
	if quarter >= int64(p.MemoryKiB) {
		return p, false
	}
	lowest := int64(kibPerLane * p.Parallelism)
	p.MemoryKiB = uint32(max(quarter, lowest))
	passes := uint64(defaultMemoryKiB) * defaultTime / uint64(p.MemoryKiB)
	p.Time = uint32(min(passes, MaxTime))
	return p, true
}
