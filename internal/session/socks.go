package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// socksTime is how long a program has to say where it wants to go.
const socksTime = 10 * time.Second

// readSOCKS reads a SOCKS5 CONNECT without authentication (RFC 1928 sections 3 and 4) and returns HOST:PORT. It reads
// nothing behind it, and answers the greeting but not the request.
func readSOCKS(rw io.ReadWriter) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return "", err
	}
	if head[0] != 5 {
		return "", fmt.Errorf("SOCKS version %d", head[0])
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(rw, methods); err != nil {
		return "", err
	}
	if !slices.Contains(methods, 0) {
		_, _ = rw.Write([]byte{5, 0xff})
		return "", errors.New("no acceptable SOCKS method")
	}
	if _, err := rw.Write([]byte{5, 0}); err != nil {
		return "", err
	}
	var request [4]byte
	if _, err := io.ReadFull(rw, request[:]); err != nil {
		return "", err
	}
	if request[0] != 5 || request[1] != 1 || request[2] != 0 {
		_, _ = rw.Write([]byte{5, 7, 0, 1, 0, 0, 0, 0, 0, 0})
		return "", errors.New("not a SOCKS CONNECT")
	}
	host, err := readSOCKSHost(rw, request[3])
	if err != nil {
		return "", err
	}
	var port [2]byte
	if _, err := io.ReadFull(rw, port[:]); err != nil {
		return "", err
	}
	n := int(port[0])<<8 | int(port[1])
	if n == 0 {
		return "", errors.New("port 0")
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

func readSOCKSHost(r io.Reader, kind byte) (string, error) {
	size := 0
	switch kind {
	case 1:
		size = 4
	case 4:
		size = 16
	case 3:
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return "", err
		}
		size = int(n[0])
	default:
		return "", fmt.Errorf("SOCKS address type %d", kind)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	if kind != 3 {
		a, _ := netip.AddrFromSlice(b)
		return a.String(), nil
	}
	if len(b) == 0 || !hostName(string(b)) {
		return "", errors.New("a SOCKS host that is no name")
	}
	return string(b), nil
}

// socksReply answers the request (RFC 1928 section 6).
func socksReply(err error) []byte {
	code := byte(0)
	var refused *Refused
	switch {
	case errors.As(err, &refused):
		code = 2 // not allowed by ruleset
	case err != nil:
		code = 5
	}
	return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0}
}
