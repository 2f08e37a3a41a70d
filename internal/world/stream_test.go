package world_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"testing"

	"github.com/google/go-tpm/tpm2"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/wire"
	"github.com/sallyport/sallyport/internal/world"
)

// relayed is the real device, reached from the attacker's machine; area, where it is given, is what is said of the
// session key in the place of the truth.
type relayed struct {
	ceremony.Key
	area []byte
}

func (r relayed) Evidence() (device.Evidence, error) {
	e, err := r.Key.Evidence()
	if r.area != nil {
		e.SessionArea = r.area
	}
	return e, err
}

// TestA3RelayOverTheStream: with the user's password on another machine, and the real device answering the challenge, a
// login brings no device: what the device certifies is its own session key.
func TestA3RelayOverTheStream(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	tpm := swtpm.Start(t, swtpm.Options{})
	d := w.Device("VICTIM", tpm.Socket)
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	before := inventoried(t, w, "VICTIM")
	theirs := newKey(t)
	victim := d.Session()
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](victim.Area())
	if err != nil {
		t.Fatal(err)
	}
	point, err := theirs.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})
	for name, said := range map[string][]byte{"the victim's area": nil, "an area of the attacker's key": tpm2.Marshal(area)} {
		attestor, err := d.Device.Login(victim)
		if err != nil {
			t.Fatal(err)
		}
		a := w.Address()
		c := a.Call(nil)
		got, err := a.Login(t.Context(), c, client.LoginRequest{User: "alice", Key: theirs.Public(),
			Device: &client.DeviceProof{Key: relayed{attestor, said}, CredentialID: d.Keep.CredentialID}}, world.Person{Secret: world.Password})
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		w.Refused(got.DeviceFault, "device_session_key", event.DeviceAuthenticate)
		if u := (&world.Login{Certificates: got, World: w}).Identity(); u.Device != nil {
			t.Errorf("%s: the attacker's certificate carries the device", name)
		}
	}
	if after := inventoried(t, w, "VICTIM"); !after.UpdateTime.Equal(before.UpdateTime) {
		t.Error("a refused proof changed the device")
	}
}

// tamper changes what is sent in the n-th turn, 1 Hello, 2 Proof and what follows it.
type tamper func(turn int, msgs [][]byte) [][]byte

// rawLogin speaks a login message by message, and returns why the device was refused, and what certificates came.
func rawLogin(t *testing.T, w *world.World, d *world.Device, change tamper) (refused error, certs *pb.Certificates, err error) {
	t.Helper()
	session := d.Session()
	attestor, err := d.Device.Login(session)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(session.Public())
	if err != nil {
		t.Fatal(err)
	}
	a := w.Address()
	c := a.Call(nil)
	defer c.Close()
	prover, err := ceremony.NewProver(ceremony.Binding{Purpose: ceremony.Login, ClusterCA: cluster.PinHash(a.Authority), User: "alice", SessionKey: spki}, attestor)
	if err != nil {
		t.Fatal(err)
	}
	h, base, opts := c.Transport()
	stream := sallyportv1connect.NewLoginServiceClient(h, base, opts...).Login(t.Context())
	defer func() { _ = stream.CloseRequest(); _ = stream.CloseResponse() }()
	send := func(turn int, msgs ...[]byte) {
		for _, m := range change(turn, msgs) {
			_ = stream.Send(&pb.LoginRequest{Step: &pb.LoginRequest_Device{Device: m}}) // the server may have ended the stream
		}
	}
	if err := stream.Send(&pb.LoginRequest{Step: &pb.LoginRequest_Start{Start: &pb.LoginStart{User: "alice", SessionKey: spki}}}); err != nil {
		t.Fatal(err)
	}
	var next *ceremony.AwaitingChallenge
	for {
		m, err := stream.Receive()
		if err != nil {
			return refused, nil, client.FromRPC(err)
		}
		switch s := m.Step.(type) {
		case *pb.LoginResponse_Prompt:
			if err := stream.Send(&pb.LoginRequest{Step: &pb.LoginRequest_Answer{Answer: world.Password}}); err != nil {
				t.Fatal(err)
			}
		case *pb.LoginResponse_DeviceWanted:
			hello, n, err := prover.Hello(ceremony.Introduction{CredentialID: d.Keep.CredentialID})
			if err != nil {
				t.Fatal(err)
			}
			next = n
			send(1, hello)
		case *pb.LoginResponse_Device:
			if next == nil {
				continue // the welcome
			}
			answers, _, err := next.Proof(s.Device)
			if err != nil {
				t.Fatal(err)
			}
			next = nil
			send(2, answers...)
		case *pb.LoginResponse_DeviceRefused:
			refused = wire.FromFault(s.DeviceRefused)
		case *pb.LoginResponse_Certificates:
			return refused, s.Certificates, nil
		}
	}
}

