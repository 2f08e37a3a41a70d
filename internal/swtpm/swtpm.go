// Package swtpm runs TPM emulators for tests: the swtpm program behind a proxy that counts commands.
//
// It links no package testing, and no shipped binary links it.
package swtpm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/sallyport/sallyport/internal/peer"
)

// TB is what is used of testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
	Cleanup(func())
}

// Options say what the emulator is like. The zero value is a TPM fresh from a factory that makes no EK certificates.
type Options struct {
	EKCert              bool // RSA-2048 and P-384 endorsement keys, persistent, with certificates by CA
	EK                  bool // the same without certificates
	CA                  *CA  // nil with EKCert makes one
	PersistentRSAParent bool // an RSA-2048 storage key at 0x81000001
	OwnerAuth           string
	EndorsementAuth     string
}

// CA is a maker of TPMs: a root and an intermediate that signs EK certificates. It comes to be at its first use.
type CA struct {
	dir string
	mu  sync.Mutex // one swtpm_localca at a time
}

// NewCA gives a maker of its own.
func NewCA(t TB) *CA {
	t.Helper()
	dir, err := os.MkdirTemp("", "swtpm-ca")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &CA{dir: dir}
}

// PEM is the root's and the intermediate's certificate, once an emulator with EKCert was started by it.
func (c *CA) PEM() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	root, err1 := os.ReadFile(filepath.Join(c.dir, "swtpm-localca-rootca-cert.pem"))
	issuer, err2 := os.ReadFile(filepath.Join(c.dir, "issuercert.pem"))
	return append(root, issuer...), errors.Join(err1, err2)
}

// Emulator is a running TPM.
type Emulator struct {
	Socket string // for TSH_TPM
	CA     *CA

	dir   string
	raw   string // swtpm's own socket
	cmd   *exec.Cmd
	proxy *proxy
}

// Start starts an emulator that lives as long as the test. Where swtpm is missing the test is skipped, or fails under
// REQUIRE_PEERS=1.
func Start(t TB, o Options) *Emulator {
	t.Helper()
	peer.Need(t, "swtpm", "swtpm_setup", "swtpm_localca")
	if o.EKCert && o.CA == nil {
		o.CA = NewCA(t)
	}
	dir, err := os.MkdirTemp("", "swtpm") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	e, err := Launch(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// Launch starts an emulator in a directory of its own. Close it.
func Launch(dir string, o Options) (*Emulator, error) {
	e := &Emulator{Socket: filepath.Join(dir, "tpm.sock"), CA: o.CA, dir: dir, raw: filepath.Join(dir, "swtpm.sock")}
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return nil, err
	}
	if o.EKCert || o.EK {
		if err := e.setup(o); err != nil {
			return nil, err
		}
	}
	if err := e.run(); err != nil {
		return nil, err
	}
	err := e.configure(o)
	if err == nil {
		e.proxy, err = listen(e.Socket, e.raw)
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// setup manufactures the TPM with swtpm_setup, its certificates by the CA.
func (e *Emulator) setup(o Options) error {
	args := []string{"--tpm2", "--tpm-state", filepath.Join(e.dir, "state"), "--createek", "--overwrite"}
	if o.EKCert {
		o.CA.mu.Lock()
		defer o.CA.mu.Unlock()
		files := map[string]string{
			"setup.conf": "create_certs_tool=swtpm_localca\ncreate_certs_tool_config=" + filepath.Join(e.dir, "ca.conf") +
				"\ncreate_certs_tool_options=" + filepath.Join(e.dir, "ca.options") + "\n",
			"ca.conf": fmt.Sprintf("statedir = %[1]s\nsigningkey = %[1]s/signkey.pem\nissuercert = %[1]s/issuercert.pem\n"+
				"certserial = %[1]s/certserial\n", o.CA.dir),
			"ca.options": "",
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(e.dir, name), []byte(text), 0o600); err != nil {
				return err
			}
		}
		args = append(args, "--create-ek-cert", "--lock-nvram", "--config", filepath.Join(e.dir, "setup.conf"))
	}
	if os.Geteuid() == 0 {
		args = append(args, "--runas", "root")
	}
	if out, err := exec.Command("swtpm_setup", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("swtpm_setup: %w\n%s", err, out)
	}
	return nil
}

// run starts swtpm and waits until it answers.
func (e *Emulator) run() error {
	var log bytes.Buffer
	e.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(e.dir, "state"),
		"--server", "type=unixio,path="+e.raw, "--flags", "not-need-init,startup-clear")
	e.cmd.Stdout, e.cmd.Stderr = &log, &log
	if err := e.cmd.Start(); err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	for range 1000 {
		if c, err := dial(e.raw); err == nil {
			_, err = tpm2.GetRandom{BytesRequested: 8}.Execute(c)
			return errors.Join(err, c.Close())
		} else if !errors.Is(err, fs.ErrNotExist) && !refused(err) {
			return err
		}
		time.Sleep(5 * time.Millisecond) // another process: there is nothing to wait on
	}
	e.stop()
	return fmt.Errorf("swtpm does not answer: %s", log.String())
}

// configure gives the TPM what its platform or owner would have.
func (e *Emulator) configure(o Options) error {
	return e.Raw(func(c *Conn) error {
		if o.PersistentRSAParent {
			if err := persist(c); err != nil {
				return err
			}
		}
		for h, auth := range map[tpm2.TPMHandle]string{tpm2.TPMRHOwner: o.OwnerAuth, tpm2.TPMRHEndorsement: o.EndorsementAuth} {
			if auth == "" {
				continue
			}
			if err := setAuth(c, h, auth); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetAuth gives a hierarchy that has none a password.
func (e *Emulator) SetAuth(h tpm2.TPMHandle, auth string) error {
	return e.Raw(func(c *Conn) error { return setAuth(c, h, auth) })
}

func setAuth(c *Conn, h tpm2.TPMHandle, auth string) error {
	_, err := tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: h, Auth: tpm2.PasswordAuth(nil)},
		NewAuth:    tpm2.TPM2BAuth{Buffer: []byte(auth)},
	}.Execute(c)
	return err
}

func persist(c *Conn) error {
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.RSASRKTemplate)}.Execute(c)
	if err != nil {
		return err
	}
	_, err1 := tpm2.EvictControl{
		Auth:             tpm2.TPMRHOwner,
		ObjectHandle:     &tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name},
		PersistentHandle: 0x81000001,
	}.Execute(c)
	_, err2 := tpm2.FlushContext{FlushHandle: srk.ObjectHandle}.Execute(c)
	return errors.Join(err1, err2)
}

