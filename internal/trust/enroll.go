package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/store"
)

// EnrollStart is what an enrollment asks for. Without a token the device is named by system and tag, and with
// Register it is put in the inventory first where it is not there. Auto is an enrollment that nobody typed, where
// device_trust.auto_enroll lets registered devices do so. Code is a fresh one-time code.
type EnrollStart struct {
	Key       crypto.PublicKey
	WithToken bool
	Register  bool
	Auto      bool
	OS        device.OS
	AssetTag  string
	Code      string
}

// Registered is told before the ceremony begins: whether the device was put in the inventory just now.
type Registered func(ctx context.Context, now bool) error

// Enroll runs one enrollment for the caller. The token is spent if and only if the device is enrolled: both are one
// transaction.
func (s *Service) Enroll(ctx context.Context, from identity.Caller, start EnrollStart, ready Registered, c Exchanger) error {
	if from.User == nil {
		return fault.New(fault.Unauthenticated, "enrolling a device needs a login").WithFix("tsh login")
	}
	if err := s.mayBegin(ctx, from, start); err != nil {
		return s.Fail(ctx, DeviceEvent(event.DeviceEnroll, from, nil), err)
	}
	_, user, err := s.Records.Account(ctx, from.User.Name)
	if err != nil {
		return s.Fail(ctx, DeviceEvent(event.DeviceEnroll, from, nil), err)
	}
	e := &enrollment{Service: s, from: from, start: start, exchanger: c, user: user, owner: from.User.Name}
	if !start.WithToken && start.AssetTag != "" {
		if err := e.find(ctx, start.AssetTag); err != nil {
			return s.Fail(ctx, DeviceEvent(event.DeviceEnroll, from, e.before), err)
		}
	}
	if err := ready(ctx, e.registered); err != nil {
		return err
	}
	if err := e.run(ctx); err != nil {
		return e.refused(ctx, err)
	}
	return nil
}

// mayBegin refuses who may not enroll at all: with a token that is seen once the device is known.
func (s *Service) mayBegin(ctx context.Context, from identity.Caller, start EnrollStart) error {
	switch {
	case start.WithToken:
		return nil
	case start.Auto && (start.Register || !s.Settings().DeviceTrust.AutoEnroll || from.User != nil && from.User.Kind == identity.Bot):
		return fault.New(fault.Denied, "the cluster enrolls no devices by themselves").WithReason("auto_enroll_off")
	case start.Auto:
		return nil
	}
	if err := s.May(from, "enroll", nil); err != nil {
		return selfEnrollRefused(err)
	}
	return s.Confirm.Confirm(ctx, from, start.Code)
}

func selfEnrollRefused(err error) error {
	f := fault.Of(err)
	return fault.New(fault.Denied, "you may not enroll a device without an enrollment token").WithReason(f.Reason).
		WithCause("%s", f.Cause).WithFix("ask a device admin for a token, then: tsh device enroll --token=TOKEN")
}

// enrollment is one enrollment under way.
type enrollment struct {
	*Service
	from       identity.Caller
	start      EnrollStart
	exchanger  Exchanger
	before     *device.Device
	revision   uint64
	registered bool
	byAdmin    bool
	owner      string
	spend      func(deviceID string) ([]store.Op, error) // nil without a token
	user       uint64                                    // the revision of the user's record
	evidence   device.Evidence
}

// allowed refuses, once the device has answered, a user whom a lock refuses by now; the store is asked, which the
// picture may be behind.
func (e *enrollment) allowed(ctx context.Context) error {
	locks, err := e.Records.Locks(ctx)
	if err != nil {
		return err
	}
	if l := locks.MatchUser(e.from.User, e.Now()); l != nil {
		return fault.New(fault.Denied, "lock targeting %s is in force", l.Target).WithReason("locked").WithFix("tsh login")
	}
	return nil
}

// find looks up the device by its tag and registers it where it is not there and the caller may.
func (e *enrollment) find(ctx context.Context, tag string) error {
	os, ok := device.ParseOS(string(e.start.OS))
	if !ok {
		return fault.New(fault.Invalid, "unknown operating system %q", e.start.OS)
	}
	tag = device.NormalTag(tag)
	if !device.ValidTag(tag) {
		return fault.New(fault.Invalid, "asset tag %q is not 1 to 128 printable ASCII characters without space or comma", tag)
	}
	d, revision, err := e.Inventory.ByTag(ctx, os, tag)
	if fault.Because(err, "device_not_found") && e.start.Register {
		d, revision, err = e.register(ctx, &device.Device{OSType: os, AssetTag: tag, Source: &device.Source{Name: "tsh", Origin: "api"}})
		e.registered = err == nil
	}
	if err != nil {
		return err
	}
	e.before, e.revision = d, revision
	return e.mayTake(d)
}