// TestA41OverTheLoginStream: each message of the ceremony cut, oversized, in another's place, twice, over the real
// stream: the login brings no device, says why, and has changed nothing.
func TestA41OverTheLoginStream(t *testing.T) {
	w := world.New(t, nil)
	w.Role(bootRole("booted")) // so that a log follows the proof
	w.User("alice", "access", "editor", "booted")
	d := w.Device("RAW1", swtpm.Start(t, swtpm.Options{}).Socket)
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TSH_EVENTLOG", "/nonexistent")
	same := func(_ int, msgs [][]byte) [][]byte { return msgs }
	refused, certs, err := rawLogin(t, w, d, same)
	if err != nil || refused != nil || certs == nil {
		t.Fatalf("as it is: %v %v", refused, err)
	}
	before := inventoried(t, w, "RAW1")
	at := func(turn, i int, f func([]byte) [][]byte) tamper {
		return func(n int, msgs [][]byte) [][]byte {
			if n != turn {
				return msgs
			}
			var out [][]byte
			for j, m := range msgs {
				if j == i {
					out = append(out, f(m)...)
				} else {
					out = append(out, m)
				}
			}
			return out
		}
	}
	one := func(b []byte) [][]byte { return [][]byte{b} }
	rows := []struct {
		name   string
		change tamper
		reason string
	}{
		{"Hello cut", at(1, 0, func(m []byte) [][]byte { return one(m[:len(m)-1]) }), "device_message_truncated"},
		{"Hello with a byte more", at(1, 0, func(m []byte) [][]byte { return one(append(bytes.Clone(m), 0)) }), "device_message_trailing"},
		{"Hello oversized", at(1, 0, func(m []byte) [][]byte { return one(append(bytes.Clone(m), make([]byte, ceremony.MaxMessage)...)) }), "device_message_too_large"},
		{"Hello empty", at(1, 0, func([]byte) [][]byte { return one([]byte{}) }), "device_message_truncated"},
		{"Hello for an enrollment", at(1, 0, func(m []byte) [][]byte { b := bytes.Clone(m); b[2] = 1; return one(b) }), "device_purpose"},
		{"Hello of another version", at(1, 0, func(m []byte) [][]byte { b := bytes.Clone(m); b[1] = 9; return one(b) }), "device_protocol_version"},
		{"Hello twice", at(1, 0, func(m []byte) [][]byte { return [][]byte{m, m} }), "device_message_order"},
		{"Proof cut", at(2, 0, func(m []byte) [][]byte { return one(m[:len(m)/2]) }), "device_message_truncated"},
		{"Proof oversized", at(2, 0, func(m []byte) [][]byte { return one(append(bytes.Clone(m), make([]byte, ceremony.MaxMessage)...)) }), "device_message_too_large"},
		{"Proof twice", at(2, 0, func(m []byte) [][]byte { return [][]byte{m, m} }), "device_message_order"},
		{"Log ahead of the Proof", func(n int, msgs [][]byte) [][]byte {
			if n == 2 {
				return [][]byte{msgs[1], msgs[0]}
			}
			return msgs
		}, "device_message_order"},
		{"Log cut", at(2, 1, func(m []byte) [][]byte { return one(m[:len(m)-1]) }), "device_message_truncated"},
		{"Log that has more and is short", at(2, 1, func(m []byte) [][]byte { b := bytes.Clone(m); b[1] = 1; return one(b) }), "device_field"},
		{"a Proof that is another's", at(2, 0, func(m []byte) [][]byte { b := bytes.Clone(m); b[len(b)-1] ^= 1; return one(b) }), "device_quote_pcrs"},
	}
	for _, r := range rows {
		refused, certs, err := rawLogin(t, w, d, r.change)
		switch {
		case certs != nil:
			w.Refused(refused, r.reason, event.DeviceAuthenticate)
			if bytes.Contains(certs.Ssh, []byte(d.Keep.CredentialID)) {
				t.Errorf("%s: the certificate carries the device", r.name)
			}
		case err == nil:
			t.Errorf("%s: neither certificates nor an error", r.name)
		default: // what came behind ended the stream
			t.Logf("%s: %v", r.name, err)
			w.Refused(orRefused(refused, err), r.reason, event.DeviceAuthenticate)
		}
	}
	if after := inventoried(t, w, "RAW1"); !after.UpdateTime.Equal(before.UpdateTime) || after.Credentials[0].ID != before.Credentials[0].ID {
		t.Error("refused messages changed the device")
	}
}

