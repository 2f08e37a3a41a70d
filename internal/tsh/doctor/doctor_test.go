package doctor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// TestReport prints what was found, and ends with 1 when something failed.
func TestReport(t *testing.T) {
	r := &report{}
	r.ok("a", "fine")
	r.warn("b", fault.New(fault.Denied, "so so").WithFix("do this"))
	r.skip("c", "nobody knows")
	good := r.finish()
	var out strings.Builder
	if err := good.Text(&out); err != nil || !good.Healthy || good.Err() != nil {
		t.Error(err, good.Healthy, good.Err())
	}
	want := "ok       a: fine\nwarning  b: so so\n         to fix: do this\nskipped  c: nobody knows\neverything between this device and trust is in order, 1 warning\n"
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
	r.failed("d", errors.New("plain \x1b[31m"))
	r.failed("e", hwkey.ErrLockout)
	bad := r.finish()
	out.Reset()
	if err := bad.Text(&out); err != nil || bad.Healthy || console.ExitCode(bad.Err()) != 1 {
		t.Error(err, bad.Healthy, bad.Err())
	}
	for _, text := range []string{`FAILED   d: plain \x1b[31m`, "FAILED   e: the TPM is in lockout", "to fix: wait", "2 checks failed, 1 warning"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in\n%s", text, out.String())
		}
	}
}

// TestMissing names the first thing that a device misses.
func TestMissing(t *testing.T) {
	st := client.DeviceStanding{Registered: true, Enrolled: true, CredentialID: "c"}
	for _, r := range []struct {
		name       string
		change     func(*client.DeviceStanding)
		here       bool
		credential string
		proven     bool
		want       string
	}{
		{"nothing", func(*client.DeviceStanding) {}, true, "c", true, ""},
		{"not registered", func(s *client.DeviceStanding) { *s = client.DeviceStanding{} }, false, "", false, "device_not_registered"},
		{"not enrolled", func(s *client.DeviceStanding) { s.Enrolled = false }, true, "c", true, "device_not_enrolled"},
		{"no key", func(*client.DeviceStanding) {}, false, "", false, "device_key_not_found"},
		{"anew", func(*client.DeviceStanding) {}, true, "b", true, "device_enrolled_anew"},
		{"no proof", func(*client.DeviceStanding) {}, true, "c", false, "no_device_proof"},
	} {
		s := st
		r.change(&s)
		f := Missing(s, r.here, r.credential, r.proven)
		switch {
		case r.want == "":
			if f != nil {
				t.Errorf("%s: %v", r.name, f)
			}
		case f == nil || f.Reason != r.want || f.Fix == "":
			t.Errorf("%s: %+v, want %s", r.name, f, r.want)
		}
	}
}

// TestMoved tells files of another machine from a chip that was changed.
func TestMoved(t *testing.T) {
	other := errors.New("something else")
	for _, r := range []struct {
		name           string
		err            error
		enrolled, here string
		want           string
	}{
		{"another machine", hwkey.ErrCleared, "A1", "B2", "device_moved"},
		{"another Mac", hwkey.ErrEnclaveKey, "A1", "B2", "device_moved"},
		{"the same machine", hwkey.ErrCleared, "A1", "A1", "tpm_cleared"},
		{"a machine that says nothing", hwkey.ErrCleared, "A1", "", "tpm_cleared"},
		{"a tag of the key", hwkey.ErrCleared, "ek-0011223344556677", "B2", "tpm_cleared"},
		{"lockout", hwkey.ErrLockout, "A1", "B2", "tpm_lockout"},
		{"another error", other, "A1", "B2", ""},
	} {
		if got := fault.Of(Moved(r.err, hwkey.Enrollment{AssetTag: r.enrolled}, r.here)); got.Reason != r.want {
			t.Errorf("%s: %s, want %s", r.name, got.Reason, r.want)
		}
	}
	if Moved(nil, hwkey.Enrollment{AssetTag: "A"}, "B") != nil {
		t.Error("nothing moved")
	}
}

// TestClocks judges the difference of two clocks, the call's duration apart.
func TestClocks(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	for off, want := range map[time.Duration]State{0: OK, 20 * time.Second: OK, -31 * time.Second: Warning, 90 * time.Second: Warning,
		-3 * time.Minute: Failed, 48 * time.Hour: Failed} {
		x := &examination{report: &report{}, now: func() time.Time { return at.Add(4 * time.Second) }}
		x.clocks("clock", at.Add(2*time.Second).Add(off), at)
		c := x.checks[0]
		if c.State != want || want != OK && (c.Fix == "" || c.Reason != "clock") {
			t.Errorf("%s: %+v, want %s", off, c, want)
		}
	}
}