// many reports whether several users may enroll one device.
func (s *Service) many() bool { return s.Settings().DeviceTrust.Owners == cluster.Many }

// mayTake refuses a device that is somebody else's: without a token, only its owner takes an enrolled one, and who
// may not create devices takes only one that is registered as theirs. Where several users may enroll one device, those
// who are enrolled stay.
func (e *enrollment) mayTake(d *device.Device) error {
	user := e.owner
	for _, c := range d.Credentials {
		if c.Owner != user && !e.many() || e.start.Auto && c.Owner == user {
			return alreadyEnrolled()
		}
	}
	// One that is registered for another is theirs to enroll first, also where several may: they say which machine it is.
	if d.Owner != "" && d.Owner != user && (!e.many() || len(d.Credentials) == 0) {
		return alreadyEnrolled()
	}
	if _, was := d.CloneHealth().Found(device.Unenrolled); was && e.start.Auto {
		return fault.New(fault.Denied, "device %q was unenrolled, so it does not enroll by itself", d.AssetTag).WithReason(device.Unenrolled).
			WithFix("ask a device admin: tctl devices enroll --asset-tag=%s", d.AssetTag)
	}
	if e.byAdmin || e.start.Auto {
		return nil
	}
	if err := e.May(e.from, "enroll", d); err != nil {
		return selfEnrollRefused(err)
	}
	if d.Owner == "" && e.May(e.from, "create", d) != nil {
		return fault.New(fault.Denied, "device %q is not registered as yours", d.AssetTag).WithReason("device_not_owned").
			WithFix("ask a device admin: tctl devices enroll --asset-tag=%s --owner=%s", d.AssetTag, user)
	}
	return nil
}

func alreadyEnrolled() error {
	return fault.New(fault.Denied, "device already enrolled by another user").WithReason("device_of_another").
		WithFix("ask a device admin for an enrollment token: it moves the device")
}

func (e *enrollment) register(ctx context.Context, d *device.Device) (*device.Device, uint64, error) {
	if !e.byAdmin {
		if err := e.May(e.from, "create", d); err != nil {
			return nil, 0, selfEnrollRefused(err)
		}
	}
	revision, err := e.add(ctx, e.from, d)
	return d, revision, err
}

// add puts a device in the inventory, recorded.
func (s *Service) add(ctx context.Context, from identity.Caller, d *device.Device) (uint64, error) {
	ops, err := s.Inventory.Add(d, s.Now())
	if err != nil {
		return 0, err
	}
	ev := DeviceEvent(event.DeviceCreate, from, d)
	ev.Success = true
	revision, err := s.Audit.Record(ctx, ev, ops...)
	return revision, inventory.Exists(d, err)
}

// run receives the first message and has the device prove itself.
func (e *enrollment) run(ctx context.Context) error {
	hello, err := e.exchanger.Receive(ctx)
	if err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(e.start.Key)
	if err != nil {
		return fault.New(fault.Invalid, "the session key cannot be used").Wrapping(err)
	}
	_, err = e.ceremony(ctx, hello, ceremony.Binding{Purpose: ceremony.Enroll, ClusterCA: e.ClusterCA, User: e.from.User.Name,
		Upgraded: e.from.Certificate, SessionKey: spki})
	return err
}

// enrolled is what an enrollment made.
type enrolled struct {
	device     *device.Device
	credential device.Credential
	claims     device.Data
}

// ceremony is the enrollment from its first message.
func (e *enrollment) ceremony(ctx context.Context, hello []byte, b ceremony.Binding) (enrolled, error) {
	judge, err := e.judge(ctx)
	if err != nil {
		return enrolled{}, err
	}
	v, err := ceremony.NewVerifier(b, judge, rand.Reader)
	if err != nil {
		return enrolled{}, err
	}
	info, await, err := v.Hello(hello)
	if err != nil {
		return enrolled{}, err
	}
	e.evidence = info.Evidence
	if err := e.resolve(ctx, info); err != nil {
		return enrolled{}, err
	}
	challenge, awaitProof, err := await.Challenge(ceremony.Ask{})
	if err != nil {
		return enrolled{}, err
	}
	if err := e.place(ctx, awaitProof.Candidate()); err != nil {
		return enrolled{}, err
	}
	proof, err := e.exchanger.Exchange(ctx, challenge)
	if err != nil {
		return enrolled{}, err
	}
	result, err := Finish(ctx, awaitProof, proof, e.exchanger)
	if err != nil {
		return enrolled{}, err
	}
	return e.commit(ctx, info, result)
}

