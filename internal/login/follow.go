package login

import (
	"context"
	"errors"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/store"
)

// issueTries bounds how often an issue is begun anew because another login on the same device came between.
const issueTries = 5

// issue signs, given that the user's record is at the revision that everything was decided by; locks are those in store. A login with a device
// goes into the feed with the certificates that it follows, so that the sessions they opened go on as it.
func (s *Service) issue(ctx context.Context, start Start, a Applicant, locks lock.Set) (Result, error) {
	id := a.ID
	given := []store.Op{records.Unchanged(manifest.User, id.Name, a.revision)}
	for try := 1; ; try++ {
		prepared, err := s.CA.PrepareUser(ca.UserRequest{Identity: id, Key: start.Key, Logins: a.logins, Device: event.DeviceOf(id.Device), Given: given})
		if err != nil {
			return Result{}, err
		}
		with, err := s.follow(ctx, prepared.Identity(), locks)
		if err != nil {
			return Result{}, err
		}
		certs, err := prepared.Issue(ctx, with...)
		var c *store.ConflictError
		if errors.As(err, &c) && id.Device != nil && c.Key == records.LoginKey(id.Device.CredentialID) && try < issueTries {
			continue
		}
		if conflicts(err) {
			return Result{}, userChanged().Wrapping(err)
		}
		return Result{UserCertificates: certs}, err
	}
}

// follow are the operations that remember a login with a device, and tell agents what it follows. What a lock ended is
// not followed.
func (s *Service) follow(ctx context.Context, u identity.User, locks lock.Set) ([]store.Op, error) {
	if u.Device == nil {
		return nil, nil
	}
	credential := u.Device.CredentialID
	history, revision, err := s.Records.Login(ctx, credential)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	follows := history.Follow(&u, now, func(v identity.Validity) bool {
		was := u
		was.Validity = v
		return locks.MatchUser(&was, now) != nil
	})
	ops, err := records.PutLogin(credential, history, revision)
	if err != nil || len(follows) == 0 {
		return ops, err
	}
	put, err := records.Put(manifest.New(&identity.Login{Credential: credential, Follows: follows, Identity: u}, 0))
	return append(ops, put), err
}
