package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/bootlog"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hostinfo"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/trust"
)

// Baseline says what a device is to boot. Accept takes what it booted last though a baseline says otherwise; Clear takes
// the baseline away.
type Baseline struct {
	Watch  []int
	Accept bool
	Clear  bool
}

// SetBaseline pins what a device booted last or, where it has not proven that yet, what its next login proves.
func (s *Service) SetBaseline(ctx context.Context, from identity.Caller, r trust.Ref, b Baseline) (*manifest.Resource, error) {
	for _, pcr := range b.Watch {
		if !slices.Contains(device.QuotedPCRs, pcr) {
			return nil, fault.New(fault.Invalid, "PCR %d is not among %v, which devices quote", pcr, device.QuotedPCRs).WithReason("bad_pcr")
		}
	}
	return s.change(ctx, from, r, func(d *device.Device) (string, error) { return b.set(d, from.Name(), s.Trust.Now().UTC()) })
}

func (b Baseline) set(d *device.Device, by string, now time.Time) (string, error) {
	h := d.Health
	if b.Clear {
		h.Baseline = nil
		h.Settle(device.BootChanged, device.BootUnproven)
		return "baseline taken away", nil
	}
	if slices.ContainsFunc(d.Credentials, func(c device.Credential) bool { return c.Kind != device.TPM2 }) {
		return "", fault.New(fault.Invalid, "device %q has no TPM that quotes what it boots", d.AssetTag).WithReason("no_quotes")
	}
	watch := b.Watch
	if len(watch) == 0 && h.Baseline != nil {
		watch = h.Baseline.Watch
	} else if len(watch) == 0 {
		watch = device.DefaultWatch()
	}
	slices.Sort(watch)
	fresh := device.Baseline{Watch: slices.Compact(watch), Time: now, By: by}
	proven := h.Boot != nil && fresh.Pin(h.Boot)
	if old := h.Baseline; old != nil && len(old.PCRs) > 0 && !b.Accept && h.Boot != nil {
		if differ := old.Differs(h.Boot); len(differ) > 0 {
			return "", changed(d, differ)
		}
	}
	if old := h.Baseline; old != nil && len(old.PCRs) > 0 && !proven && !b.Accept { // what is pinned stays until the rest is proven
		return "", fault.New(fault.Conflict, "device %q has not proven all that is to be pinned", d.AssetTag).WithReason(device.BootUnproven).
			WithCause("%s", unproven(h.Boot)).WithFix("tctl devices baseline --asset-tag=%s --clear, and pin it anew", d.AssetTag)
	}
	if b.Accept && !proven {
		return "", fault.New(fault.Invalid, "device %q has not proven what it booted", d.AssetTag).WithReason(device.BootUnproven).
			WithCause("%s", unproven(h.Boot)).WithFix("tsh login   (on the device; with a baseline or a role that demands Secure Boot it quotes)")
	}
	h.Baseline = &fresh
	if !proven {
		return "baseline wanted: the next login that proves its boot sets it", nil
	}
	h.Settle(device.BootChanged, device.BootUnproven)
	return fmt.Sprintf("baseline set: PCRs %v as booted at %s", fresh.Watch, h.Boot.Time.Format(time.RFC3339)), nil
}

func unproven(b *device.Boot) string {
	if b == nil {
		return "it was never asked to"
	}
	if b.Problem != "" {
		return b.Problem + ": " + b.Detail
	}
	return "its last boot does not replay to every PCR that is pinned"
}

func changed(d *device.Device, differ []int) error {
	var list []string
	for _, pcr := range differ {
		list = append(list, fmt.Sprintf("PCR %d (%s)", pcr, bootlog.Describe(pcr)))
	}
	return fault.New(fault.Conflict, "device %q booted something else than its baseline", d.AssetTag).WithReason(device.BootChanged).
		WithCause("it differs in %s", strings.Join(list, ", ")).
		WithFix("tctl devices baseline --asset-tag=%s --accept   (takes what it boots now)", d.AssetTag)
}