// resolve finds the device that the token is for, and compares what this machine says of itself with it.
func (e *enrollment) resolve(ctx context.Context, info ceremony.HelloInfo) error {
	e.owner = e.from.User.Name
	if e.start.WithToken != (info.Token != "") {
		return inventory.InvalidToken()
	}
	if info.Token == "" {
		return nil
	}
	t, spend, err := e.Inventory.Token(ctx, info.Token)
	if err != nil {
		return err
	}
	if !e.Now().Before(t.Expires) {
		return inventory.InvalidToken()
	}
	if t.Owner != "" && t.Owner != e.owner {
		return inventory.InvalidToken().WithCause("it is for another user")
	}
	if e.before, e.revision, err = e.Inventory.Get(ctx, t.DeviceID); err != nil {
		return inventory.InvalidToken().Wrapping(err)
	}
	e.spend, e.byAdmin = func(string) ([]store.Op, error) { return spend, nil }, t.ByAdmin
	return e.compare(info.Claims)
}

// compare refuses a machine that is known to be another than the token's device. A claim that could not be read is
// compared with nothing.
func (e *enrollment) compare(claims device.Data) error {
	d := e.before
	if claims.OSType != "" && claims.OSType != d.OSType {
		return inventory.InvalidToken().WithCause("it is for a %s device", d.OSType.Title())
	}
	if tag := device.NormalTag(claims.ReportedAssetTag); tag != "" && !ekTag(d.AssetTag) && tag != d.AssetTag {
		return inventory.InvalidToken().WithCause("it is for device %q, and this machine says it is %q", d.AssetTag, tag)
	}
	if !e.byAdmin {
		return e.mayTake(d)
	}
	return nil
}

func ekTag(tag string) bool { return len(tag) > 3 && tag[:3] == "ek-" }

// place finds, for a machine that tells no tag, the device by its endorsement key, and refuses a key that is not the
// device's or that another device has.
func (e *enrollment) place(ctx context.Context, c device.Credential) error {
	if e.before == nil {
		if c.EKHash == "" {
			return fault.New(fault.Invalid, "this machine tells no asset tag").WithReason("no_asset_tag").
				WithFix("ask a device admin: tctl devices add --os=%s --asset-tag=TAG --enroll", e.start.OS)
		}
		if err := e.find(ctx, ekTagOf(c.EKHash)); err != nil {
			return err
		}
	}
	if err := e.fits(c); err != nil {
		return err
	}
	if err := e.sameMachine(c); err != nil || c.EKHash == "" {
		return err
	}
	other, err := e.Inventory.ByEK(ctx, c.EKHash)
	if err != nil {
		return err
	}
	if other != "" && other != e.before.ID {
		return fault.New(fault.Denied, "this TPM is enrolled as another device").WithReason("ek_of_another").
			WithCause("device %s has the same endorsement key", other).WithFix("tctl devices rm --device-id=%s", other)
	}
	return nil
}

// fits refuses a kind of key that a machine of the device's system does not have: a key file that calls itself an enclave;
// and a device key that was enrolled before, whose counters would begin anew.
func (e *enrollment) fits(c device.Credential) error {
	if err := KindFits(c.Kind, e.before.OSType); err != nil {
		return err
	}
	for _, x := range e.before.Credentials {
		if bytes.Equal(x.PublicKey, c.PublicKey) {
			return fault.New(fault.Denied, "this device key was enrolled before").WithReason("device_key_reused").
				WithFix("tsh device enroll --current-device   (it makes a fresh one)")
		}
	}
	return nil
}

// KindFits refuses a kind of evidence that a system has no hardware for: enclaves are Macs' alone.
func KindFits(k device.Kind, os device.OS) error {
	if k == device.SecureEnclave && os != device.MacOS {
		return fault.New(fault.Denied, "a %s device has no Secure Enclave", os.Title()).WithReason("device_kind").
			WithCause("what calls itself one there is a key in a file")
	}
	return nil
}

