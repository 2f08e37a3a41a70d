package login

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// One-time codes are TOTP (RFC 6238) with SHA-1, six digits and steps of 30 seconds, which is what every
// authenticator app takes; one step before and after is let pass for clocks that differ.
const (
	otpStep   = 30
	otpDigits = 1_000_000
	otpDrift  = 1
)

// NewOTP makes a secret of 160 bits (RFC 4226 section 4, R6).
func NewOTP() []byte {
	b := make([]byte, 20)
	rand.Read(b)
	return b
}

// OTPURL is the otpauth:// URL that authenticator apps read.
func OTPURL(cluster, user string, secret []byte) string {
	q := url.Values{"secret": {base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)}, "issuer": {cluster}}
	return (&url.URL{Scheme: "otpauth", Host: "totp", Path: "/" + cluster + ":" + user, RawQuery: q.Encode()}).String()
}

// otpAt is the code of a step (RFC 4226 section 5.3).
func otpAt(secret []byte, step int64) string {
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(step))
	h := hmac.New(sha1.New, secret)
	h.Write(counter[:])
	sum := h.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[at:at+4])&0x7fffffff)%otpDigits)
}

// OTP is the code of a moment, for tests and scripts that hold the secret.
func OTP(secret []byte, at time.Time) string { return otpAt(secret, at.Unix()/otpStep) }

// CheckOTP finds the step of a code that is later than the last step that was taken; a code is good once.
func CheckOTP(secret []byte, code string, last int64, now time.Time) (step int64, ok bool) {
	code = strings.ReplaceAll(strings.TrimSpace(code), " ", "")
	current := now.Unix() / otpStep
	for s := current - otpDrift; s <= current+otpDrift; s++ {
		same := subtle.ConstantTimeCompare([]byte(otpAt(secret, s)), []byte(code)) == 1
		if same && len(secret) > 0 && s > last {
			step, ok = s, true
		}
	}
	return step, ok
}
