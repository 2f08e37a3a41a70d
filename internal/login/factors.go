package login

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/store"
)

// badLogin is the one fault of a wrong user, password or code: it tells nobody which.
func badLogin() error {
	return fault.New(fault.Unauthenticated, "invalid user name, password or code").WithReason("bad_credentials").
		WithFix("tsh login --user=USER   (an administrator can set it anew: tctl users reset USER)")
}

// factors checks what the person proves, and returns the id of the second factor that they used, "" without one.
func (s *Service) factors(ctx context.Context, from identity.Caller, start Start, c Conversation) (mfa string, err error) {
	if !identity.ValidName(start.User) {
		s.Throttle.Failed("", from.Addr)
		return "", badLogin()
	}
	if start.Invite != "" {
		return s.accept(ctx, from, start, c)
	}
	return s.known(ctx, from, start, c)
}

// known checks the password and, where the cluster wants one, the one-time code of a user.
func (s *Service) known(ctx context.Context, from identity.Caller, start Start, c Conversation) (mfa string, err error) {
	password, err := c.Ask(ctx, Prompt{Kind: AskPassword})
	if err != nil {
		return "", err
	}
	code, wanted := "", s.Settings().NeedsOTP()
	if wanted {
		if code, err = c.Ask(ctx, Prompt{Kind: AskOTP}); err != nil {
			return "", err
		}
	}
	done, err := s.Throttle.Turn(ctx, start.User, from.Addr)
	if err != nil {
		return "", err
	}
	defer done()
	secret, revision, err := s.Records.Secret(ctx, start.User)
	if err != nil {
		return "", err
	}
	right, err := s.Passwords.Matches(ctx, secret.Password, password)
	if err != nil {
		return "", err
	}
	step := secret.OTPStep
	if wanted {
		var ok bool
		step, ok = CheckOTP(secret.OTP, code, secret.OTPStep, s.Now())
		right = right && ok
	}
	if !right {
		s.Throttle.Failed(start.User, from.Addr)
		return "", badLogin()
	}
	if !wanted {
		return "", nil
	}
	// The step is remembered before anything is issued, and only by one of two logins that show the same code.
	if step != secret.OTPStep || secret.OTPID == "" {
		secret.OTPStep = step
		if secret.OTPID == "" {
			secret.OTPID = uuid.NewString()
		}
		_, err = s.remember(ctx, start.User, secret, revision)
	}
	return secret.OTPID, err
}

func (s *Service) remember(ctx context.Context, user string, secret records.Secret, revision uint64) (uint64, error) {
	ops, err := records.PutSecret(user, secret, revision)
	if err != nil {
		return 0, err
	}
	ev := event.Event{Kind: event.UserUpdate, User: user, Success: true,
		Resource: &event.Resource{ResourceKind: "user", ResourceName: user, Changes: []string{"otp_step"}}}
	revision, err = s.Audit.Record(ctx, ev, ops...)
	if conflicts(err) {
		return 0, badLogin()
	}
	return revision, err
}

// notices takes off the secret what is to be shown once at this login: what is not about the device that it is from.
func (s *Service) notices(ctx context.Context, user string, from *identity.Device) ([]string, []store.Op, error) {
	secret, revision, err := s.Records.Secret(ctx, user)
	if err != nil {
		return nil, nil, err
	}
	var show []string
	var stay []records.Notice
	for _, n := range secret.Notices {
		if from != nil && n.Device == from.ID {
			stay = append(stay, n)
		} else {
			show = append(show, n.Text)
		}
	}
	if len(show) == 0 {
		return nil, nil, nil
	}
	secret.Notices = stay
	ops, err := records.PutSecret(user, secret, revision)
	return show, ops, err
}

// accept spends an invite: a new password and, where the cluster wants codes, a new secret proven by a first code.
func (s *Service) accept(ctx context.Context, from identity.Caller, start Start, c Conversation) (mfa string, err error) {
	invite, revision, err := s.Records.Invite(ctx, start.Invite)
	if err != nil {
		s.Throttle.Failed(start.User, from.Addr)
		return "", err
	}
	if invite.User != start.User || invite.Bot || !s.Now().Before(invite.Expires) {
		s.Throttle.Failed(start.User, from.Addr)
		return "", fault.New(fault.Denied, "invalid invite").WithReason("invalid_invite").
			WithCause("it is unknown, was used, is over, or is for another user")
	}
	password, err := c.Ask(ctx, Prompt{Kind: AskNewPassword})
	if err != nil {
		return "", err
	}
	hash, err := s.Passwords.Hash(ctx, password)
	if err != nil {
		return "", err
	}
	secret, secretRevision, err := s.Records.Secret(ctx, start.User)
	if err != nil {
		return "", err
	}
	secret.Password, secret.Changed = hash, s.Now().UTC()
	if s.Settings().NeedsOTP() {
		secret.OTPID = uuid.NewString() // another factor, which locks on the old one do not touch
		if secret.OTP, secret.OTPStep, err = s.newOTP(ctx, start.User, c); err != nil {
			return "", err
		}
	}
	ops, err := records.PutSecret(start.User, secret, secretRevision)
	if err != nil {
		return "", err
	}
	key := records.InviteKey(start.Invite)
	ops = append(ops, store.CheckRevision(key, revision), store.Delete(key))
	ev := event.Event{Kind: event.UserUpdate, User: start.User, Success: true, Message: "invite accepted",
		Session:  &event.Session{Addr: from.Addr.String()},
		Resource: &event.Resource{ResourceKind: "user", ResourceName: start.User, Changes: []string{"password", "otp"}}}
	if _, err := s.Audit.Record(ctx, ev, ops...); err != nil {
		if conflicts(err) {
			return "", fault.New(fault.Denied, "invalid invite").WithReason("invalid_invite").WithCause("it was used meanwhile")
		}
		return "", err
	}
	return secret.OTPID, nil
}