// Clear clears the TPM's owner, which makes every key under the storage hierarchy useless.
func (e *Emulator) Clear() error {
	return e.Raw(func(c *Conn) error {
		_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(c)
		return err
	})
}

// Loaded counts the transient objects and sessions that were left in the TPM.
func (e *Emulator) Loaded() (n int, err error) {
	err = e.Raw(func(c *Conn) error {
		for _, first := range []uint32{0x80000000, 0x02000000} {
			rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(c)
			if err != nil {
				return err
			}
			h, err := rsp.CapabilityData.Data.Handles()
			if err != nil {
				return err
			}
			n += len(h.Handle)
		}
		return nil
	})
	return n, err
}

// Raw opens the emulator past the proxy, so that what is done is not counted.
func (e *Emulator) Raw(f func(*Conn) error) error {
	c, err := dial(e.raw)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

// Direct is swtpm's own socket, past the proxy.
func (e *Emulator) Direct() string { return e.raw }

// Restart is a reset of the machine.
func (e *Emulator) Restart() error {
	e.stop()
	return e.run()
}

// Snapshot copies the TPM's state into a directory, as a snapshot of a virtual machine does.
func (e *Emulator) Snapshot(dir string) (string, error) {
	return dir, os.CopyFS(dir, os.DirFS(filepath.Join(e.dir, "state")))
}

// Restore puts a snapshot back, and starts the machine from it.
func (e *Emulator) Restore(dir string) error {
	e.stop()
	state := filepath.Join(e.dir, "state")
	if err := errors.Join(os.RemoveAll(state), os.CopyFS(state, os.DirFS(dir))); err != nil {
		return err
	}
	return e.run()
}

// Close ends the emulator.
func (e *Emulator) Close() {
	if e.proxy != nil {
		e.proxy.close()
	}
	e.stop()
}

func (e *Emulator) stop() {
	if e.cmd != nil && e.cmd.Process != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
		e.cmd = nil
	}
	_ = os.Remove(e.raw)
}

// Count says how often a command was sent since the start.
func (e *Emulator) Count(cc tpm2.TPMCC) int { return e.proxy.count(uint32(cc)) }

// Intercept has f see each command before the TPM; where it says so the TPM is not asked and the code is answered.
func (e *Emulator) Intercept(f func(cc tpm2.TPMCC) (tpm2.TPMRC, bool)) { e.proxy.intercept(f) }

// LockOut guesses passwords of a key until the TPM is in lockout (TPM 2.0 Part 1, 19.8).
func (e *Emulator) LockOut() error {
	return e.Raw(func(c *Conn) error {
		t := tpm2.ECCSRKTemplate
		t.ObjectAttributes.NoDA = false
		key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(t),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("right")}}}}.Execute(c)
		if err != nil {
			return err
		}
		for range 64 {
			_, err = tpm2.Create{ParentHandle: tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))},
				InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(c)
			if errors.Is(err, tpm2.TPMRCLockout) {
				break
			}
		}
		_, ferr := tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(c)
		if !errors.Is(err, tpm2.TPMRCLockout) {
			return fmt.Errorf("no lockout: %w", errors.Join(err, ferr))
		}
		return ferr
	})
}
