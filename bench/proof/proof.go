// Package proof measures the device proof by itself, on an emulated TPM.
package proof

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/bootlog"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/swtpm/firmware"
)

// zeros are the nonces of these ceremonies, so that one proof can be judged again and again.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// lap gathers how long each step took, by its name.
type lap struct {
	names []string
	took  map[string][]time.Duration
}

func (l *lap) step(name string, f func() error) error {
	began := time.Now()
	err := f()
	if l.took[name] == nil {
		l.names = append(l.names, name)
	}
	l.took[name] = append(l.took[name], time.Since(began))
	return err
}

func (l *lap) figures(prefix string) []Figure {
	var out []Figure
	for _, n := range l.names {
		all := slices.Sorted(slices.Values(l.took[n]))
		out = append(out, Figure{prefix + n, fmt.Sprintf("%.2f ms", float64(all[len(all)/2].Microseconds())/1000), ""})
	}
	return out
}

// proving is a machine of its own, towards a judge of its own.
type proving struct {
	dev   *tpm.Device
	dir   string
	judge ceremony.Judge
	cred  device.Credential
}

// Figure is one that was measured.
type Figure struct{ What, Value, Goal string }

// Measure measures enrollment and login on swtpm step by step, and what a login proof costs the server. What it needs
// lies in dir; t cleans up.
func Measure(dir string, t swtpm.TB) ([]Figure, error) {
	ca := swtpm.Options{EKCert: true, CA: swtpm.NewCA(t)}
	e, err := swtpm.Launch(filepath.Join(dir, "tpm"), ca)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	boot := firmware.Boot{SecureBoot: true, Loader: "shim", DBX: 20 << 10}.Events()
	if err := e.Raw(func(c *swtpm.Conn) error { return firmware.Extend(c, boot) }); err != nil {
		return nil, err
	}
	log := filepath.Join(dir, "log")
	if err := errors.Join(os.WriteFile(log, firmware.Log(boot), 0o600), os.Setenv("TSH_EVENTLOG", log)); err != nil {
		return nil, err
	}
	pem, err := ca.CA.PEM()
	if err != nil {
		return nil, err
	}
	roots, err := attestation.ParseRoots(pem)
	if err != nil {
		return nil, err
	}
	p := &proving{dev: tpm.Open(filepath.Join(dir, "device"), e.Socket), dir: dir, judge: attestation.NewJudge(roots, false, time.Now())}
	enroll, login, quoted := &lap{took: map[string][]time.Duration{}}, &lap{took: map[string][]time.Duration{}}, &lap{took: map[string][]time.Duration{}}
	for range 15 {
		for _, x := range []struct {
			l *lap
			p ceremony.Purpose
			q bool
		}{{enroll, ceremony.Enroll, false}, {login, ceremony.Login, false}, {quoted, ceremony.Login, true}} {
			if _, err := p.run(x.l, x.p, x.q); err != nil {
				return nil, err
			}
		}
	}
	rows := slices.Concat(enroll.figures("enrollment, swtpm: "), login.figures("login proof, swtpm: "))
	for _, r := range quoted.figures("login with a quote, swtpm: ") {
		if r.What == "login with a quote, swtpm: proof (TPM2_Certify)" || r.What == "login with a quote, swtpm: server judges" {
			rows = append(rows, r)
		}
	}
	cost, err := p.cost()
	return append(rows, cost), err
}

// messages are of one ceremony that was run, to be judged again.
type messages struct {
	binding      ceremony.Binding
	hello, proof []byte
}

// exchange is one ceremony under way, each step of it a method.
type exchange struct {
	*proving
	messages
	purpose   ceremony.Purpose
	quote     bool
	key       hwkey.Key
	attestor  hwkey.Attestor
	next      *ceremony.AwaitingChallenge
	await     *ceremony.AwaitProof
	challenge []byte
	answers   [][]byte
	result    ceremony.Result
}

func (x *exchange) sessionKey() (err error) {
	x.key, err = x.dev.NewSession(filepath.Join(x.dir, "session.key"))
	return err
}

