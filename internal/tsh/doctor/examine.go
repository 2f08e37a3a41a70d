package doctor

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hostinfo"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/profile"
)

// Patient is what is looked at: a TSH_HOME with what could be read of it, this machine towards its cluster, and ways to
// the cluster. What is missing comes with its error.
type Patient struct {
	Home       *profile.Home
	Profile    *profile.Profile
	Login      *profile.Login
	Key        hwkey.Key // of the login
	LoginErr   error     // why there is no profile, login or key
	Device     hwkey.Device
	DeviceErr  error
	Tag        string // what the machine says, "" where it says none
	OS         device.OS
	Anonymous  func() *client.Cluster
	AsLoggedIn func() *client.Cluster
}

// callTime bounds each question to the cluster.
const callTime = 20 * time.Second

// Names of checks that others depend on.
const (
	checkProfile = "profile"
	checkCluster = "cluster"
	checkLogin   = "login"
	checkKey     = "session key"
)

// Examine looks at a patient.
func Examine(ctx context.Context, p Patient, now func() time.Time) Report {
	r := &report{}
	x := &examination{report: r, p: p, now: now}
	x.files()
	x.profile()
	x.cluster(ctx)
	x.login()
	x.hardware()
	x.sessionKey()
	x.tag()
	x.standing(ctx)
	x.policy(ctx)
	return r.finish()
}

type examination struct {
	*report
	p    Patient
	now  func() time.Time
	kept hwkey.Enrollment
	told bool // of an enrollment
}

// files looks at the rights of what tsh keeps.
func (x *examination) files() {
	const name = "files"
	for _, dir := range x.p.dirs() {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			x.failed(name, fault.New(fault.Unavailable, "%s cannot be read", dir).WithReason("files").Wrapping(err).WithCause("%v", err))
			return
		case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
			x.warn(name, fault.New(fault.Denied, "%s is open to others", dir).WithReason("files_open").WithFix("chmod 700 '%s'", dir))
			return
		}
	}
	if x.p.Profile != nil {
		if _, err := hwkey.ReadFile(x.p.Home.KeyFile(x.p.Profile)); fault.Because(err, hwkey.ErrBadKey.Reason) {
			x.failed(name, err)
			return
		}
	}
	x.ok(name, "%s and what is in it are this person's alone", x.p.Home.Dir())
}

func (p Patient) dirs() []string {
	out := []string{p.Home.Dir()}
	if p.Profile != nil {
		out = append(out, p.Home.DeviceDir(p.Profile.Cluster))
	}
	return out
}

func (x *examination) profile() {
	if x.p.Profile == nil {
		x.failed(checkProfile, x.p.LoginErr)
		return
	}
	x.ok(checkProfile, "cluster %s at %s, user %s", x.p.Profile.Cluster, x.p.Profile.Proxy, x.p.Profile.User)
}

