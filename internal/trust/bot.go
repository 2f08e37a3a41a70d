package trust

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/store"
)

// BotStart is a bot's first login on a machine with a device key: an enrollment from its first message. Bind gives, for
// the device that it becomes, what has to happen with it: the token spent, the bot bound.
type BotStart struct {
	From    identity.Caller
	Binding ceremony.Binding
	Hello   []byte
	OS      device.OS
	Tag     string
	Bind    func(deviceID string) ([]store.Op, error)
}

// EnrollBot enrolls the machine that a bot logs in from, and registers it where it is not there: the administrator who
// made the bot's token said so. A device of somebody else is not taken.
func (s *Service) EnrollBot(ctx context.Context, b BotStart, c Exchanger) (*identity.Device, error) {
	_, revision, err := s.Records.Account(ctx, b.Binding.User)
	if err != nil {
		return nil, err
	}
	who := &identity.User{Name: b.Binding.User, Kind: identity.Bot}
	locks, err := s.Records.Locks(ctx)
	if err != nil {
		return nil, err
	}
	if wait := locks.Ahead(who, s.Now()); wait > 0 { // the bot has just been reset
		select {
		case <-time.After(wait + time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	who.Validity.IssuedAt = s.Now()
	e := &enrollment{Service: s, from: identity.Caller{User: who, Addr: b.From.Addr}, exchanger: c, user: revision, owner: who.Name,
		byAdmin: true, spend: b.Bind, start: EnrollStart{OS: b.OS, AssetTag: b.Tag, Register: true}}
	if b.Tag != "" {
		if err := e.find(ctx, b.Tag); err != nil {
			return nil, e.refused(ctx, err)
		}
	}
	done, err := e.ceremony(ctx, b.Hello, b.Binding)
	if err != nil {
		if e.registered { // a login that is refused leaves nothing behind
			err = errors.Join(err, e.unregister(context.WithoutCancel(ctx)))
		}
		return nil, e.refused(ctx, err)
	}
	d, cred := done.device, done.credential
	return &identity.Device{ID: d.ID, AssetTag: d.AssetTag, CredentialID: cred.ID, Level: cred.Attestation, OS: d.OSType,
		Claims: device.Claims{OSVersion: done.claims.OSVersion}}, nil
}

// unregister takes away the device that this enrollment registered.
func (e *enrollment) unregister(ctx context.Context) error {
	d := e.before
	e.before = nil
	ev := DeviceEvent(event.DeviceDelete, e.from, d)
	ev.Success, ev.Message = true, "its enrollment was refused"
	_, err := e.Audit.Record(ctx, ev, e.Inventory.Remove(d, e.revision)...)
	return err
}