func (x *exchange) deviceKey() (err error) {
	if x.purpose == ceremony.Enroll {
		x.attestor, err = x.dev.Enroll(x.key)
	} else {
		x.attestor, err = x.dev.Login(x.key)
	}
	return err
}

func (x *exchange) evidence() error {
	spki, err := x509.MarshalPKIXPublicKey(x.key.Public())
	if err != nil {
		return err
	}
	x.binding = ceremony.Binding{Purpose: x.purpose, ClusterCA: make([]byte, 32), User: "alice", SessionKey: spki}
	prover, err := ceremony.NewProver(x.binding, x.attestor)
	if err != nil {
		return err
	}
	in := ceremony.Introduction{CredentialID: x.cred.ID}
	if x.purpose == ceremony.Enroll {
		in = ceremony.Introduction{Token: "token"}
	}
	x.hello, x.next, err = prover.Hello(in)
	return err
}

func (x *exchange) challenges() error {
	v, err := ceremony.NewVerifier(x.binding, x.judge, zeros{})
	if err != nil {
		return err
	}
	_, c, err := v.Hello(x.hello)
	if err != nil {
		return err
	}
	ask := ceremony.Ask{Credential: &x.cred, Quote: x.quote}
	if x.purpose == ceremony.Enroll {
		ask = ceremony.Ask{}
	}
	x.challenge, x.await, err = c.Challenge(ask)
	return err
}

func (x *exchange) prove() (err error) {
	x.answers, _, err = x.next.Proof(x.challenge)
	return err
}

func (x *exchange) judges() error {
	x.proof = x.answers[0]
	r, log, err := x.await.Proof(x.answers[0])
	for _, piece := range x.answers[1:] {
		if err == nil {
			r, _, err = log.Log(piece)
		}
	}
	if x.result = r; err == nil && x.quote {
		_, err = bootlog.Judge(r.Quote.Log, r.Quote.PCRs)
	}
	return err
}

// run is one ceremony, step by step.
func (p *proving) run(l *lap, purpose ceremony.Purpose, quote bool) (messages, error) {
	x := &exchange{proving: p, purpose: purpose, quote: quote}
	proof := "proof (TPM2_Certify)"
	if purpose == ceremony.Enroll {
		proof = "proof (TPM2_ActivateCredential, TPM2_Certify)"
	}
	for _, s := range []struct {
		name string
		f    func() error
	}{{"session key (TPM2_Create)", x.sessionKey}, {"device key", x.deviceKey}, {"evidence", x.evidence}, {"server challenges", x.challenges},
		{proof, x.prove}, {"server judges", x.judges}} {
		if err := l.step(s.name, s.f); err != nil {
			return x.messages, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if purpose == ceremony.Enroll {
		p.cred = x.result.Credential
		p.cred.ID = "c"
		return x.messages, x.attestor.Keep(hwkey.Enrollment{CredentialID: "c", Level: p.cred.Attestation})
	}
	return x.messages, nil
}

// cpuTime is what this process has used of processors.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// cost counts how often one core judges a login proof: from the first message to the last, without what the store does.
// The seconds are those of the processor, so that a busy machine counts alike.
func (p *proving) cost() (Figure, error) {
	m, err := p.run(&lap{took: map[string][]time.Duration{}}, ceremony.Login, false)
	if err != nil {
		return Figure{}, err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	before, err := cpuTime()
	if err != nil {
		return Figure{}, err
	}
	n, began := 0, time.Now()
	for ; time.Since(began) < 3*time.Second; n++ {
		v, err := ceremony.NewVerifier(m.binding, p.judge, zeros{})
		if err != nil {
			return Figure{}, err
		}
		_, c, err := v.Hello(m.hello)
		if err != nil {
			return Figure{}, err
		}
		_, await, err := c.Challenge(ceremony.Ask{Credential: &p.cred})
		if err != nil {
			return Figure{}, err
		}
		if _, _, err := await.Proof(m.proof); err != nil {
			return Figure{}, err
		}
	}
	after, err := cpuTime()
	return Figure{"login proofs judged, a second of one core", fmt.Sprintf("%.0f", float64(n)/(after-before).Seconds()), "≥ 2,000"}, err
}
