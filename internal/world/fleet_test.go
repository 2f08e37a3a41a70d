package world_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/world"
)

// trusting changes the cluster's device trust.
func trusting(f func(*cluster.DeviceTrust)) func(*config.Config) {
	return func(c *config.Config) { f(&c.Auth.Settings.DeviceTrust) }
}

// TestA5EndorsementsAreShownAndTrusted: a refused TPM is shown with who vouches for it, and trusted by adding them.
func TestA5EndorsementsAreShownAndTrusted(t *testing.T) {
	ca := swtpm.NewCA(t)
	tpm := swtpm.Start(t, swtpm.Options{EKCert: true, CA: ca})
	other := swtpm.Start(t, swtpm.Options{EKCert: true})
	authorities, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	known, err := other.CA.PEM()
	if err != nil {
		t.Fatal(err)
	}
	w := world.New(t, trusting(func(d *cluster.DeviceTrust) { d.EKCertAllowedCAs = []string{string(known)} }))
	w.User("alice", "access", "editor")
	alice := w.Login("alice")
	d, f, ref := w.Device("EK1", tpm.Socket), fleet.Of(w.Admin), client.DeviceRef{Tag: "EK1"}
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "EK1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Endorsement(t.Context(), ref, ""); !fault.Because(err, "no_endorsement") {
		t.Fatal(err)
	}
	err = d.Enroll(alice, "")
	w.Refused(err, "ekcert_untrusted", event.DeviceEnroll)
	if x := fault.Of(err); !strings.Contains(x.Fix, "tctl devices trust --asset-tag=EK1") || !strings.Contains(x.Cause, "was issued by") {
		t.Errorf("%q %q", x.Cause, x.Fix)
	}
	if rec := inventoried(t, w, "EK1"); rec.Enrolled() || rec.Owner != "" {
		t.Fatal("a refusal changed the device")
	}
	e, err := f.Endorsement(t.Context(), ref, "")
	if err != nil || len(e.Chain) != 1 || e.Trusted || e.Missing == "" || e.Authorities != "" || e.Refused != "ekcert_untrusted" {
		t.Fatalf("%+v %v", e, err)
	}
	if e, err = f.Endorsement(t.Context(), ref, string(authorities)); err != nil || len(e.Chain) != 3 || e.Missing != "" {
		t.Fatalf("%+v %v", e, err)
	}
	if _, err := f.Endorsement(t.Context(), ref, "nonsense"); !fault.Because(err, "bad_issuers") {
		t.Error(err)
	}
	res, err := w.Admin.Get(t.Context(), manifest.Cap, manifest.CapName)
	if err != nil {
		t.Fatal(err)
	}
	set := res.Spec.(*cluster.Settings)
	set.DeviceTrust.EKCertAllowedCAs = append(set.DeviceTrust.EKCertAllowedCAs, e.Authorities)
	w.Write(set)
	if err := d.Enroll(alice, ""); err != nil {
		t.Fatal(err, fault.Of(err).Cause)
	}
	if rec := inventoried(t, w, "EK1"); rec.Credentials[0].Attestation != device.LevelTPMTrusted || rec.Health.Seen.Refused != "" {
		t.Errorf("%+v", rec.Credentials)
	}
	// Who may not read devices is told nothing.
	w.User("bob", "access")
	c := w.Login("bob").Call()
	defer c.Close()
	if _, err := fleet.Of(c).Endorsement(t.Context(), ref, ""); !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
	if err := fleet.Of(c).Approve(t.Context(), ref, strings.Repeat("a", 64)); !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
}

