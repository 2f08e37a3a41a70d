package swtpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Conn is a connection to an emulator; it is a transport.TPM.
type Conn struct{ net.Conn }

func dial(path string) (*Conn, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return &Conn{c}, nil
}

func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// Send implements transport.TPM.
func (c *Conn) Send(command []byte) ([]byte, error) {
	if _, err := c.Write(command); err != nil {
		return nil, err
	}
	return readFrame(c)
}

// readFrame reads one command or response: both have a tag, their size, and a code.
func readFrame(r io.Reader) ([]byte, error) {
	b := make([]byte, 10)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(b[2:])
	if size < 10 || size > 8192 {
		return nil, fmt.Errorf("TPM frame of %d bytes", size)
	}
	b = append(b, make([]byte, size-10)...)
	_, err := io.ReadFull(r, b[10:])
	return b, err
}

// proxy stands before swtpm and counts commands by their code.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup
	slot     sync.Mutex // held by the one client that swtpm serves at a time

	mu     sync.Mutex // guards what follows
	counts map[uint32]int
	hook   func(tpm2.TPMCC) (tpm2.TPMRC, bool)
	conns  map[net.Conn]bool
	closed bool
}

func listen(path, target string) (*proxy, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, counts: map[uint32]int{}, conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if !p.add(c) {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	return p, nil
}

func (p *proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *proxy) serve(c net.Conn) {
	defer p.drop(c)
	p.slot.Lock()
	defer p.slot.Unlock()
	up, err := queue(p.target)
	if err != nil || !p.add(up) {
		return
	}
	defer p.drop(up)
	for {
		command, err := readFrame(c)
		if err != nil {
			return
		}
		response, err := p.answer(up, command)
		if err != nil {
			return
		}
		if _, err := c.Write(response); err != nil {
			return
		}
	}
}

// queue dials swtpm until its backlog, of two, has room: connections that came and went wait there too.
func queue(path string) (c *Conn, err error) {
	for range 1000 {
		if c, err = dial(path); !errors.Is(err, syscall.EAGAIN) {
			return c, err
		}
		time.Sleep(5 * time.Millisecond) // another process: there is nothing to wait on
	}
	return nil, err
}

func (p *proxy) answer(up *Conn, command []byte) ([]byte, error) {
	cc := binary.BigEndian.Uint32(command[6:])
	p.mu.Lock()
	p.counts[cc]++
	hook := p.hook
	p.mu.Unlock()
	if hook != nil {
		if rc, ok := hook(tpm2.TPMCC(cc)); ok {
			b := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
			b = binary.BigEndian.AppendUint32(b, 10)
			return binary.BigEndian.AppendUint32(b, uint32(rc)), nil
		}
	}
	return up.Send(command)
}

func (p *proxy) count(cc uint32) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[cc]
}

func (p *proxy) intercept(f func(tpm2.TPMCC) (tpm2.TPMRC, bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = f
}

// close ends the proxy and all its connections, and waits for them.
func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	_ = p.listener.Close()
	p.wg.Wait()
}