// cluster asks who is there. Its certificate was verified against the profile's authority alone, which the pin names.
func (x *examination) cluster(ctx context.Context) {
	if x.p.Anonymous == nil {
		x.skip(checkCluster, "no cluster is known")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c := x.p.Anonymous()
	defer c.Close()
	hello, err := c.Hello(ctx)
	if err != nil {
		x.failed(checkCluster, err)
		return
	}
	authority, err := x.p.Profile.Certificate()
	if err == nil && x.p.Profile.CAPin != cluster.Pin(authority) {
		err = fault.New(fault.Invalid, "the CA pin of the profile is not that of its authority").WithReason("pin").
			WithFix("tsh login --proxy=%s --ca-pin=PIN", x.p.Profile.Proxy)
	}
	if err != nil {
		x.failed(checkCluster, err)
		return
	}
	x.ok(checkCluster, "%s, Sallyport %s, CA pin %s", hello.Cluster, hello.Version, x.p.Profile.CAPin)
}

func (x *examination) login() {
	if x.p.Profile == nil {
		x.skip(checkLogin, "no cluster is known")
		return
	}
	if x.p.LoginErr != nil {
		x.failed(checkLogin, x.p.LoginErr)
		return
	}
	until := x.p.Login.Identity.Validity.Expires
	x.ok(checkLogin, "valid until %s, for another %s", until.Local().Format("2006-01-02 15:04:05 MST"), until.Sub(x.now()).Round(time.Minute))
}

// hardware has the device looked at step by step.
func (x *examination) hardware() {
	const name = "hardware"
	if x.p.Device == nil {
		x.failed(name, x.p.DeviceErr)
		return
	}
	if e, err := x.p.Device.Enrollment(); err == nil {
		x.kept, x.told = e, true
	}
	d, ok := x.p.Device.(hwkey.Examiner)
	if !ok {
		if x.told {
			x.ok(name, "a %s key, enrolled as %s", x.p.Device.Kind(), x.kept.AssetTag)
		} else {
			x.failed(name, hwkey.ErrNotEnrolled)
		}
		return
	}
	for _, f := range d.Examine() {
		switch {
		case f.Err == nil:
			x.ok(f.Name, "%s", f.Says)
		case x.p.Profile == nil && fault.Because(f.Err, hwkey.ErrNotEnrolled.Reason):
			x.skip(f.Name, "no cluster is known")
		case f.Minor:
			x.warn(f.Name, f.Err)
		default:
			x.failed(f.Name, x.moved(f.Err))
		}
	}
}

// moved names a key of other hardware on a machine of another tag: not the chip was changed, the files were moved.
func (x *examination) moved(err error) error { return Moved(err, x.kept, x.p.Tag) }

// Moved words a device key that this machine's hardware does not take: where the machine says another tag than the one
// it was enrolled with, the key is another machine's.
func Moved(err error, e hwkey.Enrollment, tag string) error {
	other := fault.Because(err, hwkey.ErrCleared.Reason) || fault.Because(err, hwkey.ErrEnclaveKey.Reason)
	if !other || !differs(e, tag) {
		return err
	}
	return hwkey.ErrMoved.Wrapping(err).WithCause("it was enrolled on %s, and this machine is %s", e.AssetTag, tag)
}

// differs reports whether a machine says another tag than the one it was enrolled with. A machine that says none, or
// whose tag came from its key, differs from nothing.
func differs(e hwkey.Enrollment, tag string) bool {
	return e.AssetTag != "" && tag != "" && tag != e.AssetTag && !hostinfo.FromKey(e.AssetTag)
}

// sessionKey signs with the login's key, and checks that its certificate is of it.
func (x *examination) sessionKey() {
	const name = checkKey
	if !x.is(checkLogin, OK) {
		x.skip(name, "there is no login")
		return
	}
	sum := sha256.Sum256([]byte("tsh device doctor"))
	sig, err := x.p.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		x.failed(name, x.moved(err))
		return
	}
	pub, ok := x.p.Login.TLS.PublicKey.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(pub, sum[:], sig) {
		x.failed(name, fault.New(fault.Invalid, "the certificate is for another key").WithReason("session_key").WithFix("tsh logout; tsh login"))
		return
	}
	x.ok(name, "signs, kind %s", x.p.Key.Kind())
}

func (x *examination) tag() {
	const name = "asset tag"
	switch {
	case x.told && differs(x.kept, x.p.Tag):
		x.warn(name, hwkey.ErrTagChanged.WithCause("it was enrolled as %s, and says %s", x.kept.AssetTag, x.p.Tag).
			WithFix("ask a device admin: tctl devices accept --asset-tag=%s", x.kept.AssetTag))
	case x.told:
		x.ok(name, "%s", x.kept.AssetTag)
	case x.p.Tag != "":
		x.ok(name, "%s", x.p.Tag)
	default:
		x.ok(name, "the machine says none that this user may read; it comes from the hardware's key, or from a token")
	}
}

// speaks reports whether the cluster can be asked with this login, and skips what would ask.
func (x *examination) speaks(name string) bool {
	switch {
	case !x.is(checkLogin, OK):
		x.skip(name, "there is no login")
	case !x.is(checkCluster, OK):
		x.skip(name, "there is no way to the cluster")
	case !x.is(checkKey, OK):
		x.skip(name, "the login's key does not sign")
	default:
		return true
	}
	return false
}