// TestEKHashAhead: a device that is registered with an endorsement key enrolls with it, without a certificate though
// authorities are listed, and no other TPM does.
func TestEKHashAhead(t *testing.T) {
	vendor := swtpm.Start(t, swtpm.Options{EKCert: true})
	pem, err := vendor.CA.PEM()
	if err != nil {
		t.Fatal(err)
	}
	w := world.New(t, trusting(func(d *cluster.DeviceTrust) { d.EKCertAllowedCAs = []string{string(pem)} }))
	w.User("alice", "access", "editor")
	alice := w.Login("alice")
	bare, other := swtpm.Start(t, swtpm.Options{}), swtpm.Start(t, swtpm.Options{})
	d, f := w.Device("CLOUD1", bare.Socket), fleet.Of(w.Admin)
	err = d.Enroll(alice, "")
	w.Refused(err, "ekcert_missing", event.DeviceEnroll)
	e, err := f.Endorsement(t.Context(), client.DeviceRef{Tag: "CLOUD1"}, "")
	if err != nil || len(e.Chain) != 0 {
		t.Fatalf("%+v %v", e, err)
	}
	if _, err := w.Admin.Delete(t.Context(), manifest.Device, "CLOUD1"); err != nil {
		t.Fatal(err)
	}
	// Ahead of time.
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "CLOUD2", EKHash: e.EKHash}); err != nil {
		t.Fatal(err)
	}
	err = w.Device("CLOUD2", other.Socket).Enroll(alice, "")
	w.Refused(err, "ekcert_missing", event.DeviceEnroll)
	err = w.Device("CLOUD2", vendor.Socket).Enroll(alice, "") // vouched for, and not the one
	w.Refused(err, "ek_hash_mismatch", event.DeviceEnroll)
	if c := fault.Of(err).Cause; !strings.Contains(c, e.EKHash) || strings.Count(c, "EK hash ") != 1 {
		t.Errorf("%q", c)
	}
	err = w.Device("CLOUD2", "").Enroll(alice, "") // a software key
	w.Refused(err, "ek_hash_mismatch", event.DeviceEnroll)
	d2 := w.Device("CLOUD2", bare.Socket)
	if err := d2.Enroll(alice, ""); err != nil {
		t.Fatal(err, fault.Of(err).Cause)
	}
	if l := d2.Login("alice"); l.Identity().Device == nil || l.Identity().Device.Level != device.LevelTPMPub {
		t.Fatalf("%+v", l.Identity().Device)
	}
	// By one command, and without an asset tag: the tag is the key's.
	hash2 := func() string {
		err := w.Device("", other.Socket).Enroll(alice, "")
		if !fault.Because(err, "ekcert_missing") || !strings.Contains(fault.Of(err).Fix, "tctl devices add --os=linux --ek-hash=") {
			t.Fatal(err, fault.Of(err).Fix)
		}
		_, h, _ := strings.Cut(fault.Of(err).Fix, "--ek-hash=")
		return h
	}()
	rec, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, EKHash: hash2})
	if err != nil || rec.AssetTag != "ek-"+hash2[:16] {
		t.Fatal(rec, err)
	}
	if err := w.Device("", other.Socket).Enroll(alice, ""); err != nil {
		t.Fatal(err, fault.Of(err).Cause)
	}
	for _, bad := range []string{"x", strings.Repeat("A", 64), strings.Repeat("a", 63)} {
		if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "BAD", EKHash: bad}); err == nil {
			t.Errorf("%q passes for a hash", bad)
		}
	}
}

// TestMonitor: what would be refused enrolls at the level that it proves, and is noted.
func TestMonitor(t *testing.T) {
	vendor, other := swtpm.Start(t, swtpm.Options{EKCert: true}), swtpm.Start(t, swtpm.Options{EKCert: true})
	pem, err := vendor.CA.PEM()
	if err != nil {
		t.Fatal(err)
	}
	w := world.New(t, trusting(func(d *cluster.DeviceTrust) {
		d.EKCertAllowedCAs, d.EKCertPolicy = []string{string(pem)}, cluster.Monitor
	}))
	w.User("alice", "access", "editor")
	d := w.Device("MON1", other.Socket)
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	rec := inventoried(t, w, "MON1")
	if x, ok := rec.Health.Found(device.EKUntrusted); !ok || rec.Credentials[0].Attestation != device.LevelTPMPub || !strings.Contains(x.Text, "was issued by") {
		t.Fatalf("%+v %+v", rec.Credentials, rec.Health)
	}
	if evs := w.Events(event.DeviceEnroll); !strings.Contains(evs[len(evs)-1].Message, "ekcert_policy is monitor") {
		t.Errorf("%q", evs[len(evs)-1].Message)
	}
	list, _, err := fleet.Of(w.Admin).List(t.Context(), fleet.Listing{Finding: device.EKUntrusted})
	if err != nil || len(list) != 1 {
		t.Errorf("%d %v", len(list), err)
	}
}

