// Package event is the audit event: its kinds and codes, its JSON, and the hash chain that holds a writer's events
// together. The formats are in docs/protocol/audit.md.
package event

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/identity"
)

// Limits of one event. Free texts (message, command, query, path …) longer than MaxText bytes are cut by Normalize,
// with a mark, so that a long statement cannot keep itself out of the log; so are a statement's parameters longer than
// MaxParameter, and those behind the first MaxParameters bytes of them. Texts that JSON makes many times as long are cut
// further by Marshal.
const (
	MaxEvent      = 64 << 10
	MaxText       = 8 << 10
	MaxParameter  = 1 << 10
	MaxParameters = 4 << 10
	escapedText   = MaxText / 8
)

// Event is one thing that happened. In JSON it is a single flat object. Session, Action and Resource are optional
// groups of fields.
type Event struct {
	Kind    Kind      `json:"event"`
	Code    string    `json:"code"`
	Time    time.Time `json:"time"` // UTC
	UID     string    `json:"uid"`
	Cluster string    `json:"cluster_name"`
	User    string    `json:"user"`
	Success bool      `json:"success"`
	Message string    `json:"message"`
	Device  *Device   `json:"trusted_device,omitempty"`
	*Session
	*Action
	*Resource
}

// Device is the device that a user acted from.
type Device struct {
	ID           string `json:"device_id"`
	OSType       string `json:"os_type"`
	AssetTag     string `json:"asset_tag"`
	CredentialID string `json:"credential_id"`
}

// DeviceOf is a certificate's device, or nil.
func DeviceOf(d *identity.Device) *Device {
	if d == nil {
		return nil
	}
	return &Device{ID: d.ID, OSType: string(d.OS), AssetTag: d.AssetTag, CredentialID: d.CredentialID}
}

// Session says where something happened: the session, the agent, and the address the user came from.
type Session struct {
	SessionID  string `json:"sid,omitempty"`
	Login      string `json:"login,omitempty"`
	ServerID   string `json:"server_id,omitempty"` // the agent's host UUID; auth refuses another's
	ServerName string `json:"server_name,omitempty"`
	Addr       string `json:"addr,omitempty"`
	Protocol   string `json:"protocol,omitempty"`
	Reason     string `json:"reason,omitempty"` // a stable word: why it was refused, or why it ended
	Source     string `json:"source,omitempty"` // the role, lock or setting that decided
	Recording  string `json:"recording,omitempty"`
	MFADevice  string `json:"mfa_device,omitempty"` // of a login: the second factor, as locks name it
}

// Action says what was done.
type Action struct {
	Command   string `json:"command,omitempty"`
	ExitCode  *int   `json:"exit_code,omitempty"`
	Path      string `json:"path,omitempty"`
	Direction string `json:"direction,omitempty"` // upload or download
	Target    string `json:"target,omitempty"`    // of a port forwarding: HOST:PORT, or POD:PORT
	DBName    string `json:"db_name,omitempty"`
	DBUser    string `json:"db_user,omitempty"`
	Query     string `json:"db_query,omitempty"`
	// Parameters are a statement's, as text; what is no text as its hex.
	Parameters []string `json:"db_query_parameters,omitempty"`
	Verb       string   `json:"verb,omitempty"` // of a request: its method
	Status     int      `json:"status_code,omitempty"`
	*Traffic            // of a forwarded connection that is over
}

// Traffic is what passed through a forwarded connection.
type Traffic struct {
	Sent     int64 `json:"bytes_sent,omitempty"`     // by its user
	Received int64 `json:"bytes_received,omitempty"` // by its user
	Millis   int64 `json:"duration_ms,omitempty"`    // how long it took
}

// Resource says what was changed or reached.
type Resource struct {
	ResourceKind string     `json:"resource_kind,omitempty"`
	ResourceName string     `json:"resource_name,omitempty"`
	Roles        []string   `json:"roles,omitempty"`
	Expires      *time.Time `json:"expires,omitempty"`
	Attestation  string     `json:"attestation,omitempty"`
	CertSerial   string     `json:"cert_serial,omitempty"`
	Changes      []string   `json:"changes,omitempty"` // field names that an edit touched, never their values
}

// Complete fills in what its writer need not say, time, uid and cluster, and normalizes the event.
func (e *Event) Complete(cluster string, now func() time.Time) error {
	if e.Time.IsZero() {
		e.Time = now()
	}
	if e.UID == "" {
		e.UID = newUID()
	}
	if e.Cluster == "" {
		e.Cluster = cluster
	}
	return e.Normalize()
}

// newUID is a random UUID.
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	out := make([]byte, 0, 36)
	for i, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if i > 0 {
			out = append(out, '-')
		}
		out = hex.AppendEncode(out, part)
	}
	return string(out)
}

