package seal

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkBlock is what chose the size of a block: see docs/BENCHMARKS.md.
func BenchmarkBlock(b *testing.B) {
	k, err := NewKeys(NewID(), bytes.Repeat([]byte{1}, KeySize))
	if err != nil {
		b.Fatal(err)
	}
	defer k.Destroy()
	segment := NewID()
	for _, size := range []int{16 << 10, 32 << 10, 64 << 10, 128 << 10} {
		plain, sealed := make([]byte, size-Overhead), make([]byte, size)
		b.Run(fmt.Sprintf("seal/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := k.SealBlock(sealed, plain, segment, 7); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("open/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := k.OpenBlock(plain, sealed, segment, 7); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