func orRefused(refused, err error) error {
	if refused != nil {
		return refused
	}
	return err
}

// TestA41OverTheEnrollStream: the same of an enrollment: the token is not spent, the device not enrolled.
func TestA41OverTheEnrollStream(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access")
	alice := w.Login("alice")
	tpm := swtpm.Start(t, swtpm.Options{})
	rec, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "RAW2"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := fleet.Of(w.Admin).EnrollToken(t.Context(), client.DeviceRef{ID: rec.ID}, "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	d := w.Device("RAW2", tpm.Socket)
	run := func(change tamper) error {
		session := d.Session()
		attestor, err := d.Device.Enroll(session)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(session.Public())
		if err != nil {
			t.Fatal(err)
		}
		a := w.Address()
		c := alice.Call()
		defer c.Close()
		shown := sha256.Sum256(alice.TLS.Certificate[0])
		prover, err := ceremony.NewProver(ceremony.Binding{Purpose: ceremony.Enroll, ClusterCA: cluster.PinHash(a.Authority), User: "alice",
			Upgraded: shown[:], SessionKey: spki}, attestor)
		if err != nil {
			t.Fatal(err)
		}
		h, base, opts := c.Transport()
		stream := sallyportv1connect.NewTrustServiceClient(h, base, opts...).Enroll(t.Context())
		defer func() { _ = stream.CloseRequest(); _ = stream.CloseResponse() }()
		if err := stream.Send(&pb.EnrollRequest{Step: &pb.EnrollRequest_Start{Start: &pb.EnrollStart{SessionKey: spki, WithToken: true, OsType: "linux"}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); err != nil {
			return client.FromRPC(err)
		}
		send := func(turn int, m []byte) {
			for _, x := range change(turn, [][]byte{m}) {
				_ = stream.Send(&pb.EnrollRequest{Step: &pb.EnrollRequest_Device{Device: x}})
			}
		}
		hello, next, err := prover.Hello(ceremony.Introduction{Token: token.Secret, Claims: device.Data{OSType: device.Linux, ReportedAssetTag: "RAW2"}})
		if err != nil {
			t.Fatal(err)
		}
		send(1, hello)
		m, err := stream.Receive()
		if err != nil {
			return client.FromRPC(err)
		}
		answers, _, err := next.Proof(m.GetDevice())
		if err != nil {
			t.Fatal(err)
		}
		send(2, answers[0])
		_, err = stream.Receive()
		return client.FromRPC(err)
	}
	turn := func(n int, f func([]byte) [][]byte) tamper {
		return func(at int, msgs [][]byte) [][]byte {
			if at == n {
				return f(msgs[0])
			}
			return msgs
		}
	}
	for name, r := range map[string]struct {
		change tamper
		reason string
	}{
		"Hello cut":       {turn(1, func(m []byte) [][]byte { return [][]byte{m[:40]} }), "device_message_truncated"},
		"Hello oversized": {turn(1, func(m []byte) [][]byte { return [][]byte{append(bytes.Clone(m), make([]byte, 1<<16)...)} }), "device_message_too_large"},
		"Hello twice":     {turn(1, func(m []byte) [][]byte { return [][]byte{m, m} }), "device_message_order"},
		"Hello for a login": {turn(1, func(m []byte) [][]byte {
			b := bytes.Clone(m)
			b[2] = 2
			return [][]byte{b}
		}), "device_purpose"},
		"Proof cut":        {turn(2, func(m []byte) [][]byte { return [][]byte{m[:len(m)-3]} }), "device_message_truncated"},
		"another's secret": {turn(2, func(m []byte) [][]byte { b := bytes.Clone(m); b[5] ^= 1; return [][]byte{b} }), "device_activation"},
	} {
		err := run(r.change)
		if !fault.Because(err, r.reason) {
			t.Errorf("%s: %v, want %s", name, err, r.reason)
			continue
		}
		w.Refused(err, r.reason, event.DeviceEnroll)
		if rec := inventoried(t, w, "RAW2"); rec.Enrolled() || rec.Owner != "" {
			t.Fatalf("%s: the device is enrolled", name)
		}
	}
	if err := run(func(_ int, msgs [][]byte) [][]byte { return msgs }); err != nil {
		t.Fatalf("the token was spent by what was refused: %v", err)
	}
}