// commit makes the credential: device, token, locks on what the old credentials were shown for, and the event.
func (e *enrollment) commit(ctx context.Context, info ceremony.HelloInfo, result ceremony.Result) (enrolled, error) {
	now := e.Now().UTC()
	cred := result.Credential
	cred.ID, cred.Owner, cred.CreateTime = uuid.NewString(), e.owner, now
	after := *e.before
	gone := e.replace(&after, cred)
	after.EnrollStatus = device.Enrolled
	after.Collected = Collect(after.Collected, info.Claims, now)
	after.Health = e.health(&after, cred, now)
	if err := e.allowed(ctx); err != nil {
		return enrolled{}, err
	}
	ops, err := e.Inventory.Update(e.before, &after, e.revision, now)
	if err != nil {
		return enrolled{}, err
	}
	ops = append(ops, records.Unchanged(manifest.User, e.owner, e.user))
	for _, old := range gone {
		op, err := e.credentialLock(old.ID, fmt.Sprintf("device %s was enrolled anew", after.AssetTag), time.Time{})
		if err != nil {
			return enrolled{}, err
		}
		ops = append(ops, op)
	}
	notice, err := e.notice(ctx, &after, now)
	if err != nil {
		return enrolled{}, err
	}
	if e.spend != nil {
		spend, err := e.spend(after.ID)
		if err != nil {
			return enrolled{}, err
		}
		ops = append(ops, spend...)
	}
	ops = append(ops, notice...)
	revision, err := e.Audit.RecordAll(ctx, e.events(&after, cred), ops...)
	if inventory.TokenTaken(err) {
		return enrolled{}, inventory.InvalidToken()
	}
	if err != nil {
		return enrolled{}, e.Changed(err)
	}
	e.Pictures.Reached(ctx, revisionOfLocks(revision, len(gone)))
	msg, err := result.Welcome(ceremony.Welcome{DeviceID: after.ID, AssetTag: after.AssetTag, CredentialID: cred.ID, Level: cred.Attestation})
	if err != nil {
		return enrolled{}, err
	}
	return enrolled{&after, cred, info.Claims}, e.exchanger.Send(ctx, msg)
}

// replace puts the new credential in the place of those that it ends, and returns these: all, or, where several users
// may enroll a device, the owner's own.
func (e *enrollment) replace(after *device.Device, cred device.Credential) (gone []device.Credential) {
	after.Credentials = nil
	for _, c := range e.before.Credentials {
		if e.many() && c.Owner != e.owner {
			after.Credentials = append(after.Credentials, c)
		} else {
			gone = append(gone, c)
		}
	}
	if !e.many() || after.Owner == "" {
		after.Owner = e.owner
	}
	after.Credentials = append(after.Credentials, cred)
	return gone
}

func (e *enrollment) events(after *device.Device, cred device.Credential) []event.Event {
	ev := DeviceEvent(event.DeviceEnroll, e.from, after)
	ev.Success, ev.Device.CredentialID, ev.Resource.Attestation = true, cred.ID, string(cred.Attestation)
	if cred.WouldRefuse != "" {
		ev.Message = "ekcert_policy is monitor, else: " + cred.WouldRefuse
	}
	evs := []event.Event{ev}
	if e.spend != nil {
		spent := DeviceEvent(event.DeviceTokenSpent, e.from, after)
		spent.Success = true
		evs = append(evs, spent)
	}
	return evs
}

// revisionOfLocks is what to wait for: the picture moves only where locks were written.
func revisionOfLocks(revision uint64, locks int) uint64 {
	if locks == 0 {
		return 0
	}
	return revision
}

// notice leaves a line for the owner's next login elsewhere, so that an enrollment that was not theirs is seen.
func (e *enrollment) notice(ctx context.Context, d *device.Device, now time.Time) ([]store.Op, error) {
	if e.from.User.Kind == identity.Bot { // nobody reads it
		return nil, nil
	}
	secret, revision, err := e.Records.Secret(ctx, e.owner)
	if err != nil {
		return nil, err
	}
	secret.Notices = append(secret.Notices, records.Notice{Device: d.ID,
		Text: fmt.Sprintf("device %q/%s was enrolled in your name at %s from %s; if that was not you, tell an administrator",
			d.AssetTag, d.OSType.Title(), now.Format(time.RFC3339), e.from.Addr)})
	if len(secret.Notices) > 10 {
		secret.Notices = secret.Notices[len(secret.Notices)-10:]
	}
	return records.PutSecret(e.owner, secret, revision)
}