// TestOwnerMoves: a device that is registered for somebody is theirs to enroll, and a token made by an administrator moves
// it; what the old owner's credential was used for ends, and unenrolled it enrolls again at once.
func TestOwnerMoves(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "device-enroll")
	w.User("bob", "access", "device-enroll")
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "MOVE", Owner: "alice"}); err != nil {
		t.Fatal(err)
	}
	a, b := w.Device("MOVE", ""), w.Device("MOVE", "")
	w.Refused(b.Enroll(w.Login("bob"), ""), "device_of_another", event.DeviceEnroll)
	if err := a.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	token, err := fleet.Of(w.Admin).EnrollToken(t.Context(), client.DeviceRef{Tag: "MOVE"}, "bob", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Refused(a.Enroll(w.Login("alice"), token.Secret), "invalid_device_token", event.DeviceEnroll)
	if err := b.Enroll(w.Login("bob"), token.Secret); err != nil {
		t.Fatal(err)
	}
	if rec := inventoried(t, w, "MOVE"); rec.Owner != "bob" || len(rec.Credentials) != 1 {
		t.Errorf("%+v", rec)
	}
	if l := a.Login("alice"); l.Identity().Device != nil {
		t.Error("the old owner's credential lives")
	}
	if l := b.Login("bob"); l.Identity().Device == nil {
		t.Error(l.DeviceFault)
	}
	if _, err := w.Admin.Unenroll(t.Context(), client.DeviceRef{Tag: "MOVE"}); err != nil {
		t.Fatal(err)
	}
	if l := b.Login("bob"); l.Identity().Device != nil {
		t.Error("unenrolled, and proven")
	}
	if err := b.Enroll(w.Login("bob"), ""); err != nil {
		t.Fatal(err)
	}
	if l := b.Login("bob"); l.Identity().Device == nil {
		t.Error(l.DeviceFault)
	}
}

// TestImport registers each line by itself and says what became of it.
func TestImport(t *testing.T) {
	w := world.New(t, nil)
	f := fleet.Of(w.Admin)
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "HAVE", Owner: "alice"}); err != nil {
		t.Fatal(err)
	}
	list := []device.Device{{OSType: "linux", AssetTag: "have", Owner: "bob"}, {OSType: "beos", AssetTag: "X"}, {OSType: "linux", AssetTag: "a b"},
		{OSType: "linux", AssetTag: "N1", Owner: "b,c"}, {OSType: "macos", AssetTag: "HAVE"}, {OSType: "linux", AssetTag: "N2", EKHash: "zz"},
		{OSType: "linux", AssetTag: "twice"}, {OSType: "linux", AssetTag: "TWICE "}}
	for i := range 70 {
		list = append(list, device.Device{OSType: "windows", AssetTag: fmt.Sprintf("PC-%03d", i), Owner: "carol"})
	}
	dry, err := f.Import(t.Context(), list, "csv", true)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(w.Events(event.DeviceCreate)); n != 1 {
		t.Fatalf("a dry run wrote %d devices", n-1)
	}
	got, err := f.Import(t.Context(), list, "csv", false)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"exists", "refused", "refused", "refused", "created", "refused", "created", "exists"}
	for i, g := range got {
		x := "created"
		if i < len(want) {
			x = want[i]
		}
		if g.Outcome != x || dry[i].Outcome != x || (x == "refused") != (g.Reason != "" && g.DeviceID == "") && x != "exists" {
			t.Errorf("%d: %+v (dry %+v), want %s", i, g, dry[i], x)
		}
	}
	if !strings.Contains(got[0].Reason, "its owner is alice") {
		t.Errorf("%q", got[0].Reason)
	}
	if n := len(w.Events(event.DeviceCreate)); n != 1+72 {
		t.Errorf("%d events", n)
	}
	again, err := f.Import(t.Context(), list, "csv", false)
	if err != nil || again[20].Outcome != "exists" {
		t.Fatal(again[20], err)
	}
	if _, err := f.Import(t.Context(), make([]device.Device, fleet.MaxImport+1), "csv", false); !fault.Because(err, "too_large") {
		t.Error(err)
	}
	// Listing by pages and filters.
	seen := map[string]bool{}
	for l := (fleet.Listing{OS: device.Windows, Limit: 16}); ; {
		page, next, err := f.List(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page {
			if seen[d.ID] || d.OSType != device.Windows {
				t.Fatalf("%s twice, or of another system", d.AssetTag)
			}
			seen[d.ID] = true
		}
		if l.After = next; next == "" {
			break
		}
	}
	if len(seen) != 70 {
		t.Errorf("%d devices in pages", len(seen))
	}
	for _, r := range []struct {
		l fleet.Listing
		n int
	}{{fleet.Listing{}, 73}, {fleet.Listing{Owner: "alice"}, 1}, {fleet.Listing{Status: "enrolled"}, 0}, {fleet.Listing{OS: device.MacOS}, 1},
		{fleet.Listing{Query: `resource.asset_tag.startsWith("PC-00")`}, 10}, {fleet.Listing{Level: "tpm_ekpub"}, 0}, {fleet.Listing{Finding: "any"}, 0}} {
		if page, _, err := f.List(t.Context(), r.l); err != nil || len(page) != r.n {
			t.Errorf("%+v: %d devices, %v", r.l, len(page), err)
		}
	}
	if _, _, err := f.List(t.Context(), fleet.Listing{Query: "resource."}); !fault.Because(err, "bad_query") {
		t.Error(err)
	}
}

