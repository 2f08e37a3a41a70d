// Package trust registers, enrolls and proves devices.
package trust

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/target"
)

// Exchanger is the device on the other end of a ceremony.
type Exchanger interface {
	// Exchange sends a message and returns the answer.
	Exchange(ctx context.Context, msg []byte) ([]byte, error)
	// Send sends the last message.
	Send(ctx context.Context, msg []byte) error
	// Receive waits for a message that nothing asked for: the first one, or the next piece of an event log.
	Receive(ctx context.Context) ([]byte, error)
}

// Pictures gives the current picture, and waits until it holds what was written.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
	Reached(ctx context.Context, revision uint64)
}

// Audit records events together with what they tell of, all or nothing.
type Audit interface {
	Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error)
	RecordAll(ctx context.Context, evs []event.Event, ops ...store.Op) (uint64, error)
}

// Confirmer asks a person's second factor again.
type Confirmer interface {
	Confirm(ctx context.Context, from identity.Caller, code string) error
}

// Service is the use case. ClusterCA is SHA-256 of the TLS host authority's SPKI.
type Service struct {
	Inventory *inventory.Inventory
	Records   *records.Records
	Audit     Audit
	Pictures  Pictures
	Confirm   Confirmer
	ClusterCA []byte
	Now       func() time.Time
}

// TokenTTL is how long an enrollment token lives unless told.
const TokenTTL = time.Hour

// keepData is how many collections of what a device says of itself are kept.
const keepData = 5

func (s *Service) judge() (attestation.Judge, error) {
	picture, _ := s.Pictures.Current()
	dt := picture.Settings.DeviceTrust
	var roots *attestation.Roots
	if len(dt.EKCertAllowedCAs) > 0 {
		var err error
		if roots, err = attestation.ParseRoots([]byte(strings.Join(dt.EKCertAllowedCAs, "\n"))); err != nil {
			return attestation.Judge{}, fmt.Errorf("ekcert_allowed_cas: %w", err)
		}
	}
	return attestation.NewJudge(roots, dt.AllowSoftwareKeys, s.Now()), nil
}

// may asks access whether the caller may do something to a device.
func (s *Service) may(from identity.Caller, verb string, d *device.Device) error {
	if from.Local {
		return nil
	}
	picture, _ := s.Pictures.Current()
	t := target.Target{Kind: target.Administration, Name: string(manifest.Device)}
	if d != nil {
		t.ID, t.Object = d.ID, Object(d)
	}
	decision, in := picture.Decide(from.User, t, target.Action{Verb: verb, From: from.Addr}, s.Now())
	if !decision.Allowed {
		return access.Refusal(decision, in)
	}
	return nil
}

// Object is a device as `where` predicates see it.
func Object(d *device.Device) map[string]any {
	return map[string]any{"kind": "device", "name": d.ID, "owner": d.Owner, "asset_tag": d.AssetTag,
		"os_type": string(d.OSType), "enroll_status": string(d.EnrollStatus)}
}

// deviceEvent begins an event about a device.
func deviceEvent(kind event.Kind, from identity.Caller, d *device.Device) event.Event {
	ev := event.Event{Kind: kind, User: from.Name(), Session: &event.Session{Addr: from.Addr.String()}}
	if d != nil {
		ev.Device = &event.Device{ID: d.ID, OSType: string(d.OSType), AssetTag: d.AssetTag}
		ev.Resource = &event.Resource{ResourceKind: "device", ResourceName: d.ID}
	}
	return ev
}

// fail records a failed attempt and returns why it failed.
func (s *Service) fail(ctx context.Context, ev event.Event, why error) error {
	f := fault.Of(why)
	ev.Success, ev.Message = false, f.Text
	if ev.Session == nil {
		ev.Session = &event.Session{}
	}
	ev.Session.Reason = f.Reason
	if _, err := s.Audit.Record(context.WithoutCancel(ctx), ev); err != nil {
		return err
	}
	return why
}

// credentialLock ends what was issued on a credential: all of it where the credential is no more, what was issued
// before a moment where it stays.
func (s *Service) credentialLock(id, why string, before time.Time) (store.Op, error) {
	return records.Put(manifest.New(&lock.Lock{Name: uuid.NewString(), Target: lock.Target{DeviceCredential: id}, IssuedBefore: before,
		Message: why, Expires: s.Now().UTC().Add(identity.MaxLifetime), CreatedBy: "system"}, 0))
}

// Settings are the cluster's current settings.
func (s *Service) Settings() cluster.Settings {
	p, _ := s.Pictures.Current()
	return p.Settings
}

// Authenticate proves an enrolled device for a user: the device ceremony from its first message. The outcome is
// recorded, whatever it is.
func (s *Service) Authenticate(ctx context.Context, b ceremony.Binding, hello []byte, c Exchanger) (*identity.Device, error) {
	ev := event.Event{Kind: event.DeviceAuthenticate, User: b.User}
	dev, err := s.authenticate(ctx, b, hello, c, &ev)
	if err != nil {
		return nil, s.fail(ctx, ev, err)
	}
	return dev, nil
}

