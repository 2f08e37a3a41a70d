//go:build linux

package node

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
)

// TestA30Channels floods a connection with channels; the ones that are open go on.
func TestA30Channels(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	first, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := first.StdinPipe()
	out, _ := first.StdoutPipe()
	if err := first.Start("cat"); err != nil {
		t.Fatal(err)
	}
	for i := 1; ; i++ {
		_, _, err := c.OpenChannel("session", nil)
		var open *ssh.OpenChannelError
		if errors.As(err, &open) && open.Reason == ssh.ResourceShortage {
			if i != maxChannels {
				t.Errorf("%d channels", i)
			}
			break
		}
		if err != nil || i > 2*maxChannels {
			t.Fatal(i, err)
		}
	}
	_, _ = io.WriteString(in, "on")
	if _, err := io.ReadFull(out, make([]byte, 2)); err != nil {
		t.Error(err)
	}
}

// TestA30Denials floods the audit log with denials: the connection is closed.
func TestA30Denials(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	for i := 0; ; i++ {
		if _, _, err := c.OpenChannel("x11", nil); !errors.As(err, new(*ssh.OpenChannelError)) {
			break
		}
		if i > 2*maxDenials {
			t.Fatal("never closed")
		}
	}
	if n := len(w.recorder.of(event.Auth)); n > maxDenials {
		t.Errorf("%d denials on record", n)
	}
}

// TestA30SlowReader does not read one channel, and uses another.
func TestA30SlowReader(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	slow, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := slow.Start("cat /dev/zero"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := s.Output("echo on"); string(out) != "on\n" || err != nil {
			t.Error(string(out), err)
		}
	}
	began := time.Now()
	w.lock()
	_ = c.Wait()
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("the cut took %s", d)
	}
}

// TestA30SlowHandshake says nothing, or a byte a second: ten seconds, and no more.
func TestA30SlowHandshake(t *testing.T) {
	for _, pace := range []time.Duration{0, time.Second} {
		w := newWorld(t)
		n := w.node
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			began := time.Now()
			go func() { _, _ = io.Copy(io.Discard, client) }()
			var talking sync.WaitGroup
			if pace > 0 {
				talking.Go(func() {
					for i := 0; ; i++ {
						time.Sleep(pace)
						if _, err := client.Write([]byte("SSH-2.0-slow and long"[i%20 : i%20+1])); err != nil {
							return
						}
					}
				})
			}
			n.Handle(context.Background(), server)
			if d := time.Since(began); d != handshakeTime {
				t.Errorf("ended after %s", d)
			}
			client.Close()
			talking.Wait()
		})
	}
}

// TestA30Bytes sends more ahead of authentication than a handshake needs.
func TestA30Bytes(t *testing.T) {
	w := newWorld(t)
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "SSH-2.0-x\r\n")
	packet := make([]byte, 32<<10)
	binary.BigEndian.PutUint32(packet, uint32(len(packet)-4))
	packet[4], packet[5] = 8, 2 // padding, SSH_MSG_IGNORE
	sent := 0
	for sent < 10<<20 {
		n, err := conn.Write(packet)
		sent += n
		if err != nil {
			break
		}
	}
	if sent >= 10<<20 {
		t.Error("10 MiB were taken")
	}
}

// TestA30HalfOpen opens more connections from one address than may be in their handshake.
func TestA30HalfOpen(t *testing.T) {
	w := newWorld(t)
	var conns []net.Conn
	for range halfOpen {
		conn, err := net.Dial("tcp", w.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	if _, err := w.dial(w.signer(), "ubuntu"); err == nil {
		t.Error("one more was let begin")
	}
	conns[0].Close()
	await(t, "room for another", func() bool { _, err := w.dial(w.signer(), "ubuntu"); return err == nil })
}
