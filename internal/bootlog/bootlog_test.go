package bootlog

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-attestation/attest"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/swtpm/firmware"
)

// quoted is what a TPM would quote after a log.
func quoted(t testing.TB, log []byte) []byte {
	t.Helper()
	l, err := Parse(log)
	if err != nil {
		t.Fatalf("%v: %s", err, fault.Of(err).Cause)
	}
	var out []byte
	for _, pcr := range PCRs {
		v := l.Replay(pcr)
		out = append(out, v[:]...)
	}
	return out
}

// machines are the recorded logs with their PCRs.
func machines(t testing.TB) (logs map[string][]byte, pcrs map[string]map[int][]byte) {
	t.Helper()
	raw, err := os.ReadFile("testdata/pcrs.json")
	if err != nil {
		t.Fatal(err)
	}
	var text map[string]map[int]string
	if err := json.Unmarshal(raw, &text); err != nil {
		t.Fatal(err)
	}
	logs, pcrs = map[string][]byte{}, map[string]map[int][]byte{}
	for name, values := range text {
		if logs[name], err = os.ReadFile(filepath.Join("testdata", name)); err != nil {
			t.Fatal(err)
		}
		pcrs[name] = map[int][]byte{}
		for _, pcr := range PCRs {
			pcrs[name][pcr] = make([]byte, sha256.Size)
			if b, _ := hex.DecodeString(values[pcr]); len(b) > 0 {
				pcrs[name][pcr] = b
			}
		}
	}
	return logs, pcrs
}

// TestRecorded judges logs of real machines, and compares with a stranger's judgement (go-attestation). One firmware
// measured SecureBoot without a value, which says nothing.
func TestRecorded(t *testing.T) {
	want := map[string]string{"rhel8-uefi.bin": "on", "cos-101-amd-sev.bin": "on", "ubuntu-2104-no-secure-boot.bin": "off",
		"arch-linux-workstation.bin": "", "glinux-alex.bin": "off"}
	logs, pcrs := machines(t)
	if len(logs) != len(want) {
		t.Fatalf("%d logs", len(logs))
	}
	for name, log := range logs {
		var quote []byte
		var theirs []attest.PCR
		for _, pcr := range PCRs {
			quote = append(quote, pcrs[name][pcr]...)
			theirs = append(theirs, attest.PCR{Index: pcr, Digest: pcrs[name][pcr], DigestAlg: crypto.SHA256})
		}
		v, err := Judge(log, quote)
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, fault.Of(err).Cause)
			continue
		}
		if (v.SecureBoot == nil) != (want[name] == "") || v.SecureBoot != nil && *v.SecureBoot != (want[name] == "on") {
			t.Errorf("%s: Secure Boot %v (%s), want %s", name, v.SecureBoot, v.Doubt, want[name])
		}
		if len(v.Values) < 8 {
			t.Errorf("%s: only %d PCRs replay", name, len(v.Values))
		}
		parsed, err := attest.ParseEventLog(log)
		if err != nil {
			t.Fatal(err)
		}
		events, err := parsed.Verify(theirs)
		if err != nil {
			t.Errorf("%s: the stranger's replay: %v", name, err)
			continue
		}
		state, err := attest.ParseSecurebootState(events)
		if err != nil {
			t.Logf("%s: the stranger's Secure Boot: %v", name, err)
		} else if state.Enabled != (want[name] == "on") {
			t.Errorf("%s: the stranger says Secure Boot %t", name, state.Enabled)
		}
		for i, pcr := range PCRs[:8] { // each PCR counts
			bad := bytes.Clone(quote)
			bad[32*i+31] ^= 1
			if _, err := Judge(log, bad); !fault.Because(err, "eventlog_replay") {
				t.Errorf("%s: another PCR %d: %v", name, pcr, err)
			}
		}
	}
}

// TestGenerated judges what the tests' own firmware writes.
func TestGenerated(t *testing.T) {
	for _, on := range []bool{true, false} {
		log := firmware.Log(firmware.Boot{SecureBoot: on, Loader: "shim", DBX: 5000}.Events())
		v, err := Judge(log, quoted(t, log))
		if err != nil || v.SecureBoot == nil || *v.SecureBoot != on || len(v.Values) != len(PCRs) {
			t.Errorf("%t: %+v %v", on, v, err)
		}
		padded := append(bytes.Clone(log), make([]byte, 100)...)
		if v, err := Judge(padded, quoted(t, log)); err != nil || v.SecureBoot == nil {
			t.Errorf("padded: %v", err)
		}
	}
	// What the running system extends into PCR 9 leaves that PCR out, and no more.
	log := firmware.Log(firmware.Boot{}.Events())
	q := quoted(t, log)
	q[32*slices.Index(PCRs, 9)] ^= 1
	v, err := Judge(log, q)
	if _, has := v.Values[9]; err != nil || has || len(v.Values) != len(PCRs)-1 {
		t.Errorf("%+v %v", v, err)
	}
}

