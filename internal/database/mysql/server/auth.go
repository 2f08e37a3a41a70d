package server

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"

	"github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/fault"
)

// The authentication plugins that the door answers.
const (
	NativePassword = "mysql_native_password"
	CachingSHA2    = "caching_sha2_password"
	sha256Password = "sha256_password"
	ed25519Plugin  = "client_ed25519"
	clearPassword  = "mysql_clear_password"
)

// authenticator answers the server for one database user, over TLS. Where there is no password the certificate that TLS
// showed has to do.
type authenticator struct {
	password string
	has      bool
	plugin   string
	nonce    []byte
}

// answer is what a plugin sends first.
func (a *authenticator) answer() ([]byte, error) {
	switch a.plugin {
	case NativePassword, "":
		if a.password == "" {
			return nil, nil
		}
		one := sha1.Sum([]byte(a.password))
		two := sha1.Sum(one[:])
		mix := sha1.Sum(append(append([]byte(nil), a.nonce...), two[:]...))
		return xor(one[:], mix[:]), nil
	case CachingSHA2:
		if a.password == "" {
			return nil, nil
		}
		one := sha256.Sum256([]byte(a.password))
		two := sha256.Sum256(one[:])
		mix := sha256.Sum256(append(append([]byte(nil), two[:]...), a.nonce...))
		return xor(one[:], mix[:]), nil
	case sha256Password, clearPassword: // TLS hides it, and has verified the server
		return append([]byte(a.password), 0), nil
	case ed25519Plugin:
		return signEd25519(a.password, a.nonce)
	}
	return nil, fault.New(fault.Unsupported, "the database server wants to authenticate the user by %s, which is not carried", fault.Plain(a.plugin)).
		WithReason(ReasonLogin).
		WithFix("make the user for a certificate (REQUIRE X509), or with %s, %s or ed25519", NativePassword, CachingSHA2)
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// converse goes on until the server lets the user in, and gives its OK packet, or does not.
func (a *authenticator) converse(s *Side) ([]byte, error) {
	for range 8 {
		b, err := s.Receive()
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			return nil, fmt.Errorf("%w: empty", mysql.ErrMalformed)
		}
		switch b[0] {
		case mysql.HeadOK:
			return b, nil
		case mysql.HeadErr:
			return nil, mysql.ParseError(b)
		case mysql.HeadEOF:
			if a.plugin, a.nonce, err = mysql.ParseAuthSwitch(b); err != nil {
				return nil, err
			}
			answer, err := a.answer()
			if err != nil {
				return nil, err
			}
			if err := s.SendNow(answer); err != nil {
				return nil, err
			}
		case mysql.HeadMore:
			if a.plugin != CachingSHA2 || len(b) != 2 {
				return nil, fmt.Errorf("%w: more of authentication by %q", mysql.ErrMalformed, a.plugin)
			}
			if b[1] == 4 { // its cache does not have the user: it wants the password, inside TLS
				if err := s.SendNow(append([]byte(a.password), 0)); err != nil {
					return nil, err
				}
			}
		default:
			return nil, fmt.Errorf("%w: 0x%02x while logging in", mysql.ErrMalformed, b[0])
		}
	}
	return nil, fmt.Errorf("%w: authentication without end", mysql.ErrMalformed)
}
