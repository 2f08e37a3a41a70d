package elevation

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

func good() Request {
	return Request{EK: device.EKRSA2048, Key: hwkey.File{Version: 1, Kind: device.TPM2, Parent: "81000001", Public: []byte{1}, Private: []byte{2}},
		Blob: []byte{3}, Encrypted: []byte{4}}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := send(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestA41_Requests refuses what is no request, each for one thing that is bad in it.
func TestA41_Requests(t *testing.T) {
	q, err := readRequest(bytes.NewReader(encode(t, good())))
	if err != nil || q.EK != device.EKRSA2048 || !bytes.Equal(q.Encrypted, []byte{4}) {
		t.Fatal(q, err)
	}
	long := make([]byte, maxPart+1)
	for name, change := range map[string]func(*Request){
		"another key":      func(q *Request) { q.EK = "rsa4096" },
		"a software key":   func(q *Request) { q.Key.Kind = device.Software },
		"an enrollment":    func(q *Request) { q.Key.Enrollment = &hwkey.Enrollment{} },
		"a path as parent": func(q *Request) { q.Key.Parent = `C:\Windows\System32\x` },
		"no blob":          func(q *Request) { q.Blob = nil },
		"no secret":        func(q *Request) { q.Encrypted = nil },
		"no key":           func(q *Request) { q.Key.Public = nil },
		"a long blob":      func(q *Request) { q.Blob = long },
	} {
		bad := good()
		change(&bad)
		if _, err := readRequest(bytes.NewReader(encode(t, bad))); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	frame := func(size int, text string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(size)), text...)
	}
	for name, raw := range map[string][]byte{
		"nothing": nil, "half a length": {0, 0}, "empty": frame(0, ""), "truncated": frame(10, "{}"), "too long": frame(maxMessage+1, "{}"),
		"huge": frame(1<<31, ""), "no JSON": frame(2, "ab"), "unknown field": frame(10, `{"path":1}`), "more behind": frame(6, `{}{}{}`),
	} {
		if _, err := readRequest(bytes.NewReader(raw)); err == nil {
			t.Errorf("%s was taken for a request", name)
		}
		if _, err := readAnswer(bytes.NewReader(raw)); err == nil {
			t.Errorf("%s was taken for an answer", name)
		}
	}
	if err := send(&bytes.Buffer{}, answer{Text: strings.Repeat("x", maxMessage)}); err == nil {
		t.Error("a message that is too long was sent")
	}
}

// TestAnswers carries secrets and faults.
func TestAnswers(t *testing.T) {
	got, err := readAnswer(bytes.NewReader(encode(t, told([]byte{5, 6}, nil))))
	if err != nil || !bytes.Equal(got, []byte{5, 6}) {
		t.Error(got, err)
	}
	_, err = readAnswer(bytes.NewReader(encode(t, told(nil, hwkey.ErrLockout))))
	if !fault.Because(err, "tpm_lockout") || fault.Of(err).Fix != hwkey.ErrLockout.Fix {
		t.Error(err)
	}
	_, err = readAnswer(bytes.NewReader(encode(t, told(nil, errors.New(strings.Repeat("x", 1<<20))))))
	if err == nil || fault.Of(err).Cause == "" || len(fault.Of(err).Cause) > 512 {
		t.Error(err)
	}
	for name, a := range map[string]answer{"nothing": {}, "a long secret": {Secret: make([]byte, maxSecret+1)}} {
		if _, err := readAnswer(bytes.NewReader(encode(t, a))); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(encode(f, good()))
	f.Add(encode(f, answer{Secret: []byte{1}}))
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := readRequest(bytes.NewReader(raw))
		if err == nil && (len(q.Blob) == 0 || len(q.Encrypted) > maxPart || q.Key.Kind != device.TPM2) {
			t.Error("took nonsense")
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(encode(f, answer{Secret: []byte{1}}))
	f.Add(encode(f, told(nil, hwkey.ErrCleared)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if secret, err := readAnswer(bytes.NewReader(raw)); err == nil && (len(secret) == 0 || len(secret) > maxSecret) {
			t.Error("took nonsense")
		}
	})
}