// newOTP shows a new secret and takes a first code of it, three times at most.
func (s *Service) newOTP(ctx context.Context, user string, c Conversation) ([]byte, int64, error) {
	secret := NewOTP()
	for range 3 {
		code, err := c.Ask(ctx, Prompt{Kind: AskNewOTP, URL: OTPURL(s.CA.Cluster(), user, secret)})
		if err != nil {
			return nil, 0, err
		}
		if step, ok := CheckOTP(secret, code, 0, s.Now()); ok {
			return secret, step, nil
		}
	}
	return nil, 0, fault.New(fault.Unauthenticated, "the code does not match the secret shown").WithReason("bad_code").
		WithCause("is this clock, or the phone's, off?").WithFix("run the printed tsh login command again")
}

// ChangePassword sets another password for the caller, who proves the old one and, where the cluster wants codes, a
// code. Certificates that are out stay good.
func (s *Service) ChangePassword(ctx context.Context, from identity.Caller, old, fresh, code string) error {
	if from.User == nil {
		return fault.New(fault.Unauthenticated, "changing a password needs a login").WithFix("tsh login")
	}
	err := s.changePassword(ctx, from, old, fresh, code)
	if err == nil {
		return nil
	}
	ev := event.Event{Kind: event.UserUpdate, User: from.User.Name, Message: fault.Of(err).Text,
		Session:  &event.Session{Addr: from.Addr.String(), Reason: fault.Of(err).Reason},
		Resource: &event.Resource{ResourceKind: "user", ResourceName: from.User.Name, Changes: []string{"password"}}}
	if _, rerr := s.Audit.Record(context.WithoutCancel(ctx), ev); rerr != nil {
		return rerr
	}
	return err
}

func (s *Service) changePassword(ctx context.Context, from identity.Caller, old, fresh, code string) error {
	user := from.User.Name
	done, err := s.Throttle.Turn(ctx, user, from.Addr)
	if err != nil {
		return err
	}
	defer done()
	secret, revision, err := s.Records.Secret(ctx, user)
	if err != nil {
		return err
	}
	right, err := s.Passwords.Matches(ctx, secret.Password, old)
	if err != nil {
		return err
	}
	if s.Settings().NeedsOTP() {
		step, ok := CheckOTP(secret.OTP, code, secret.OTPStep, s.Now())
		right = right && ok
		secret.OTPStep = max(step, secret.OTPStep)
	}
	if !right {
		s.Throttle.Failed(user, from.Addr)
		return badLogin()
	}
	if secret.Password, err = s.Passwords.Hash(ctx, fresh); err != nil {
		return err
	}
	secret.Changed = s.Now().UTC()
	ops, err := records.PutSecret(user, secret, revision)
	if err != nil {
		return err
	}
	_, err = s.Audit.Record(ctx, event.Event{Kind: event.UserUpdate, User: user, Success: true,
		Resource: &event.Resource{ResourceKind: "user", ResourceName: user, Changes: []string{"password"}}}, ops...)
	return records.Conflict(err)
}

// Confirm takes a fresh one-time code of a logged-in user, where the cluster wants codes: for deeds that ask again.
func (s *Service) Confirm(ctx context.Context, from identity.Caller, code string) error {
	if from.User == nil || !s.Settings().NeedsOTP() {
		return nil
	}
	user := from.User.Name
	done, err := s.Throttle.Turn(ctx, user, from.Addr)
	if err != nil {
		return err
	}
	defer done()
	secret, revision, err := s.Records.Secret(ctx, user)
	if err != nil {
		return err
	}
	step, ok := CheckOTP(secret.OTP, code, secret.OTPStep, s.Now())
	if !ok {
		s.Throttle.Failed(user, from.Addr)
		return fault.New(fault.Unauthenticated, "the one-time code was not accepted").WithReason("bad_code").
			WithCause("a code is good once").WithFix("wait for the next code and try again")
	}
	secret.OTPStep = step
	_, err = s.remember(ctx, user, secret, revision)
	return err
}

func conflicts(err error) bool {
	return errors.Is(err, store.ErrConflict)
}
