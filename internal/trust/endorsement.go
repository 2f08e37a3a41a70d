package trust

import (
	"context"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
)

// maxCredentials is how many users may have one device enrolled.
const maxCredentials = 32

// ekTagOf is the asset tag of a machine that tells none.
func ekTagOf(hash string) string { return "ek-" + hash[:16] }

// judge is who judges the enrollment's evidence.
func (e *enrollment) judge(ctx context.Context) (attestation.Judge, error) {
	roots, err := e.Roots()
	if err != nil {
		return attestation.Judge{}, err
	}
	dt := e.Settings().DeviceTrust
	j := attestation.NewJudge(roots, dt.AllowSoftwareKeys, e.Now()).Approving(func(hash string) bool { return e.approved(ctx, hash) })
	if dt.EKCertPolicy == cluster.Monitor {
		j = j.Monitoring()
	}
	return j, nil
}

// approved reports whether an administrator has registered the device with this very endorsement key.
func (e *enrollment) approved(ctx context.Context, hash string) bool {
	d := e.before
	if d == nil {
		d, _, _ = e.Inventory.ByTag(ctx, e.start.OS, ekTagOf(hash))
	}
	return d != nil && d.EKHash == hash
}

// sameMachine refuses a machine that is not the device: whose endorsement key is another than the one that is
// registered, or than that of the users who stay enrolled.
func (e *enrollment) sameMachine(c device.Credential) error {
	shown := c.EKHash
	if shown == "" {
		shown = "none (a " + string(c.Kind) + " key)"
	}
	if want := e.before.EKHash; want != "" && want != c.EKHash {
		return fault.New(fault.Denied, "this machine is not the one that is registered").WithReason("ek_hash_mismatch").
			WithCause("device %q is registered with EK hash %s, and this TPM's is %s", e.before.AssetTag, want, shown).
			WithFix("ask a device admin: tctl devices trust --asset-tag=%s --ek-hash=%s", e.before.AssetTag, c.EKHash)
	}
	if !e.many() {
		return nil
	}
	others := 0
	for _, x := range e.before.Credentials {
		if x.Owner == e.owner {
			continue
		}
		if others++; c.EKHash == "" && !e.byAdmin {
			return fault.New(fault.Denied, "whether this is the machine that others have enrolled cannot be told").WithReason("ek_hash_mismatch").
				WithCause("a %s key says nothing of the machine", c.Kind).
				WithFix("ask a device admin: tctl devices enroll --asset-tag=%s --owner=%s", e.before.AssetTag, e.owner)
		}
		if x.EKHash != c.EKHash || x.Kind != c.Kind {
			return fault.New(fault.Denied, "this machine is not the one that others have enrolled").WithReason("ek_hash_mismatch").
				WithCause("device %q is enrolled by %s with EK hash %q, and this TPM's is %s", e.before.AssetTag, x.Owner, x.EKHash, shown).
				WithFix("ask a device admin: tctl devices unenroll --asset-tag=%s", e.before.AssetTag)
		}
	}
	if others >= maxCredentials {
		return fault.New(fault.Denied, "the device is enrolled by %d users already", others).WithReason("too_many_owners").
			WithFix("ask a device admin: tctl devices unenroll --asset-tag=%s", e.before.AssetTag)
	}
	return nil
}

// health is what is known of the device after an enrollment: a new key has no last figures to go back from.
func (e *enrollment) health(after *device.Device, cred device.Credential, now time.Time) *device.Health {
	h := after.CloneHealth()
	h.Settle(device.EKUntrusted, device.Unenrolled)
	if len(after.Credentials) == 1 { // others' figures stay as they are
		h.Settle(device.CountersBack, device.FirmwareChanged)
	}
	if cred.WouldRefuse != "" {
		h.Note(device.Finding{Reason: device.EKUntrusted, Text: cred.WouldRefuse, Time: now})
	}
	if seen := e.seen(now, ""); seen != nil {
		h.Seen = seen
	}
	return h
}

// seen is the endorsement key that the machine came with, or nil.
func (e *enrollment) seen(now time.Time, refused string) *device.Seen {
	if e.evidence.Kind != device.TPM2 {
		return nil
	}
	hash, err := attestation.EKHash(e.evidence)
	if err != nil {
		return nil
	}
	return &device.Seen{Time: now, EKHash: hash, EKCert: e.evidence.EKCert, Refused: refused}
}

// refused records an enrollment that failed. Where the endorsement key was why, it is kept with the device, so that an
// administrator can look at it, and the refusal says what to type.
func (e *enrollment) refused(ctx context.Context, why error) error {
	f := fault.Of(why)
	ev := DeviceEvent(event.DeviceEnroll, e.from, e.before)
	if !strings.HasPrefix(f.Reason, "ekcert_") && f.Reason != "ek_hash_mismatch" {
		return e.Fail(ctx, ev, why)
	}
	now := e.Now().UTC()
	seen := e.seen(now, f.Reason)
	if seen == nil {
		return e.Fail(ctx, ev, why)
	}
	if !strings.Contains(f.Cause, seen.EKHash) {
		f = f.WithCause("%s; its EK hash is %s", f.Cause, seen.EKHash)
	}
	if e.before == nil {
		return e.Fail(ctx, ev, f.WithFix("ask a device admin: tctl devices add --os=%s --ek-hash=%s", e.start.OS, seen.EKHash))
	}
	if f.Fix == "" {
		f = f.WithFix("ask a device admin: tctl devices trust --asset-tag=%s --ek-hash=%s", e.before.AssetTag, seen.EKHash)
	}
	after := *e.before
	after.Health = after.CloneHealth()
	after.Health.Seen = seen
	ops, err := e.Inventory.Update(e.before, &after, e.revision, now)
	if err == nil {
		ev.Message, ev.Session.Reason = f.Text, f.Reason
		if _, err = e.Audit.Record(context.WithoutCancel(ctx), ev, ops...); err == nil {
			return f
		}
	}
	return e.Fail(ctx, ev, f) // the device was changed meanwhile
}
