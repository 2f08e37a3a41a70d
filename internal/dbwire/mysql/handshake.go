package mysql

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Capability is what both sides can do: MySQL's flags, and MariaDB's from bit 32 on.
type Capability uint64

// The capabilities that are named here.
const (
	LongPassword     Capability = 1 << 0 // MariaDB calls it CLIENT_MYSQL: without it bits 32 and up are in use
	FoundRows        Capability = 1 << 1
	LongFlag         Capability = 1 << 2
	ConnectWithDB    Capability = 1 << 3
	Compress         Capability = 1 << 5
	LocalFiles       Capability = 1 << 7
	IgnoreSpace      Capability = 1 << 8
	Protocol41       Capability = 1 << 9
	Interactive      Capability = 1 << 10
	TLS              Capability = 1 << 11
	IgnoreSigpipe    Capability = 1 << 12
	Transactions     Capability = 1 << 13
	SecureConnection Capability = 1 << 15
	MultiStatements  Capability = 1 << 16
	MultiResults     Capability = 1 << 17
	PSMultiResults   Capability = 1 << 18
	PluginAuth       Capability = 1 << 19
	ConnectAttrs     Capability = 1 << 20
	AuthLenenc       Capability = 1 << 21
	ExpiredPasswords Capability = 1 << 22
	SessionTrack     Capability = 1 << 23
	DeprecateEOF     Capability = 1 << 24
	StmtBulk         Capability = 1 << 34
	ExtendedMetadata Capability = 1 << 35
)

// Known are the capabilities under which this package understands what is sent; others (compression, files of the
// client's, query attributes, progress reports, cached metadata) must not be agreed on.
const Known = LongPassword | FoundRows | LongFlag | ConnectWithDB | IgnoreSpace | Protocol41 | Interactive |
	IgnoreSigpipe | Transactions | SecureConnection | MultiStatements | MultiResults | PSMultiResults | PluginAuth |
	ConnectAttrs | AuthLenenc | ExpiredPasswords | SessionTrack | DeprecateEOF | StmtBulk | ExtendedMetadata

// NonceLen is the length of what passwords are mixed with.
const NonceLen = 20

// Greeting is the server's first packet.
type Greeting struct {
	Version      string
	Thread       uint32
	Nonce        []byte
	Capabilities Capability
	Charset      byte
	Status       uint16
	Plugin       string
}

// ParseGreeting reads a greeting of protocol 10. An error packet in its place is an *Error.
func ParseGreeting(b []byte) (Greeting, error) {
	var g Greeting
	if len(b) > 0 && b[0] == HeadErr {
		return g, ParseError(b)
	}
	c := cursor{b: b}
	if v := c.uint(1); v != 10 {
		return g, fmt.Errorf("%w: a greeting of protocol %d", ErrMalformed, v)
	}
	g.Version, g.Thread = c.terminated(), uint32(c.uint(4))
	g.Nonce = append(g.Nonce, c.take(8)...)
	c.take(1)
	caps := c.uint(2)
	g.Charset, g.Status = byte(c.uint(1)), uint16(c.uint(2))
	caps |= c.uint(2) << 16
	n := int(c.uint(1))
	c.take(6)
	more := c.uint(4)
	if Capability(caps)&LongPassword == 0 {
		caps |= more << 32
	}
	g.Capabilities = Capability(caps)
	g.Nonce = append(g.Nonce, c.take(max(13, n-8))...)
	if g.Capabilities&PluginAuth != 0 {
		g.Plugin = c.last()
	}
	if err := c.err("greeting"); err != nil {
		return Greeting{}, err
	}
	if n := len(g.Nonce); g.Nonce[n-1] == 0 { // the nonce's terminator
		g.Nonce = g.Nonce[:n-1]
	}
	return g, nil
}

// Append appends the greeting's payload; the nonce is of NonceLen.
func (g Greeting) Append(dst []byte) []byte {
	dst = append(append(append(dst, 10), g.Version...), 0)
	dst = binary.LittleEndian.AppendUint32(dst, g.Thread)
	dst = append(append(dst, g.Nonce[:8]...), 0)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(g.Capabilities))
	dst = append(dst, g.Charset)
	dst = binary.LittleEndian.AppendUint16(dst, g.Status)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(g.Capabilities>>16))
	dst = append(dst, NonceLen+1, 0, 0, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(g.Capabilities>>32))
	dst = append(append(dst, g.Nonce[8:NonceLen]...), 0)
	return append(append(dst, g.Plugin...), 0)
}

// Login is the client's answer to the greeting.
type Login struct {
	Capabilities Capability
	MaxPacket    uint32
	Charset      byte
	User         string
	Auth         []byte
	Database     string
	Plugin       string
	Attributes   []byte // as they were sent, without their length
}

