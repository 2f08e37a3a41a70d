// Package ask reads what SSH clients ask of a node (RFC 4254), and refuses what means nothing.
package ask

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/shell"
)

// maxTerminalType bounds TERM.
const maxTerminalType = 64

// Terminal reads a pty-req (section 6.2). A TERM that would be no word is dumb.
func Terminal(payload []byte) (*shell.Terminal, bool) {
	var m struct {
		Type                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if ssh.Unmarshal(payload, &m) != nil {
		return nil, false
	}
	if len(m.Type) > maxTerminalType || strings.ContainsFunc(m.Type, func(r rune) bool { return r <= ' ' || r > '~' }) {
		m.Type = "dumb"
	}
	return &shell.Terminal{Type: m.Type, Modes: []byte(m.Modes), Size: shell.Size{Columns: m.Columns, Rows: m.Rows, Width: m.Width, Height: m.Height}}, true
}

// Echoes reports whether a terminal with these modes (section 8) begins by showing what is typed.
func Echoes(modes []byte) bool {
	const echo = 53
	on := true
	for len(modes) >= 5 && modes[0] > 0 && modes[0] < 160 {
		if modes[0] == echo {
			on = binary.BigEndian.Uint32(modes[1:5]) != 0
		}
		modes = modes[5:]
	}
	return on
}

// Copy reads the far side's command of `scp -O`: scp with -t (to here) or -f (from here), and a path.
func Copy(command string) (path, direction string, ok bool) {
	words := strings.Fields(command)
	if len(words) < 3 || (words[0] != "scp" && !strings.HasSuffix(words[0], "/scp")) {
		return "", "", false
	}
	for _, w := range words[1:] {
		switch {
		case w == "-t":
			direction = "upload"
		case w == "-f":
			direction = "download"
		}
	}
	return words[len(words)-1], direction, direction != ""
}

// Direct reads the target of a direct-tcpip channel (section 7.2), as HOST:PORT.
func Direct(payload []byte) (string, error) {
	var m struct {
		Host       string
		Port       uint32
		Originator string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(payload, &m); err != nil {
		return "", errors.New("malformed request")
	}
	if m.Port == 0 || m.Port > 65535 {
		return "", fmt.Errorf("%d is no port", m.Port)
	}
	if m.Host == "" || len(m.Host) > 255 || strings.ContainsFunc(m.Host, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/[]", r) }) {
		return "", fmt.Errorf("%.40q is no host", m.Host)
	}
	return net.JoinHostPort(m.Host, strconv.FormatUint(uint64(m.Port), 10)), nil
}

// Forward is what a tcpip-forward (section 7.1) asks for.
type Forward struct {
	Address string
	Port    uint32
}

// Key names what was asked for.
func (f Forward) Key() string { return net.JoinHostPort(f.Address, strconv.Itoa(int(f.Port))) }

// Bind is where to listen: at the loopback unless an address was asked for, as any login could itself.
func (f Forward) Bind() (network, address string, err error) {
	host := f.Address
	switch host {
	case "", "localhost", "*": // OpenSSH sends "" for *, and its server too keeps to the loopback then
		host = "127.0.0.1"
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return "", "", fmt.Errorf("%.40q is no address to listen on", f.Address)
	}
	network = "tcp"
	if a.Is4() { // else 0.0.0.0 is every IPv6 address too
		network = "tcp4"
	}
	return network, netip.AddrPortFrom(a, uint16(f.Port)).String(), nil
}
