package guarded

import (
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBudget(t *testing.T) {
	const mib, gib, none = 1 << 20, 1 << 30, math.MaxInt64
	for _, c := range []struct {
		name         string
		writable     bool
		ram, memlock int64
		want         int64
	}{
		{"a large machine", false, 64 * gib, none, 64 * mib},
		{"a large machine, writable", true, 64 * gib, none, 256 * mib},
		{"512 MiB of RAM, writable", true, 512 * mib, none, 128 * mib},
		{"128 MiB of RAM", false, 128 * mib, none, 32 * mib},
		{"an ordinary user with 8 MiB", false, 64 * gib, 8 * mib, 4 * mib},
		{"an ordinary user with 8 MiB, writable", true, 64 * gib, 8 * mib, 4 * mib},
		{"an ordinary user with 1 GiB", false, 64 * gib, gib, 64 * mib},
		{"little of both", true, 100 * mib, 48 * mib, 24 * mib},
		{"nothing may be locked", false, 64 * gib, 0, 0},
	} {
		if got := budget(c.writable, c.ram, c.memlock); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestDefaultBudgetHere checks the rule's bounds on the machine of the test.
func TestDefaultBudgetHere(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	for writable, most := range map[bool]int64{false: 64 << 20, true: 256 << 20} {
		b, err := DefaultBudget(writable)
		if err != nil || b <= 0 || b > most || b > int64(info.Totalram)*int64(info.Unit)/4 {
			t.Errorf("writable %v: %d, %v", writable, b, err)
		}
		if !lockUnlimited() && b > memlockLimit()/2 {
			t.Errorf("writable %v: %d is more than half of what may be locked", writable, b)
		}
	}
}