// standing asks what this device is to the cluster.
func (x *examination) standing(ctx context.Context) {
	const name = "inventory"
	if !x.speaks(name) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	ref := client.DeviceRef{Tag: x.p.Tag, OS: x.p.OS}
	if x.told {
		ref = client.DeviceRef{ID: x.kept.DeviceID}
	} else if ref.Tag == "" {
		var err error
		if x.p.Device != nil {
			ref.Tag, err = x.p.Device.Tag()
		}
		if err != nil || ref.Tag == "" {
			x.skip(name, "what this device is called is not known before it is enrolled")
			return
		}
	}
	c := x.p.AsLoggedIn()
	defer c.Close()
	st, err := c.MyDevice(ctx, ref)
	if err != nil {
		x.failed(name, err)
		return
	}
	for _, finding := range st.Findings {
		x.warn(name, fault.New(fault.Conflict, "the cluster noticed of this device: %s", finding).WithReason("device_finding").
			WithFix("%s", mends(finding, st.AssetTag)))
	}
	if m := Missing(st, x.told, x.kept.CredentialID, x.p.Login.Identity.Device != nil); m != nil {
		x.failed(name, m)
		return
	}
	x.ok(name, "%s is enrolled by %s, level %s, and this login carries it", st.AssetTag, st.Owner, st.Level)
}

// mends is what to type about something that the cluster noticed of a device, as docs/devices.md has it.
func mends(finding, tag string) string {
	reason, _, _ := strings.Cut(finding, ":")
	switch reason {
	case device.CountersBack:
		return "tsh device enroll --current-device   (or, where a snapshot was meant to be restored, ask a device admin: tctl devices accept --asset-tag=" + tag + ")"
	case device.BootChanged:
		return "ask a device admin: tctl devices baseline --asset-tag=" + tag + " --accept"
	case device.EKUntrusted:
		return "ask a device admin: tctl devices trust --asset-tag=" + tag
	}
	return "ask a device admin: tctl devices accept --asset-tag=" + tag
}

// enrollFix is what most devices that miss something miss.
const enrollFix = "tsh device enroll --current-device   (or ask a device admin for an enrollment token)"

// Missing names the first thing that stands between a device and trust, by what it is to the cluster, whether its key
// is here and of which credential, and whether the login carries it.
func Missing(st client.DeviceStanding, keyHere bool, credential string, proven bool) *fault.Error {
	f := func(reason, text, fix string) *fault.Error {
		return fault.New(fault.NotFound, "%s", text).WithReason(reason).WithFix("%s", fix)
	}
	switch {
	case !st.Registered:
		return f("device_not_registered", "the device is not registered", enrollFix)
	case !st.Enrolled:
		return f("device_not_enrolled", "the device is not enrolled", enrollFix)
	case !keyHere:
		return f(hwkey.ErrNotEnrolled.Reason, hwkey.ErrNotEnrolled.Text, enrollFix)
	case credential != st.CredentialID:
		return f("device_enrolled_anew", "the device was enrolled anew since", enrollFix)
	case !proven:
		return f("no_device_proof", "this login carries no device proof", "tsh logout; tsh login")
	}
	return nil
}

// Clocks may differ by what a certificate begins early (ca): more, and it is not valid yet.
const (
	clockWarns = 30 * time.Second
	clockFails = 2 * time.Minute
)

// policy asks which rules would refuse this login for its device, and compares the clocks.
func (x *examination) policy(ctx context.Context) {
	const name, clock = "policy", "clock"
	if !x.speaks(clock) {
		x.speaks(name)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c := x.p.AsLoggedIn()
	defer c.Close()
	before := x.now()
	list, theirs, err := c.Hindrances(ctx)
	if err != nil {
		x.skip(clock, "the cluster did not say")
		x.failed(name, err)
		return
	}
	x.clocks(clock, theirs, before)
	for _, f := range list {
		x.failed(name, f)
	}
	if len(list) == 0 {
		x.ok(name, "no role of this login asks for more than it proves")
	}
}

// clocks compares the server's time with the middle of the call.
func (x *examination) clocks(name string, theirs, before time.Time) {
	after := x.now()
	off := before.Add(after.Sub(before) / 2).Sub(theirs)
	f := fault.New(fault.Unavailable, "this clock is %s off the cluster's", off.Abs().Round(time.Second)).WithReason("clock").
		WithCause("here it is %s, there %s", after.UTC().Format(time.RFC3339), theirs.UTC().Format(time.RFC3339)).WithFix("%s", setClock())
	switch {
	case off.Abs() > clockFails:
		x.failed(name, f)
	case off.Abs() > clockWarns:
		x.warn(name, f)
	default:
		x.ok(name, "as the cluster's, to %s", off.Abs().Round(time.Millisecond))
	}
}

// setClock is how this system sets its clock.
func setClock() string {
	switch runtime.GOOS {
	case "windows":
		return "w32tm /resync"
	case "darwin":
		return "sudo sntp -sS time.apple.com"
	}
	return "sudo timedatectl set-ntp true"
}