// TestStartupLocality: PCR 0 begins with the locality of the start.
func TestStartupLocality(t *testing.T) {
	e := firmware.Event{PCR: 0, Type: firmware.NoAction, Data: append([]byte("StartupLocality\x00"), 3)}
	list := append([]firmware.Event{e}, firmware.Boot{}.Events()...)
	log, plain := firmware.Log(list), firmware.Log(list[1:])
	if bytes.Equal(quoted(t, log)[:32], quoted(t, plain)[:32]) {
		t.Error("the locality does not count")
	}
	twice := firmware.Log(append([]firmware.Event{e}, list...))
	if _, err := Parse(twice); !fault.Because(err, "eventlog_malformed") {
		t.Error(err)
	}
}

// TestA42_Logs: logs that are cut, that lie about sizes, that leave out or change what was measured.
func TestA42_Logs(t *testing.T) {
	list := firmware.Boot{SecureBoot: true, Loader: "shim"}.Events()
	log := firmware.Log(list)
	good := quoted(t, log)
	set := func(at int, v uint32) []byte {
		b := bytes.Clone(log)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	header := len(firmware.Header())
	// Behind the header: pcr, type, count, (alg, 20), (alg, 32), size.
	rows := []struct {
		name   string
		log    []byte
		reason string
	}{
		{"empty", nil, "eventlog_empty"},
		{"too large", make([]byte, MaxLog+1), "eventlog_size"},
		{"first event of 4 GiB", set(28, 0xffffffff), "eventlog_truncated"},
		{"4 Gi algorithms", set(32+24, 0xffffffff), "eventlog_malformed"},
		{"no algorithm", set(32+24, 0), "eventlog_malformed"},
		{"first event of another type", set(4, 4), "eventlog_sha1"},
		{"old form", append(bytes.Clone(log[:28]), 0, 0, 0, 0), "eventlog_sha1"},
		{"SHA-256 of 20 bytes", set(32+28+4, 20<<16|0x0b), "eventlog_sha1"},
		{"SHA-1 twice", set(32+28+4, 20<<16|4), "eventlog_malformed"},
		{"PCR 24", set(header, 24), "eventlog_malformed"},
		{"PCR 4 Gi", set(header, 0xffffffff), "eventlog_malformed"},
		{"4 Gi digests", set(header+8, 0xffffffff), "eventlog_malformed"},
		{"no digest", set(header+8, 0), "eventlog_sha1"},
		{"event of 4 GiB", set(header+12+22+34, 0xffffffff), "eventlog_truncated"},
		{"an event more", firmware.Append(bytes.Clone(log), list[0], list[0].Digest()), "eventlog_replay"},
		{"an event less", firmware.Log(list[:len(list)-4]), "eventlog_replay"},
		{"another order in a PCR", firmware.Log(append(slices.Clone(list[2:]), list[:2]...)), "eventlog_replay"},
		{"another boot", firmware.Log(firmware.Boot{SecureBoot: true, Loader: "other"}.Events()), "eventlog_replay"},
		{"Secure Boot on, as it were", firmware.Log(firmware.Boot{SecureBoot: false, Loader: "shim"}.Events()), "eventlog_replay"},
	}
	for _, r := range rows {
		v, err := Judge(r.log, good)
		if !fault.Because(err, r.reason) {
			t.Errorf("%s: %v (%s), want %s", r.name, err, fault.Of(orNil(err)).Reason, r.reason)
		}
		if v.SecureBoot != nil || v.Values != nil {
			t.Errorf("%s: it proves %+v", r.name, v)
		}
	}
	for n := range log { // cut anywhere
		if v, err := Judge(log[:n], good); err == nil || v.SecureBoot != nil {
			if len(quoted(t, log[:n])) != len(good) || !bytes.Equal(quoted(t, log[:n])[:256], good[:256]) {
				t.Fatalf("cut at %d: %+v", n, v)
			}
		}
	}
	for _, n := range []int{0, 31, len(good) - 1, len(good) + 1} {
		if _, err := Judge(log, append(bytes.Clone(good), 0)[:min(n, len(good)+1)]); err == nil {
			t.Errorf("%d bytes of PCRs", n)
		}
	}
}

func orNil(err error) error {
	if err == nil {
		return fault.New(fault.Internal, "none").WithReason("accepted")
	}
	return err
}

// TestA42_SecureBoot: who rules the running system extends PCR 7 as they like, and writes any log that replays to it. A
// state is told only where the firmware alone can have measured it.
func TestA42_SecureBoot(t *testing.T) {
	off := firmware.Boot{}.Events()
	on := firmware.Boot{SecureBoot: true}.Events()
	state := func(v ...byte) firmware.Event {
		return firmware.Event{PCR: 7, Type: firmware.VariableConfig, Data: firmware.Variable("SecureBoot", v)}
	}
	separator := firmware.Event{PCR: 7, Type: firmware.Separator, Data: []byte{0, 0, 0, 0}}
	insert := func(list []firmware.Event, i int, e ...firmware.Event) []firmware.Event {
		return slices.Insert(slices.Clone(list), i, e...)
	}
	change := func(list []firmware.Event, i int, f func(*firmware.Event)) []firmware.Event {
		list = slices.Clone(list)
		f(&list[i])
		return list
	}
	keys := on[1:6]
	relabelled := func(hide func(*firmware.Event)) []firmware.Event {
		list := change(off, 1, hide)
		for i := range list {
			if list[i].PCR == 7 && list[i].Type == firmware.Separator {
				list[i].Type = firmware.Action // the real separator passes for something else
			}
		}
		return append(append(list, keys...), separator)
	}
	rows := []struct {
		name  string
		list  []firmware.Event
		state string // on, off, or nothing
	}{
		{"as it is", on, "on"},
		{"on behind the separator", append(slices.Clone(off), state(1)), "off"},
		{"on behind a separator called otherwise", relabelled(func(*firmware.Event) {}), "off"},
		{"off called an action, then on and a separator", relabelled(func(e *firmware.Event) { e.Type = firmware.Action }), "off"},
		{"off with its data hidden, then on and a separator", relabelled(func(e *firmware.Event) { e.Measured, e.Data = e.Data, []byte("x") }), ""},
		{"off with the data of on", change(on, 1, func(e *firmware.Event) { e.Measured, e.Data = state(0).Data, state(1).Data }), ""},
		{"off with no data, then on and a separator", relabelled(func(e *firmware.Event) { e.Measured, e.Data = e.Data, nil }), ""},
		{"twice", insert(on, 2, state(1)), ""},
		{"off, then on", insert(off, 2, state(1)), ""},
		{"on without keys", slices.DeleteFunc(slices.Clone(on), func(e firmware.Event) bool { return bytes.Contains(e.Data, []byte("platform key")) }), ""},
		{"two bytes", change(on, 1, func(e *firmware.Event) { *e = state(1, 1) }), ""},
		{"no byte", change(on, 1, func(e *firmware.Event) { *e = state() }), ""},
		{"2", change(on, 1, func(e *firmware.Event) { *e = state(2) }), ""},
		{"not measured", slices.Delete(slices.Clone(on), 1, 2), ""},
		{"no separator", slices.DeleteFunc(slices.Clone(on), func(e firmware.Event) bool { return e.PCR == 7 && e.Type == firmware.Separator }), ""},
		{"error separator", append(slices.Clone(on), firmware.Event{PCR: 7, Type: firmware.Separator, Data: []byte{1, 0, 0, 0}}), ""},
		{"a debugger", insert(on, 1, firmware.Event{PCR: 7, Type: firmware.Action, Data: []byte("UEFI Debug Mode")}), ""},
		{"of another vendor", change(on, 1, func(e *firmware.Event) { e.Data = bytes.Clone(e.Data); e.Data[0] ^= 1 }), ""},
		{"in PCR 6", change(on, 1, func(e *firmware.Event) { e.PCR = 6 }), ""},
		{"lengths that overflow", insert(on, 1, firmware.Event{PCR: 7, Data: append(bytes.Repeat([]byte{0xff}, 32), 1)}), "on"},
	}
	for _, r := range rows {
		log := firmware.Log(r.list)
		v, err := Judge(log, quoted(t, log))
		got := ""
		if v.SecureBoot != nil {
			got = map[bool]string{true: "on", false: "off"}[*v.SecureBoot]
		}
		if err != nil || got != r.state || (got == "") != (v.Doubt != "") {
			t.Errorf("%s: %q (%s) %v, want %q", r.name, got, v.Doubt, err, r.state)
		}
	}
}

// FuzzLog: whatever a log is, it is read within its own size, and what it proves replays.
func FuzzLog(f *testing.F) {
	f.Add(firmware.Log(firmware.Boot{SecureBoot: true}.Events()))
	f.Add(firmware.Log(firmware.Boot{Loader: "x", DBX: 40}.Events()[:5]))
	logs, _ := machines(f)
	for _, log := range logs {
		f.Add(log[:min(len(log), 4000)])
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := Parse(log)
		if err != nil {
			if fault.Of(err).Reason == "" {
				t.Errorf("a refusal without a reason: %v", err)
			}
			return
		}
		if len(l.events)*50 > len(log) {
			t.Errorf("%d events in %d bytes", len(l.events), len(log))
		}
		v, err := Judge(log, quoted(t, log))
		if err != nil || (v.SecureBoot == nil) != (v.Doubt != "") {
			t.Errorf("%+v %v", v, err)
		}
	})
}
