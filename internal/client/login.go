package client

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/ssh"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/wire"

	"connectrpc.com/connect"
)

// Person answers what a login asks.
type Person interface {
	Password(ctx context.Context) (string, error)
	NewPassword(ctx context.Context) (string, error)
	OTP(ctx context.Context) (string, error)
	// NewOTP shows a new secret, an otpauth:// URL, and asks for a first code of it.
	NewOTP(ctx context.Context, url string) (string, error)
}

// LoginRequest asks for certificates. Certificate is the DER of the one that a reissue upgrades.
type LoginRequest struct {
	User        string
	Invite      string
	TTL         time.Duration
	Key         crypto.PublicKey
	Certificate []byte
	Device      *DeviceProof
	Bot         *Bot // a machine logs in by itself
}

// DeviceProof is an enrolled device that vouches for the session key.
type DeviceProof struct {
	Key          ceremony.Key
	CredentialID string
	Claims       device.Data
}

// Certificates are what a login brings home. DeviceFault says why there is no device proof where one was tried.
type Certificates struct {
	SSH             *ssh.Certificate
	TLS             []byte
	DialTicket      string
	HostAuthorities []ssh.PublicKey
	JumpAuthorities []ssh.PublicKey
	Notices         []string
	DeviceFault     error
	Welcome         *ceremony.Welcome // of a bot whose machine was enrolled
	AutoEnroll      bool              // a registered device may enroll now without being asked to
}

// Hello is what a cluster says of itself.
type Hello struct {
	Cluster       string
	Version       string
	SecondFactors []string
}

// Hello asks the cluster who it is.
func (c *Cluster) Hello(ctx context.Context) (Hello, error) {
	r, err := c.login.Hello(ctx, connect.NewRequest(&pb.HelloRequest{}))
	if err != nil {
		return Hello{}, err
	}
	if r.Msg.ProtocolVersion != cluster.ProtocolVersion {
		return Hello{}, fault.New(fault.Unsupported, "the cluster speaks protocol %d (Sallyport %s), this program %d", r.Msg.ProtocolVersion, r.Msg.Version, cluster.ProtocolVersion).
			WithReason("protocol_version").WithFix("install Sallyport %s", r.Msg.Version)
	}
	return Hello{r.Msg.ClusterName, r.Msg.Version, r.Msg.SecondFactors}, nil
}

// ChangePassword sets another password for the caller.
func (c *Cluster) ChangePassword(ctx context.Context, old, fresh, otp string) error {
	_, err := c.login.ChangePassword(ctx, connect.NewRequest(&pb.ChangePasswordRequest{OldPassword: old, NewPassword: fresh, Otp: otp}))
	return err
}

// loginCall is one login under way.
type loginCall struct {
	stream *connect.BidiStreamForClient[pb.LoginRequest, pb.LoginResponse]
	req    LoginRequest
	person Person
	pin    []byte
	prover *ceremony.AwaitingChallenge
	await  *ceremony.AwaitingWelcome
	fault  error
	spoken bool // a device message was sent

	welcome    *ceremony.Welcome // of a bot's machine
	autoEnroll bool
}

// Login runs one login; with a Certificate in the request it is a reissue, and person may be nil.
func (a Address) Login(ctx context.Context, c *Cluster, req LoginRequest, person Person) (Certificates, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	spki, err := x509.MarshalPKIXPublicKey(req.Key)
	if err != nil {
		return Certificates{}, err
	}
	l := &loginCall{stream: c.login.Login(ctx), req: req, person: person, pin: cluster.PinHash(a.Authority)}
	defer func() {
		_ = l.stream.CloseRequest()
		_ = l.stream.CloseResponse()
	}()
	start := &pb.LoginStart{User: req.User, Invite: req.Invite, TtlSeconds: int64(req.TTL / time.Second), SessionKey: spki,
		Reissue: req.Certificate != nil, ClientVersion: cluster.Version}
	if req.Bot != nil {
		start.Bot, start.Token = true, req.Bot.Token
	}
	if err := l.send(&pb.LoginRequest{Step: &pb.LoginRequest_Start{Start: start}}); err != nil {
		return Certificates{}, err
	}
	for {
		m, err := l.stream.Receive()
		if err != nil {
			return Certificates{}, FromRPC(err)
		}
		if got := m.GetCertificates(); got != nil {
			return l.certificates(got)
		}
		if err := l.step(ctx, m, spki); err != nil {
			return Certificates{}, err
		}
	}
}

// send passes a message on; where the server has ended the stream, its reason is what Receive says.
func (l *loginCall) send(m *pb.LoginRequest) error {
	err := l.stream.Send(m)
	if errors.Is(err, io.EOF) {
		if _, rerr := l.stream.Receive(); rerr != nil {
			return FromRPC(rerr)
		}
	}
	return FromRPC(err)
}

