package tsh

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hostinfo"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

// botting is one login of a machine by itself.
type botting struct {
	*app
	state    *tool.State
	fresh    string // the session key's file
	key      hwkey.Key
	attestor hwkey.Attestor // of a machine that is enrolled by this login
	dev      hwkey.Device
	request  client.LoginRequest
}

// botLogin logs a machine in: with a token it is bound to the bot, by its device where it has one, else by a key that is
// kept here; later by the same.
func (a *app) botLogin(ctx context.Context, s *tool.State, f loginFlags) error {
	token, err := a.secret(f.token)
	if err != nil {
		return err
	}
	if err := hwkey.MakeDir(filepath.Dir(s.Home.KeyFile(s.Profile))); err != nil {
		return err
	}
	b := &botting{app: a, state: s, fresh: s.Home.KeyFile(s.Profile) + ".new"}
	defer os.Remove(b.fresh)
	b.request = client.LoginRequest{User: s.Profile.User, TTL: f.ttl, Bot: &client.Bot{Token: token}}
	if token != "" {
		err = b.first()
	} else {
		err = b.again()
	}
	if err != nil {
		return err
	}
	b.request.Key = b.key.Public()
	c := s.Address.Call(nil)
	defer c.Close()
	got, err := s.Address.Login(ctx, c, b.request, nil)
	if err != nil {
		b.forget()
		return err
	}
	if err := b.bound(got); err != nil {
		return err
	}
	if err := a.keep(s, b.fresh, b.key, got); err != nil || f.quiet {
		return err
	}
	return a.printStatus(s, "text")
}

// freshBot is the file of a bot's key that is not bound yet: the one that works stays until it is.
func (b *botting) freshBot() string { return b.state.Home.BotKey(b.state.Profile) + ".new" }

// binding reports whether this login binds the bot to a key in a file.
func (b *botting) binding() bool { return b.request.Bot.Token != "" && b.request.Bot.Key != nil }

// first prepares the login by a token: with a fresh device key where the machine has hardware, else with a key in a file.
func (b *botting) first() error {
	s, bot := b.state, b.request.Bot
	var err error
	bot.Claims, bot.Tag = hostinfo.Collect(cluster.Version, b.Now())
	if b.dev, err = b.Device(s, false); err == nil {
		err = b.enrolling()
	}
	if err == nil {
		return nil
	}
	if !noHardware(err) {
		return err
	}
	b.dev, b.attestor = nil, nil
	key, err := local.NewKey(b.freshBot())
	if err != nil {
		return err
	}
	bot.Key = key
	b.key, err = local.NewKey(b.fresh)
	return err
}

// enrolling makes the keys of a machine that is to be enrolled.
func (b *botting) enrolling() error {
	bot := b.request.Bot
	var err error
	if b.key, err = b.dev.NewSession(b.fresh); err != nil {
		return err
	}
	if b.attestor, err = b.dev.Enroll(b.key); err != nil {
		return err
	}
	if bot.Enroll = b.attestor; bot.Tag == "" {
		bot.Tag, err = b.dev.Tag()
	}
	return err
}

// again prepares a later login, by what the first one left here.
func (b *botting) again() error {
	s := b.state
	kept, err := local.LoadKey(s.Home.BotKey(s.Profile), b.Env("TSH_TPM"))
	if err == nil {
		b.request.Bot.Key = kept
		b.key, err = local.NewKey(b.fresh)
		return err
	}
	if !fault.Because(err, hwkey.ErrNoKey.Reason) {
		return err
	}
	key, proof, err := b.deviceKey(s, b.fresh)
	if err != nil {
		return err
	}
	if key == nil {
		return fault.New(fault.NotFound, "this machine has neither a device nor a key of bot %q", s.Profile.User).WithReason("bot_no_key").
			WithFix("ask an administrator: tctl bots reset %s", s.Profile.User)
	}
	b.key, b.request.Device = key, proof
	return nil
}

// bound keeps what the bot is bound to here, once the login has come through.
func (b *botting) bound(got client.Certificates) error {
	s := b.state
	if !slices.Contains(s.Profile.Bots, s.Profile.User) {
		s.Profile.Bots = append(s.Profile.Bots, s.Profile.User)
	}
	if b.binding() {
		return os.Rename(b.freshBot(), s.Home.BotKey(s.Profile))
	}
	if b.attestor == nil {
		return nil
	}
	w := got.Welcome
	if w == nil {
		return fault.New(fault.Invalid, "the server did not welcome the device")
	}
	if err := b.attestor.Keep(hwkey.Enrollment{Kind: b.dev.Kind(), DeviceID: w.DeviceID, AssetTag: w.AssetTag, CredentialID: w.CredentialID, Level: w.Level}); err != nil {
		return err
	}
	if err := os.Remove(s.Home.BotKey(s.Profile)); err == nil { // of a time when the machine had no device
		fmt.Fprintln(b.Err, "the bot's key in a file was removed: its device stands for it now")
	}
	return nil
}

// forget removes a key that was made for a login which did not come through.
func (b *botting) forget() {
	_ = os.Remove(b.freshBot())
}
