//go:build linux

package postgres

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
)

// TestInbox reads messages of every length in pieces of every length, whole or passed on, and gives up no byte.
func TestInbox(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		var want []byte
		for range 60 {
			n := r.IntN(100)
			switch r.IntN(10) {
			case 0:
				n = streamSize - 10 + r.IntN(20)
			case 1:
				n = r.IntN(5 * streamSize)
			}
			want = wire.AppendMessage(want, "DQ"[r.IntN(2)], string(bytes.Repeat([]byte{byte(n)}, n)))
		}
		a, b := net.Pipe()
		go func() {
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+r.IntN(20000))
				_, _ = a.Write(rest[:n])
				rest = rest[n:]
			}
			a.Close()
		}()
		in := newInbox(b)
		var got []byte
		for need := wire.HeadSize; ; {
			err := in.read(need)
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			got = append(got, in.passing()...)
			need = 1
			for in.skip == 0 {
				m, n, err := in.next(func(kind byte) (int, int) {
					if kind == 'Q' {
						return 1 << 30, -1
					}
					return streamSize, streamSize
				})
				if err != nil {
					t.Fatal(err)
				}
				if n > 0 {
					need = n
					break
				}
				if m.kind == 'Q' && !m.whole {
					t.Fatal("a statement in pieces")
				}
				got = append(got, m.bytes...)
			}
		}
		in.release()
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %d bytes of %d", seed, len(got), len(want))
		}
	}
}

// TestA62_LengthAlone: who says that much comes and sends nothing has nothing kept for it.
func TestA62_LengthAlone(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go func() { fmt.Fprintf(a, "Q\x00\xff\xff\xff") }()
	in := newInbox(b)
	if err := in.read(wire.HeadSize); err != nil {
		t.Fatal(err)
	}
	_, need, err := in.next(clientSizes)
	if err != nil || need != 0xffffff+1 {
		t.Fatal(need, err)
	}
	in.room(need)
	if len(in.buf) > 2*streamSize {
		t.Fatalf("%d bytes are kept", len(in.buf))
	}
}