func (s *Service) authenticate(ctx context.Context, b ceremony.Binding, hello []byte, c Exchanger, ev *event.Event) (*identity.Device, error) {
	judge, err := s.judge()
	if err != nil {
		return nil, err
	}
	v, err := ceremony.NewVerifier(b, judge, rand.Reader)
	if err != nil {
		return nil, err
	}
	info, await, err := v.Hello(hello)
	if err != nil {
		return nil, err
	}
	before, cred, revision, err := s.credential(ctx, info, b.User)
	if before != nil {
		ev.Device = &event.Device{ID: before.ID, OSType: string(before.OSType), AssetTag: before.AssetTag, CredentialID: info.CredentialID}
	}
	if err != nil {
		return nil, err
	}
	result, err := prove(ctx, await, ceremony.Ask{Credential: cred}, c)
	if err != nil {
		return nil, err
	}
	after := *before
	after.Credentials = slices.Clone(before.Credentials)
	if kept, ok := after.Credential(cred.ID); ok {
		kept.Clock = result.Credential.Clock
	}
	after.Collected = collect(after.Collected, info.Claims, s.Now())
	ops, err := s.Inventory.Update(before, &after, revision, s.Now())
	if err != nil {
		return nil, err
	}
	ev.Success = true
	if _, err := s.Audit.Record(ctx, *ev, ops...); err != nil {
		return nil, s.changed(err)
	}
	msg, err := result.Welcome(ceremony.Welcome{DeviceID: before.ID, AssetTag: before.AssetTag, CredentialID: cred.ID, Level: cred.Attestation})
	if err != nil {
		return nil, err
	}
	return s.identityDevice(&after, cred, info.Claims), c.Send(ctx, msg)
}

func (s *Service) identityDevice(d *device.Device, c *device.Credential, claims device.Data) *identity.Device {
	return &identity.Device{ID: d.ID, AssetTag: d.AssetTag, CredentialID: c.ID, Level: c.Attestation, OS: d.OSType,
		Claims: device.Claims{OSVersion: claims.OSVersion}}
}

func (s *Service) changed(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return fault.New(fault.Conflict, "the device was changed meanwhile").WithReason("changed").WithFix("tsh login").Wrapping(err)
	}
	return err
}

// unknownCredential is the fault of a device key that the cluster does not have, or no longer.
func unknownCredential() error {
	return fault.New(fault.Denied, "unauthorized device").WithReason("unknown_device_credential").
		WithCause("the cluster does not know this device's key: it was removed, unenrolled, or enrolled anew").
		WithFix("tsh device enroll --current-device   (or ask a device admin for an enrollment token)")
}

// credential finds the credential that a Hello names, of a device that the user may log in from.
func (s *Service) credential(ctx context.Context, info ceremony.HelloInfo, user string) (*device.Device, *device.Credential, uint64, error) {
	d, revision, err := s.Inventory.ByCredential(ctx, info.CredentialID)
	if err != nil {
		return nil, nil, 0, err
	}
	if d == nil {
		return nil, nil, 0, unknownCredential()
	}
	cred, ok := d.Credential(info.CredentialID)
	if !ok || !d.Enrolled() {
		return d, nil, 0, unknownCredential()
	}
	if cred.Owner != user {
		return d, nil, 0, fault.New(fault.Denied, "unauthorized device").WithReason("device_of_another").
			WithCause("this device is enrolled by another user").WithFix("ask a device admin: tctl devices enroll --asset-tag=%s --owner=%s", d.AssetTag, user)
	}
	if !cred.Attestation.Hardware() && !s.Settings().DeviceTrust.AllowSoftwareKeys {
		return d, nil, 0, fault.New(fault.Denied, "unauthorized device").WithReason("software_keys_off").
			WithCause("the cluster does not take software keys any more")
	}
	return d, cred, revision, nil
}

// prove runs the middle of every ceremony.
func prove(ctx context.Context, await *ceremony.AwaitChallenge, ask ceremony.Ask, c Exchanger) (ceremony.Result, error) {
	challenge, awaitProof, err := await.Challenge(ask)
	if err != nil {
		return ceremony.Result{}, err
	}
	proof, err := c.Exchange(ctx, challenge)
	if err != nil {
		return ceremony.Result{}, err
	}
	return finish(ctx, awaitProof, proof, c)
}

// finish judges a proof, and gathers the event log that follows a quote.
func finish(ctx context.Context, await *ceremony.AwaitProof, proof []byte, c Exchanger) (ceremony.Result, error) {
	result, log, err := await.Proof(proof)
	for more := log != nil; more && err == nil; {
		var piece []byte
		if piece, err = c.Receive(ctx); err == nil {
			result, more, err = log.Log(piece)
		}
	}
	return result, err
}

// collect keeps the newest collections.
func collect(have []device.Data, d device.Data, now time.Time) []device.Data {
	d.CollectTime = now.UTC()
	have = append(slices.Clone(have), d)
	if len(have) > keepData {
		have = have[len(have)-keepData:]
	}
	return have
}
