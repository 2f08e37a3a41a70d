package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// What is looked at before anybody is known: for at most sniffTime, and at most sniffBytes.
const (
	sniffTime  = 10 * time.Second
	sniffBytes = 16 << 10
)

// peeked is a connection whose first bytes were looked at; addr is who connected, as far as it is known.
type peeked struct {
	net.Conn
	r    *bufio.Reader
	addr netip.AddrPort
}

func newPeeked(c net.Conn) *peeked {
	p := &peeked{Conn: c, r: bufio.NewReaderSize(c, sniffBytes)}
	if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		p.addr = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return p
}

// Read reads what was looked at first.
func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// RemoteAddr is the address behind a PROXY line.
func (p *peeked) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.addr) }

// CloseWrite passes the end of one direction on.
func (p *peeked) CloseWrite() error {
	if h, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return p.Conn.Close()
}

// proxyLine reads a PROXY header (version 1 or 2) from a source that may send one; who may not and does is nobody.
func (p *peeked) proxyLine(allowed []netip.Prefix) error {
	trusted := false
	for _, prefix := range allowed {
		trusted = trusted || prefix.Contains(p.addr.Addr())
	}
	if !trusted {
		return nil
	}
	first, err := p.r.Peek(6)
	if err != nil {
		return err
	}
	if !bytes.Equal(first, []byte("PROXY ")) && !bytes.Equal(first, []byte("\r\n\r\n\x00\r")) {
		return nil
	}
	h, err := proxyproto.Read(p.r)
	if err != nil {
		return fmt.Errorf("PROXY line: %w", err)
	}
	if h.Command.IsLocal() {
		return nil
	}
	src, _, ok := h.TCPAddrs()
	if !ok {
		return errors.New("PROXY line without a TCP address")
	}
	a := src.AddrPort()
	p.addr = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	return nil
}

// The first messages of PostgreSQL's protocol that may come ahead of TLS: length 8 and a code.
var (
	sslRequest    = []byte{0, 0, 0, 8, 4, 210, 22, 47}
	gssEncRequest = []byte{0, 0, 0, 8, 4, 210, 22, 48}
)

// protocol is what the first bytes are.
type protocol uint8

const (
	protoUnknown protocol = iota
	protoSSH
	protoTLS
)

// sniff finds the protocol. PostgreSQL's requests are answered here; after S a ClientHello must follow, and nothing
// may have come ahead of it.
func (p *peeked) sniff() (protocol, error) {
	first, err := p.r.Peek(1)
	if err != nil {
		return protoUnknown, err
	}
	switch first[0] {
	case 'S':
		b, err := p.r.Peek(4)
		if err == nil && string(b) == "SSH-" {
			return protoSSH, nil
		}
		return protoUnknown, err
	case 22:
		return protoTLS, nil
	case 0:
		return p.postgres()
	}
	return protoUnknown, nil
}

func (p *peeked) postgres() (protocol, error) {
	for range 2 {
		var req [8]byte
		if _, err := io.ReadFull(p.r, req[:]); err != nil {
			return protoUnknown, err
		}
		ahead := p.r.Buffered() > 0
		switch {
		case ahead:
			return protoUnknown, errors.New("bytes ahead of TLS")
		case bytes.Equal(req[:], sslRequest):
			if _, err := p.Conn.Write([]byte{'S'}); err != nil {
				return protoUnknown, err
			}
			b, err := p.r.Peek(1)
			if err != nil || b[0] != 22 {
				return protoUnknown, err
			}
			return protoTLS, nil
		case bytes.Equal(req[:], gssEncRequest):
			if _, err := p.Conn.Write([]byte{'N'}); err != nil {
				return protoUnknown, err
			}
		default:
			return protoUnknown, nil
		}
	}
	return protoUnknown, nil
}

// hello is what a ClientHello says of its way.
type hello struct {
	sni  string
	alpn []string
}

var errHelloRead = errors.New("hello read")

// clientHello looks at the ClientHello without taking it.
func (p *peeked) clientHello() (hello, error) {
	head, err := p.r.Peek(5)
	if err != nil {
		return hello{}, err
	}
	size := 5 + int(head[3])<<8 + int(head[4])
	if size > sniffBytes {
		return hello{}, errors.New("client hello too large")
	}
	raw, err := p.r.Peek(size)
	if err != nil {
		return hello{}, err
	}
	var h hello
	err = tls.Server(readOnly{bytes.NewReader(raw)}, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			h = hello{i.ServerName, i.SupportedProtos}
			return nil, errHelloRead
		}}).Handshake()
	if !errors.Is(err, errHelloRead) {
		return hello{}, fmt.Errorf("client hello: %w", err)
	}
	return h, nil
}

// readOnly is a connection of bytes that were read already.
type readOnly struct{ *bytes.Reader }

func (readOnly) Write(p []byte) (int, error)      { return len(p), nil }
func (readOnly) Close() error                     { return nil }
func (readOnly) LocalAddr() net.Addr              { return nil }
func (readOnly) RemoteAddr() net.Addr             { return nil }
func (readOnly) SetDeadline(time.Time) error      { return nil }
func (readOnly) SetReadDeadline(time.Time) error  { return nil }
func (readOnly) SetWriteDeadline(time.Time) error { return nil }

// unrecognizedName is the TLS alert (RFC 8446 section 6) for a way that leads nowhere.
var unrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

// noApplicationProtocol is the alert for a hello to a name of the cluster's own that names no protocol: programs of
// ours always do, so somebody between took it away.
var noApplicationProtocol = []byte{21, 3, 3, 0, 2, 2, 120}
