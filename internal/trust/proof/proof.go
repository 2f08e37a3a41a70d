// Package proof proves enrolled devices at a login, and looks at what the proof shows beside it: what the machine booted,
// and whether its TPM's figures went on.
package proof

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/trust"
)

// Service is the use case.
type Service struct {
	Trust *trust.Service
}

// Authenticate proves an enrolled device for a user: the device ceremony from its first message. The outcome is
// recorded, whatever it is; the notices are for the person.
func (s *Service) Authenticate(ctx context.Context, b ceremony.Binding, hello []byte, c trust.Exchanger) (*identity.Device, []string, error) {
	l := &proving{Service: s.Trust, exchanger: c, user: b.User, ev: event.Event{Kind: event.DeviceAuthenticate, User: b.User}}
	dev, err := l.run(ctx, b, hello)
	if err != nil {
		return nil, nil, l.refused(ctx, err)
	}
	return dev, l.notices, nil
}

// proving is one login's device proof under way.
type proving struct {
	*trust.Service
	exchanger trust.Exchanger
	user      string
	ev        event.Event
	before    *device.Device
	revision  uint64
	cred      *device.Credential
	health    *device.Health // what will be known of the device
	noticed   bool           // health is to be kept though the proof is refused
	notices   []string
}

func (l *proving) run(ctx context.Context, b ceremony.Binding, hello []byte) (*identity.Device, error) {
	v, err := ceremony.NewVerifier(b, attestation.NewJudge(nil, l.Settings().DeviceTrust.AllowSoftwareKeys, l.Now()), rand.Reader)
	if err != nil {
		return nil, err
	}
	info, await, err := v.Hello(hello)
	if err != nil {
		return nil, err
	}
	l.before, l.cred, l.revision, err = l.credential(ctx, info, b.User)
	if d := l.before; d != nil {
		l.ev.Device = &event.Device{ID: d.ID, OSType: string(d.OSType), AssetTag: d.AssetTag, CredentialID: info.CredentialID}
	}
	if err != nil {
		return nil, err
	}
	l.ev.Resource = &event.Resource{ResourceKind: "device", ResourceName: l.before.ID, Attestation: string(l.cred.Attestation)}
	if err := trust.KindFits(l.cred.Kind, l.before.OSType); err != nil { // enrolled before that was asked
		return nil, err
	}
	l.health = l.before.CloneHealth()
	quote, err := l.wantsQuote(ctx)
	if err != nil {
		return nil, err
	}
	result, err := trust.Prove(ctx, await, ceremony.Ask{Credential: l.cred, Quote: quote}, l.exchanger)
	if err != nil {
		return nil, err
	}
	if err := l.judge(info.Claims, result); err != nil {
		return nil, err
	}
	return l.commit(ctx, info.Claims, result)
}

// commit writes what the proof showed, and welcomes the device.
func (l *proving) commit(ctx context.Context, claims device.Data, result ceremony.Result) (*identity.Device, error) {
	after := *l.before
	after.Credentials = slices.Clone(l.before.Credentials)
	if kept, ok := after.Credential(l.cred.ID); ok {
		kept.Clock = l.clock(result.Credential.Clock)
	}
	after.Collected = trust.Collect(after.Collected, claims, l.Now())
	after.Health = l.health
	ops, err := l.Inventory.Update(l.before, &after, l.revision, l.Now())
	if err != nil {
		return nil, err
	}
	l.ev.Success, l.ev.Message = true, l.findings()
	if _, err := l.Audit.Record(ctx, l.ev, ops...); err != nil {
		l.noticed = false
		return nil, l.Changed(err)
	}
	msg, err := result.Welcome(ceremony.Welcome{DeviceID: after.ID, AssetTag: after.AssetTag, CredentialID: l.cred.ID, Level: l.cred.Attestation})
	if err != nil {
		return nil, err
	}
	dev := &identity.Device{ID: after.ID, AssetTag: after.AssetTag, CredentialID: l.cred.ID, Level: l.cred.Attestation, OS: after.OSType,
		Claims: device.Claims{OSVersion: claims.OSVersion}}
	_, dev.Claims.CountersBack = l.health.Found(device.CountersBack)
	if result.Quote != nil {
		dev.Claims.SecureBoot = l.health.Boot.SecureBoot
	}
	return dev, l.exchanger.Send(ctx, msg)
}

// findings are the reasons of what is not accepted, for the event.
func (l *proving) findings() string {
	var out []string
	for _, f := range l.health.Findings {
		out = append(out, f.Reason)
	}
	if len(out) == 0 {
		return ""
	}
	return "noticed: " + strings.Join(out, ", ")
}

// refused records a proof that failed; what was noticed of the device is kept with it.
func (l *proving) refused(ctx context.Context, why error) error {
	f := fault.Of(why)
	l.ev.Success, l.ev.Message = false, f.Text
	if f.Cause != "" && l.noticed {
		l.ev.Message += ": " + f.Cause
	}
	if l.noticed {
		after := *l.before
		after.Health = l.health
		if ops, err := l.Inventory.Update(l.before, &after, l.revision, l.Now()); err == nil && l.keep(ctx, f, ops) {
			return why
		}
	}
	return l.Fail(ctx, l.ev, why)
}

// keep records the failure together with what was noticed; false where the device was changed meanwhile.
func (l *proving) keep(ctx context.Context, f *fault.Error, ops []store.Op) bool {
	ev := l.ev
	ev.Session = &event.Session{Reason: f.Reason}
	_, err := l.Audit.Record(context.WithoutCancel(ctx), ev, ops...)
	return err == nil
}

// unknownCredential is the fault of a device key that the cluster does not have, or no longer.
func unknownCredential() error {
	return fault.New(fault.Denied, "unauthorized device").WithReason("unknown_device_credential").
		WithCause("the cluster does not know this device's key: it was removed, unenrolled, or enrolled anew").
		WithFix("tsh device enroll --current-device   (or ask a device admin for an enrollment token)")
}

// credential finds the credential that a Hello names, of a device that the user may log in from.
func (s *proving) credential(ctx context.Context, info ceremony.HelloInfo, user string) (*device.Device, *device.Credential, uint64, error) {
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
