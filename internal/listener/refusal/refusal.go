// Package refusal words why somebody gets no further in the protocol that they speak.
package refusal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// Of is a refusal in the protocol of a role's resource: an error that its clients show.
func Of(role identity.HostRole, p target.Protocol, f *fault.Error) []byte {
	switch {
	case role == identity.RoleKube:
		return kubeStatus(f)
	case p == target.PostgreSQL:
		return Postgres(f)
	case p == target.MySQL:
		return mysqlError(f)
	case p == target.Redis:
		return []byte("-ERR " + strings.ReplaceAll(sentence(f), "\n", " ") + "\r\n")
	}
	return nil
}

// sentence is a fault in one line.
func sentence(f *fault.Error) string {
	s := f.Text
	if f.Cause != "" {
		s += ": " + f.Cause
	}
	if f.Fix != "" {
		s += " (to fix: " + f.Fix + ")"
	}
	return s
}

// Postgres is an ErrorResponse (PostgreSQL protocol 3.0, "Message Formats"), FATAL, 08006.
func Postgres(f *fault.Error) []byte {
	var body []byte
	field := func(code byte, v string) {
		if v != "" {
			body = append(append(append(body, code), strings.ReplaceAll(v, "\x00", "")...), 0)
		}
	}
	field('S', "FATAL")
	field('V', "FATAL")
	field('C', "08006")
	field('M', f.Text)
	field('D', f.Cause)
	field('H', f.Fix)
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(body)+4)), body...)
}

// mysqlError is an ERR packet in place of the greeting: error 2013, as for a server that is gone. Before the handshake
// there is no SQL state in it.
func mysqlError(f *fault.Error) []byte {
	body := append([]byte{0xff, 0xdd, 0x07}, sentence(f)...)
	return append([]byte{byte(len(body)), byte(len(body) >> 8), byte(len(body) >> 16), 0}, body...)
}

// kubeStatus is a Kubernetes Status object in an HTTP answer.
func kubeStatus(f *fault.Error) []byte {
	raw, _ := json.Marshal(map[string]any{"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"message": sentence(f), "reason": "ServiceUnavailable", "code": 503})
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(raw), raw)
}