// ParseLogin reads a login of protocol 4.1.
func ParseLogin(b []byte) (Login, error) {
	var l Login
	c := cursor{b: b}
	caps := c.uint(4)
	l.Capabilities = Capability(caps)
	if !c.bad && l.Capabilities&Protocol41 == 0 {
		return l, fmt.Errorf("%w: a client older than protocol 4.1", ErrMalformed)
	}
	l.MaxPacket, l.Charset = uint32(c.uint(4)), byte(c.uint(1))
	c.take(19)
	if more := c.uint(4); l.Capabilities&LongPassword == 0 {
		l.Capabilities |= Capability(more << 32)
	}
	l.User = c.terminated()
	switch {
	case l.Capabilities&AuthLenenc != 0:
		l.Auth = c.text()
	case l.Capabilities&SecureConnection != 0:
		l.Auth = c.take(int(c.uint(1)))
	default:
		l.Auth = []byte(c.terminated())
	}
	if l.Capabilities&ConnectWithDB != 0 {
		l.Database = c.last()
	}
	if l.Capabilities&PluginAuth != 0 {
		l.Plugin = c.last()
	}
	if l.Capabilities&ConnectAttrs != 0 && len(c.b) > 0 {
		l.Attributes = c.text()
	}
	if err := c.err("login"); err != nil {
		return Login{}, err
	}
	return l, nil
}

// AppendTLSRequest appends the payload by which a client begins TLS: a login's first 32 bytes.
func (l Login) AppendTLSRequest(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(l.Capabilities))
	dst = binary.LittleEndian.AppendUint32(dst, l.MaxPacket)
	dst = append(append(dst, l.Charset), make([]byte, 19)...)
	return binary.LittleEndian.AppendUint32(dst, uint32(l.Capabilities>>32))
}

// Append appends the login's payload. The capabilities say what of it is sent; AuthLenenc must be there for an Auth
// longer than 255 bytes.
func (l Login) Append(dst []byte) []byte {
	dst = l.AppendTLSRequest(dst)
	dst = append(append(dst, l.User...), 0)
	if l.Capabilities&AuthLenenc != 0 {
		dst = appendLenenc(dst, uint64(len(l.Auth)))
	} else {
		dst = append(dst, byte(len(l.Auth)))
	}
	dst = append(dst, l.Auth...)
	if l.Capabilities&ConnectWithDB != 0 {
		dst = append(append(dst, l.Database...), 0)
	}
	if l.Capabilities&PluginAuth != 0 {
		dst = append(append(dst, l.Plugin...), 0)
	}
	if l.Capabilities&ConnectAttrs != 0 {
		dst = append(appendLenenc(dst, uint64(len(l.Attributes))), l.Attributes...)
	}
	return dst
}

// ParseChangeUser reads the arguments of COM_CHANGE_USER, as a login with User, Auth, Database, Charset, Plugin and
// Attributes.
func ParseChangeUser(b []byte, caps Capability) (Login, error) {
	l := Login{Capabilities: caps}
	c := cursor{b: b}
	l.User = c.terminated()
	l.Auth = c.take(int(c.uint(1)))
	l.Database = c.terminated()
	if len(c.b) > 0 {
		l.Charset = byte(c.uint(2))
	}
	if caps&PluginAuth != 0 && len(c.b) > 0 {
		l.Plugin = c.last()
	}
	if caps&ConnectAttrs != 0 && len(c.b) > 0 {
		l.Attributes = c.text()
	}
	if err := c.err("change of user"); err != nil {
		return Login{}, err
	}
	return l, nil
}

// AppendAuthSwitch appends the payload that asks a client to use another plugin.
func AppendAuthSwitch(dst []byte, plugin string, nonce []byte) []byte {
	dst = append(append(append(dst, HeadEOF), plugin...), 0)
	return append(append(dst, nonce...), 0)
}

// ParseAuthSwitch reads such a payload; one of a single byte asks for the old password hash, which is an error.
func ParseAuthSwitch(b []byte) (plugin string, nonce []byte, err error) {
	c := cursor{b: b}
	if len(b) < 2 || c.uint(1) != HeadEOF {
		return "", nil, fmt.Errorf("%w: authentication switch", ErrMalformed)
	}
	plugin = c.terminated()
	nonce = c.b
	if n := len(nonce); n > 0 && nonce[n-1] == 0 {
		nonce = nonce[:n-1]
	}
	return plugin, nonce, c.err("authentication switch")
}

// PlainName reports whether a server reads a name as it is written, in a client's character set (a collation's number): ASCII in
// most, all of Unicode where names are UTF-8 on the wire (utf8mb3 and utf8mb4).
func PlainName(charset byte, name string) bool {
	const swe7A, swe7B = 10, 82 // Swedish letters in place of ASCII's brackets
	if charset == swe7A || charset == swe7B {
		return false
	}
	n := charset
	utf8 := n == 33 || n == 45 || n == 46 || n == 76 || n == 83 || n >= 192 && n <= 215 || n >= 223
	return utf8 || !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' })
}
