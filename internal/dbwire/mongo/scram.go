package mongo

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
)

// Bounds of SCRAM's iteration count: fewer are weak, more cost too much.
const (
	minIterations = 4096
	maxIterations = 1 << 20
)

// Scram is one side of a SCRAM-SHA-256 exchange (RFC 5802, RFC 7677) without channel binding. Passwords are taken as they
// are, which for ASCII is what SASLprep makes of them.
type Scram struct {
	password  string
	nonce     string // the client's
	bare      string // the client's first message without its head
	challenge string // the server's first message
	signature []byte // that the server's last message must have
}

// NewScramClient makes a client's side; nonce is fresh and printable. first is its first message.
func NewScramClient(user, password, nonce string) (s *Scram, first string) {
	s = &Scram{password: password, nonce: nonce, bare: "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",r=" + nonce}
	return s, "n,," + s.bare
}

// keys are what both sides make of the exchange.
func (s *Scram) keys(salt []byte, iterations int, final string) (proof, signature []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, s.password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	message := s.bare + "," + s.challenge + "," + final
	client := mac(salted, "Client Key")
	stored := sha256.Sum256(client)
	proof = mac(stored[:], message)
	for i := range proof {
		proof[i] ^= client[i]
	}
	return proof, mac(mac(salted, "Server Key"), message), nil
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

// fields reads `x=…,y=…` of exactly these names, in this order; what follows is left.
func fields(message string, names string) ([]string, bool) {
	var out []string
	for _, name := range names {
		var part string
		part, message, _ = strings.Cut(message, ",")
		if len(part) < 2 || part[0] != byte(name) || part[1] != '=' {
			return nil, false
		}
		out = append(out, part[2:])
	}
	return out, true
}

// Answer is the client's last message, to the server's first.
func (s *Scram) Answer(challenge string) (string, error) {
	f, ok := fields(challenge, "rsi")
	if !ok || !strings.HasPrefix(f[0], s.nonce) || len(f[0]) == len(s.nonce) {
		return "", malformed("a SCRAM challenge")
	}
	salt, err := base64.StdEncoding.DecodeString(f[1])
	n, nerr := strconv.Atoi(f[2])
	if err != nil || nerr != nil || n < minIterations || n > maxIterations {
		return "", malformed("a SCRAM challenge's salt or count")
	}
	s.challenge = challenge
	final := "c=biws,r=" + f[0]
	proof, signature, err := s.keys(salt, n, final)
	if err != nil {
		return "", err
	}
	s.signature = signature
	return final + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// Verify holds that the server knows the password too, by its last message.
func (s *Scram) Verify(last string) error {
	f, ok := fields(last, "v")
	if ok {
		got, err := base64.StdEncoding.DecodeString(f[0])
		if err == nil && s.signature != nil && subtle.ConstantTimeCompare(got, s.signature) == 1 {
			return nil
		}
	}
	return malformed("a SCRAM server that does not know the password")
}

// NewScramServer takes a client's first message, and gives its user and the server's first message; salt and nonce are
// fresh.
func NewScramServer(first, password string, salt []byte, nonce string) (s *Scram, user, challenge string, err error) {
	bare, ok := strings.CutPrefix(first, "n,,")
	f, fok := fields(bare, "nr")
	if !ok || !fok || f[1] == "" {
		return nil, "", "", malformed("a SCRAM client's first message")
	}
	user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(f[0])
	s = &Scram{password: password, nonce: f[1] + nonce, bare: bare}
	s.challenge = "r=" + s.nonce + ",s=" + base64.StdEncoding.EncodeToString(salt) + ",i=" + strconv.Itoa(minIterations)
	return s, user, s.challenge, nil
}

// Finish takes the client's last message and gives the server's, where the password was the right one.
func (s *Scram) Finish(final string, salt []byte) (string, bool) {
	f, ok := fields(final, "crp")
	if !ok || f[0] != "biws" || f[1] != s.nonce {
		return "", false
	}
	got, err := base64.StdEncoding.DecodeString(f[2])
	proof, signature, kerr := s.keys(salt, minIterations, "c="+f[0]+",r="+f[1])
	if err != nil || kerr != nil || subtle.ConstantTimeCompare(got, proof) != 1 {
		return "", false
	}
	return "v=" + base64.StdEncoding.EncodeToString(signature), true
}
