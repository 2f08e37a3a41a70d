// Package trust registers, enrolls and proves devices.
package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/attestation"
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

	roots rootsCache
}

// TokenTTL is how long an enrollment token lives unless told.
const TokenTTL = time.Hour

// keepData is how many collections of what a device says of itself are kept.
const keepData = 5

// rootsCache keeps the authorities of ekcert_allowed_cas as they were read last.
type rootsCache struct {
	mu    sync.Mutex
	text  []string           // guarded by mu
	roots *attestation.Roots // guarded by mu
}

// Roots are the authorities that the cluster lists now, nil where it lists none.
func (s *Service) Roots() (*attestation.Roots, error) {
	listed := s.Settings().DeviceTrust.EKCertAllowedCAs
	if len(listed) == 0 {
		return nil, nil
	}
	c := &s.roots
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots != nil && slices.Equal(c.text, listed) {
		return c.roots, nil
	}
	roots, err := attestation.ParseRoots([]byte(strings.Join(listed, "\n")))
	if err != nil {
		return nil, fmt.Errorf("ekcert_allowed_cas: %w", err)
	}
	c.text, c.roots = slices.Clone(listed), roots
	return roots, nil
}

// May asks access whether the caller may do something to a device.
func (s *Service) May(from identity.Caller, verb string, d *device.Device) error {
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

// DeviceEvent begins an event about a device.
func DeviceEvent(kind event.Kind, from identity.Caller, d *device.Device) event.Event {
	ev := event.Event{Kind: kind, User: from.Name(), Session: &event.Session{Addr: from.Addr.String()}}
	if d != nil {
		ev.Device = &event.Device{ID: d.ID, OSType: string(d.OSType), AssetTag: d.AssetTag}
		ev.Resource = &event.Resource{ResourceKind: "device", ResourceName: d.ID}
	}
	return ev
}

// Fail records a failed attempt and returns why it failed.
func (s *Service) Fail(ctx context.Context, ev event.Event, why error) error {
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
	if !before.IsZero() {
		before = before.Add(lock.Margin)
	}
	return records.Put(manifest.New(&lock.Lock{Name: uuid.NewString(), Target: lock.Target{DeviceCredential: id}, IssuedBefore: before,
		Message: why, Expires: s.Now().UTC().Add(identity.MaxLifetime), CreatedBy: "system"}, 0))
}

// Settings are the cluster's current settings.
func (s *Service) Settings() cluster.Settings {
	p, _ := s.Pictures.Current()
	return p.Settings
}

// Changed words a failed condition of a device's change.
func (s *Service) Changed(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return fault.New(fault.Conflict, "the device was changed meanwhile").WithReason("changed").WithFix("tsh login").Wrapping(err)
	}
	return err
}