// TestManyOwners: several users enroll one machine, each with a credential of their own; another machine of the same
// tag is refused.
func TestManyOwners(t *testing.T) {
	w := world.New(t, trusting(func(d *cluster.DeviceTrust) { d.Owners = cluster.Many }))
	for _, u := range []string{"alice", "bob"} {
		w.User(u, "access", "editor")
	}
	tpm := swtpm.Start(t, swtpm.Options{})
	a, b := w.Device("SHARED", tpm.Socket), w.Device("SHARED", tpm.Socket)
	if err := a.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	w.Refused(w.Device("SHARED", swtpm.Start(t, swtpm.Options{}).Socket).Enroll(w.Login("bob"), ""), "ek_hash_mismatch", event.DeviceEnroll)
	w.Refused(w.Device("SHARED", "").Enroll(w.Login("bob"), ""), "ek_hash_mismatch", event.DeviceEnroll)
	if err := b.Enroll(w.Login("bob"), ""); err != nil {
		t.Fatal(err, fault.Of(err).Cause)
	}
	for user, d := range map[string]*world.Device{"alice": a, "bob": b} {
		if l := d.Login(user); l.Identity().Device == nil {
			t.Errorf("%s: %v", user, l.DeviceFault)
		}
	}
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "ALICES", Owner: "alice"}); err != nil {
		t.Fatal(err)
	}
	w.Refused(w.Device("ALICES", "").Enroll(w.Login("bob"), ""), "device_of_another", event.DeviceEnroll) // before she has
	if l := a.Login("bob"); l.Identity().Device != nil {                                                  // each by their own credential
		t.Error("bob logged in by alice's credential")
	}
	old := a.Keep.CredentialID
	if err := a.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	rec := inventoried(t, w, "SHARED")
	if _, has := rec.Credential(old); has || len(rec.Credentials) != 2 || rec.Owner != "alice" {
		t.Fatalf("%+v", rec.Credentials)
	}
	if l := b.Login("bob"); l.Identity().Device == nil {
		t.Errorf("bob's credential died with alice's: %v", l.DeviceFault)
	}
	// Where a device is one user's again, none of several takes it from the others without a token.
	s := cluster.Default()
	s.SecondFactors, s.DeviceTrust.AllowSoftwareKeys = []string{}, true
	w.Write(&s)
	w.Refused(a.Enroll(w.Login("alice"), ""), "device_of_another", event.DeviceEnroll)
}

// TestAutoEnroll lets registered devices enroll at a login, never another's.
func TestAutoEnroll(t *testing.T) {
	w := world.New(t, trusting(func(d *cluster.DeviceTrust) { d.AutoEnroll = true }))
	w.User("alice", "access")
	w.User("bob", "access")
	register := func(tag, owner string) {
		t.Helper()
		if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: tag, Owner: owner}); err != nil {
			t.Fatal(err)
		}
	}
	register("MINE", "alice")
	register("HERS", "bob")
	register("FREE", "")
	auto := func(tag, user string) (*world.Device, error) {
		d := w.Device(tag, "")
		d.Auto = true
		return d, d.Enroll(w.Login(user), "")
	}
	for _, tag := range []string{"MINE", "FREE"} {
		d, err := auto(tag, "alice")
		if err != nil {
			t.Fatal(err)
		}
		if l := d.Login("alice"); l.Identity().Device == nil {
			t.Error(l.DeviceFault)
		}
	}
	_, err := auto("HERS", "alice")
	w.Refused(err, "device_of_another", event.DeviceEnroll)
	_, err = auto("FREE", "bob") // alice's by now
	w.Refused(err, "device_of_another", event.DeviceEnroll)
	_, err = auto("MINE", "alice") // enrolled already: that takes a word
	w.Refused(err, "device_of_another", event.DeviceEnroll)
	_, err = auto("UNKNOWN", "alice")
	w.Refused(err, "device_not_found", event.DeviceEnroll)
	err = w.Device("HERS", "").Enroll(w.Login("bob"), "") // without the flag it takes the right, as ever
	if !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
	s := cluster.Default()
	s.SecondFactors, s.DeviceTrust.AllowSoftwareKeys = []string{}, true
	w.Write(&s)
	_, err = auto("HERS", "bob")
	w.Refused(err, "auto_enroll_off", event.DeviceEnroll)
}
