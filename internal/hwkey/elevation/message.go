// Package elevation has a copy of this program with administrator's rights do the one thing that Windows lets only
// administrators do with a TPM: activate a credential.
//
// The unelevated program makes a named pipe of a random name, starts the copy through UAC, and sends it one request;
// the copy sends one answer, and both end. Neither believes the pipe's name alone: the pipe's rights name the person,
// administrators and the system; whoever makes it makes its first instance; the server looks at the process that
// connected, the copy at the process that made the pipe. The copy opens no file that it is told of.
//
//	request, answer   length, uint32 big-endian, at most 16 KiB, then so many bytes of JSON
package elevation

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// Request asks for a credential to be activated: TPM2_ActivateCredential of Blob and Encrypted for the wrapped device
// key, with the endorsement key of a name.
type Request struct {
	EK        device.EKName `json:"ek"`
	Key       hwkey.File    `json:"key"`
	Blob      []byte        `json:"blob"`
	Encrypted []byte        `json:"encrypted"`
}

// answer is the secret, or the fault that came in its place.
type answer struct {
	Secret []byte `json:"secret,omitempty"`
	Kind   string `json:"kind,omitempty"`
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

const (
	maxMessage = 16 << 10
	maxPart    = 4 << 10 // of a request: TPM structures, each below the TPM's own buffer
	maxSecret  = 64      // TPM2B_DIGEST
)

// send writes one message.
func send(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("elevation: %w", err)
	}
	if len(raw) > maxMessage {
		return fmt.Errorf("elevation: message of %d bytes", len(raw))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
	return err
}

// receive reads one message into v; fields that are not known are refused.
func receive(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("elevation: %w", err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > maxMessage {
		return fmt.Errorf("elevation: message of %d bytes", size)
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(r, raw); err != nil {
		return fmt.Errorf("elevation: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("elevation: %w", err)
	}
	if d.More() {
		return fmt.Errorf("elevation: bytes behind the message")
	}
	return nil
}

// readRequest reads a request and refuses one that does not ask for an activation.
func readRequest(r io.Reader) (Request, error) {
	var q Request
	if err := receive(r, &q); err != nil {
		return Request{}, err
	}
	if !slices.Contains([]device.EKName{device.EKRSA2048, device.EKP256, device.EKP384}, q.EK) || q.Key.Kind != device.TPM2 ||
		q.Key.Enrollment != nil || len(q.Key.Parent) > 16 {
		return Request{}, fmt.Errorf("elevation: not a request")
	}
	for _, part := range [][]byte{q.Key.Public, q.Key.Private, q.Blob, q.Encrypted} {
		if len(part) == 0 || len(part) > maxPart {
			return Request{}, fmt.Errorf("elevation: a part of %d bytes", len(part))
		}
	}
	return q, nil
}

// readAnswer reads what the copy answered: a secret, or its fault.
func readAnswer(r io.Reader) ([]byte, error) {
	var a answer
	if err := receive(r, &a); err != nil {
		return nil, err
	}
	if a.Text != "" {
		return nil, &fault.Error{Kind: fault.ParseKind(a.Kind), Reason: a.Reason, Text: a.Text, Cause: a.Cause, Fix: a.Fix}
	}
	if len(a.Secret) == 0 || len(a.Secret) > maxSecret {
		return nil, fmt.Errorf("elevation: a secret of %d bytes", len(a.Secret))
	}
	return a.Secret, nil
}

// told is the answer of a secret or an error.
func told(secret []byte, err error) answer {
	if err == nil {
		return answer{Secret: secret}
	}
	f := fault.Of(err)
	a := answer{Kind: f.Kind.String(), Reason: f.Reason, Text: f.Text, Cause: f.Cause, Fix: f.Fix}
	if f.Kind == fault.Internal {
		a.Text, a.Cause = "the credential could not be activated", cut(err.Error())
	}
	return a
}

func cut(s string) string { return s[:min(len(s), 512)] }

// The faults of an elevation.
var (
	ErrRefused = fault.New(fault.Denied, "administrator's rights were refused, and the TPM activates a credential for an administrator alone").
			WithReason("elevation_refused").WithFix("tsh device enroll --current-device   (and consent, or have an administrator do so)")
	ErrUnasked = fault.New(fault.Denied, "enrolling needs administrator's rights, and nobody was asked for them").
			WithReason("elevation_unasked").WithFix("tsh device enroll --current-device")
	ErrElevation = fault.New(fault.Unavailable, "no program with administrator's rights could be asked").
			WithReason("elevation_failed").WithFix("tsh device enroll --current-device   (from a prompt that was opened as administrator)")
)
