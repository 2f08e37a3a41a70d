package client

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// Bot is a machine that logs in by itself. Token is for its first login, which enrolls the machine by Enroll, a fresh
// device key, where it has one; Key is what it keeps where it has none.
type Bot struct {
	Token  string
	Key    crypto.Signer
	Enroll ceremony.Key
	Claims device.Data
	Tag    string
}

// enroll begins the enrollment of a bot's machine.
func (l *loginCall) enroll(spki []byte) error {
	b := l.req.Bot
	prover, err := ceremony.NewProver(ceremony.Binding{Purpose: ceremony.Enroll, ClusterCA: l.pin, User: l.req.User, SessionKey: spki}, b.Enroll)
	if err != nil {
		return err
	}
	msg, next, err := prover.Hello(ceremony.Introduction{Claims: b.Claims})
	if err != nil {
		return err
	}
	l.prover, l.spoken = next, true
	return l.send(&pb.LoginRequest{Step: &pb.LoginRequest_Enroll{Enroll: &pb.BotEnroll{Hello: msg, OsType: string(b.Claims.OSType), AssetTag: b.Tag}}})
}

// sign answers with the key that the bot keeps.
func (l *loginCall) sign(nonce, spki []byte) error {
	if l.req.Bot == nil || l.req.Bot.Key == nil {
		return fault.New(fault.NotFound, "this machine has no key of bot %q", l.req.User).WithReason("bot_no_key").
			WithFix("ask an administrator: tctl bots reset %s", l.req.User)
	}
	key, err := x509.MarshalPKIXPublicKey(l.req.Bot.Key.Public())
	if err != nil {
		return err
	}
	digest := ceremony.Binding{ClusterCA: l.pin, User: l.req.User, SessionKey: spki}.BotDigest(key, nonce)
	signature, err := l.req.Bot.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	return l.send(&pb.LoginRequest{Step: &pb.LoginRequest_Bot{Bot: &pb.BotProof{Key: key, Signature: signature}}})
}