// Accept takes what was noticed of a device as it is: its boot becomes the baseline, its new tag the record's, its TPM's
// figures those to go on from. What was issued under the old tag ends.
func (s *Service) Accept(ctx context.Context, from identity.Caller, r trust.Ref) ([]string, *manifest.Resource, error) {
	before, revision, err := s.Trust.Find(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	if err := s.Trust.May(from, "update", before); err != nil {
		return nil, nil, err
	}
	after := *before
	after.Health = before.CloneHealth()
	var accepted []string
	for _, f := range before.CloneHealth().Findings {
		if err := s.settle(&after, f, from.Name()); err != nil {
			return nil, nil, err
		}
		accepted = append(accepted, f.Reason)
	}
	if len(accepted) == 0 {
		return nil, manifest.New(before, revision), nil
	}
	after.Health.Settle(accepted...)
	res, err := s.Trust.Change(ctx, from, before, &after, revision)
	return accepted, res, err
}

func (s *Service) settle(d *device.Device, f device.Finding, by string) error {
	switch f.Reason {
	case device.CountersBack: // its next figures are the first ones
		d.Credentials = slices.Clone(d.Credentials)
		for i := range d.Credentials {
			d.Credentials[i].Clock = nil
		}
	case device.BootChanged:
		_, err := Baseline{Accept: true}.set(d, by, s.Trust.Now().UTC())
		return err
	case device.TagChanged:
		if n := len(d.Collected); n > 0 {
			if tag := hostinfo.Tag(d.Collected[n-1]); tag != "" {
				d.AssetTag = tag
			}
		}
	}
	return nil
}

// Endorsement is the endorsement key that a device came with last, and who vouches for it.
type Endorsement struct {
	Device *device.Device
	Seen   *device.Seen
	Chain  attestation.Chain // empty where the TPM has no certificate
}

// maxIssuers bounds the authorities that a caller brings along, in bytes.
const maxIssuers = 256 << 10

// Endorsement shows the endorsement key that a device came with; issuers is PEM of authorities that may stand behind
// it. Nothing is fetched: the address that a certificate names is for a person.
func (s *Service) Endorsement(ctx context.Context, from identity.Caller, r trust.Ref, issuers string) (Endorsement, error) {
	d, _, err := s.Trust.Find(ctx, r)
	if err != nil {
		return Endorsement{}, err
	}
	if err := s.Trust.May(from, "read", d); err != nil {
		return Endorsement{}, err
	}
	seen := d.CloneHealth().Seen
	if seen == nil {
		return Endorsement{}, fault.New(fault.NotFound, "no TPM has come as device %q yet", d.AssetTag).WithReason("no_endorsement").
			WithFix("tctl devices enroll --asset-tag=%s", d.AssetTag)
	}
	out := Endorsement{Device: d, Seen: seen}
	if len(seen.EKCert) == 0 {
		return out, nil
	}
	if len(issuers) > maxIssuers {
		return out, fault.New(fault.Invalid, "issuers of more than %d bytes", maxIssuers).WithReason("too_large")
	}
	further, err := attestation.ParseRoots([]byte(issuers))
	if err != nil {
		return out, fault.New(fault.Invalid, "issuers: %v", err).WithReason("bad_issuers")
	}
	listed, err := s.Trust.Roots()
	if err != nil {
		return out, err
	}
	out.Chain, err = attestation.NewChain(seen.EKCert, listed, further, s.Trust.Now())
	return out, err
}

// Approve lets a device enroll with one endorsement key, whether or not an authority vouches for it, and with no other.
func (s *Service) Approve(ctx context.Context, from identity.Caller, r trust.Ref, ekHash string) (*manifest.Resource, error) {
	if !device.ValidEKHash(ekHash) {
		return nil, fault.New(fault.Invalid, "ek_hash: %q is not 64 lower-case hex digits", ekHash).WithReason("invalid_resource")
	}
	return s.change(ctx, from, r, func(d *device.Device) (string, error) {
		d.EKHash = ekHash
		return "endorsement key " + ekHash + " approved", nil
	})
}