func (l *loginCall) step(ctx context.Context, m *pb.LoginResponse, spki []byte) error {
	switch s := m.Step.(type) {
	case *pb.LoginResponse_Prompt:
		answer, err := l.ask(ctx, s.Prompt)
		if err != nil {
			return err
		}
		return l.send(&pb.LoginRequest{Step: &pb.LoginRequest_Answer{Answer: answer}})
	case *pb.LoginResponse_DeviceWanted:
		l.autoEnroll = s.DeviceWanted.GetAutoEnroll()
		if s.DeviceWanted.GetEnroll() && l.req.Bot != nil && l.req.Bot.Enroll != nil {
			return l.enroll(spki)
		}
		return l.hello(spki)
	case *pb.LoginResponse_BotWanted:
		return l.sign(s.BotWanted.GetNonce(), spki)
	case *pb.LoginResponse_Device:
		return l.device(s.Device)
	case *pb.LoginResponse_DeviceRefused:
		if l.fault == nil { // what failed here is closer to the cause
			l.fault = wire.FromFault(s.DeviceRefused)
		}
		return nil
	}
	return fault.New(fault.Unsupported, "the server asks for something that this version does not know").WithFix("install the server's version of tsh")
}

func (l *loginCall) ask(ctx context.Context, p *pb.Prompt) (string, error) {
	if l.person == nil {
		return "", fault.New(fault.Unauthenticated, "the server asks for a password").WithFix("tsh login")
	}
	switch p.Kind {
	case pb.Prompt_KIND_PASSWORD:
		return l.person.Password(ctx)
	case pb.Prompt_KIND_NEW_PASSWORD:
		return l.person.NewPassword(ctx)
	case pb.Prompt_KIND_OTP:
		return l.person.OTP(ctx)
	case pb.Prompt_KIND_NEW_OTP:
		return l.person.NewOTP(ctx, p.OtpUrl)
	}
	return "", fault.New(fault.Unsupported, "the server asks for something that this version does not know")
}

// hello begins the device ceremony, or says why there is none.
func (l *loginCall) hello(spki []byte) error {
	d := l.req.Device
	if d == nil {
		return l.noDevice("not enrolled")
	}
	b := ceremony.Binding{Purpose: ceremony.Login, ClusterCA: l.pin, User: l.req.User, SessionKey: spki}
	if l.req.Certificate != nil {
		sum := sha256.Sum256(l.req.Certificate)
		b.Purpose, b.Upgraded = ceremony.Reissue, sum[:]
	}
	prover, err := ceremony.NewProver(b, d.Key)
	if err != nil {
		return err
	}
	msg, next, err := prover.Hello(ceremony.Introduction{CredentialID: d.CredentialID, Claims: d.Claims})
	if err != nil {
		l.fault = err
		return l.noDevice(fault.Of(err).Text)
	}
	l.prover, l.spoken = next, true
	return l.send(&pb.LoginRequest{Step: &pb.LoginRequest_Device{Device: msg}})
}

func (l *loginCall) noDevice(reason string) error {
	return l.send(&pb.LoginRequest{Step: &pb.LoginRequest_NoDevice{NoDevice: &pb.NoDevice{Reason: reason}}})
}

// device answers the challenge, and takes the welcome.
func (l *loginCall) device(msg []byte) error {
	if l.await != nil {
		w, err := l.await.Welcome(msg)
		if err == nil && l.req.Bot != nil {
			l.welcome = &w
		}
		return err
	}
	if l.prover == nil {
		return fault.New(fault.Invalid, "a device message that nobody asked for")
	}
	answers, await, err := l.prover.Proof(msg)
	if err != nil {
		l.fault = err
		return l.noDevice(fault.Of(err).Text)
	}
	l.await = await
	for _, a := range answers {
		if err := l.send(&pb.LoginRequest{Step: &pb.LoginRequest_Device{Device: a}}); err != nil {
			return err
		}
	}
	return nil
}

func (l *loginCall) certificates(m *pb.Certificates) (Certificates, error) {
	out := Certificates{TLS: m.Tls, DialTicket: m.DialTicket, Notices: m.Notices, DeviceFault: l.fault, Welcome: l.welcome, AutoEnroll: l.autoEnroll}
	key, err := ssh.ParsePublicKey(m.Ssh)
	if err != nil {
		return out, fmt.Errorf("ssh certificate: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return out, errors.New("ssh certificate is none")
	}
	out.SSH = cert
	if out.HostAuthorities, err = publicKeys(m.SshHostAuthorities); err != nil {
		return out, err
	}
	out.JumpAuthorities, err = publicKeys(m.SshJumpAuthorities)
	return out, err
}

func publicKeys(raws [][]byte) ([]ssh.PublicKey, error) {
	var out []ssh.PublicKey
	for _, raw := range raws {
		k, err := ssh.ParsePublicKey(raw)
		if err != nil {
			return nil, fmt.Errorf("ssh authority: %w", err)
		}
		out = append(out, k)
	}
	return out, nil
}