// Normalize completes an event for writing: the code that its kind and outcome have, UTC to the microsecond, texts no
// longer than MaxText. A kind that is not in the table, or has no code for that outcome, is an error.
func (e *Event) Normalize() error {
	code, err := e.Kind.Code(e.Success)
	if err != nil {
		return err
	}
	e.Code = code
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	e.cut(MaxText)
	return nil
}

// cut shortens the free texts, in copies of the groups that hold them.
func (e *Event) cut(to int) {
	cut(to, &e.Message)
	if s := e.Session; s != nil && longer(to, s.Login, s.ServerName, s.Addr, s.Reason, s.Source) {
		s := *s
		cut(to, &s.Login, &s.ServerName, &s.Addr, &s.Reason, &s.Source)
		e.Session = &s
	}
	if a := e.Action; a != nil && (len(a.Parameters) > 0 || longer(to, a.Command, a.Path, a.Target, a.DBName, a.DBUser, a.Query)) {
		a := *a
		cut(to, &a.Command, &a.Path, &a.Target, &a.DBName, &a.DBUser, &a.Query)
		if len(a.Parameters) > 0 {
			a.Parameters = cutParameters(a.Parameters, to)
		}
		e.Action = &a
	}
}

// cutParameters keeps, of texts of to bytes, an eighth for one parameter and half for all.
func cutParameters(all []string, to int) []string {
	one, rest := to*MaxParameter/MaxText, to*MaxParameters/MaxText
	out := make([]string, 0, min(len(all), 64))
	for i, p := range all {
		if rest <= 0 {
			return append(out, fmt.Sprintf("… (%d parameters more)", len(all)-i))
		}
		cut(min(one, rest), &p)
		out, rest = append(out, p), rest-len(p)-8 // what JSON puts around each
	}
	return out
}

// longer reports whether a text is longer than to bytes: most events have none, and are not copied.
func longer(to int, texts ...string) bool {
	for _, t := range texts {
		if len(t) > to {
			return true
		}
	}
	return false
}

func cut(to int, texts ...*string) {
	for _, t := range texts {
		if len(*t) <= to {
			continue
		}
		keep := to
		for keep > max(0, to-utf8.UTFMax) && !utf8.RuneStart((*t)[keep]) {
			keep--
		}
		*t = fmt.Sprintf("%s… (%d bytes more)", (*t)[:keep], len(*t)-keep)
	}
}

// Marshal gives the event's canonical JSON, which Parse takes.
func (e Event) Marshal() ([]byte, error) { return e.Append(make([]byte, 0, 768)) }

// Append is Marshal in the place of what buf has.
func (e Event) Append(buf []byte) ([]byte, error) {
	b, err := e.appendJSON(buf[:0])
	if err == nil && len(b) > MaxEvent { // control characters are six times as long in JSON
		e.cut(escapedText)
		b, err = e.appendJSON(b[:0])
	}
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	if len(b) > MaxEvent {
		return nil, fmt.Errorf("event of %d bytes is too large", len(b))
	}
	return b, nil
}

// Parse reads an event's JSON from outside: canonical (Canonical), of a kind that is known, with the code of that
// kind and outcome. Fields that this version does not know stay in the bytes and are not in the Event.
func Parse(b []byte) (Event, error) {
	if err := Canonical(b); err != nil {
		return Event{}, err
	}
	var e Event
	if err := json.Unmarshal(b, &e); err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	code, err := e.Kind.Code(e.Success)
	if err != nil {
		return Event{}, err
	}
	switch {
	case code != e.Code:
		return Event{}, fmt.Errorf("event %s has code %q, not %s", e.Kind, e.Code, code)
	case e.UID == "":
		return Event{}, errors.New("event has no uid")
	case e.Time.IsZero():
		return Event{}, errors.New("event has no time")
	}
	return e, nil
}

// Canonical refuses event bytes that do not survive a JSON encoder unchanged: the hash is over the bytes, so they
// must be the same on every way. An event is at most MaxEvent bytes of UTF-8, one object without insignificant white
// space, in which <, >, &, U+2028 and U+2029 are escaped as \u003c and so on.
func Canonical(b []byte) error {
	switch {
	case len(b) > MaxEvent:
		return fmt.Errorf("event of %d bytes is too large", len(b))
	case !utf8.Valid(b):
		return errors.New("event is not UTF-8")
	case len(b) == 0 || b[0] != '{':
		return errors.New("event is no object")
	}
	again, err := json.Marshal(json.RawMessage(b))
	if err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	if !bytes.Equal(again, b) {
		return errors.New("event is not in canonical form")
	}
	return nil
}
