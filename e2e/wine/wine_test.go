package wine

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/swtpm/firmware"
)

// built is where the programs are, once for all tests; TestMain removes it.
var built = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "wine-programs") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := built(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// sources looks at every source, so that the test's cached result goes when one changes: what is run here is built by
// another process, of which the cache knows nothing.
func sources(t *testing.T) {
	t.Helper()
	for _, top := range []string{"../../cmd", "../../internal", "../../api", "../../go.sum"} {
		err := filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// programs builds tsh.exe, and the server's programs for this machine.
func programs(t *testing.T) (exe, dir string) {
	t.Helper()
	sources(t)
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	exe = filepath.Join(dir, "tsh.exe")
	if _, err := os.Stat(exe); err == nil {
		return exe, dir
	}
	run(t, []string{"CGO_ENABLED=0"}, "../..", "go", "build", "-trimpath", "-o", dir+"/", "./cmd/sallyport", "./cmd/tctl")
	run(t, []string{"CGO_ENABLED=0", "GOOS=windows", "GOARCH=amd64"}, "../..", "go", "build", "-trimpath", "-o", dir+"/", "./cmd/tsh")
	return exe, dir
}

// server is a running cluster with one node.
type server struct {
	t          *testing.T
	dir        string // of the programs
	data       string
	proxy, pin string
}

const config = `version: v1
cluster_name: teleport.example.com
node_name: ip-172-31-35-170
auth: {enabled: true, listen: "127.0.0.1:0", authentication: {second_factors: []}}
proxy: {enabled: true, listen: "127.0.0.1:0"}
ssh: {enabled: true, labels: {env: prod}}
`

func start(t *testing.T, dir string) *server {
	t.Helper()
	s := &server{t: t, dir: dir, data: t.TempDir()}
	file := filepath.Join(s.data, "sallyport.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "sallyport"), "start", "-c", file)
	cmd.Dir, cmd.Env = s.data, s.env()
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	lines := bufio.NewScanner(out)
	for s.pin == "" && lines.Scan() {
		if m := regexp.MustCompile(`people type ([^)]+)\)`).FindStringSubmatch(lines.Text()); m != nil {
			s.proxy = m[1]
		}
		if m := regexp.MustCompile(`CA pin +(sha256:\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			s.pin = m[1]
		}
	}
	if s.pin == "" || s.proxy == "" {
		t.Fatalf("the server did not come up:\n%s", log.String())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the server
	return s
}

func (s *server) env() []string {
	return append(os.Environ(), "SALLYPORT_DATA_DIR="+filepath.Join(s.data, "data"), "HOME="+s.data, "USER=root", "TSH_HOME="+filepath.Join(s.data, "tsh"))
}

func (s *server) tctl(stdin string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.dir, "tctl"), args...)
	cmd.Env, cmd.Stdin = s.env(), strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("tctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *server) user(name string) {
	s.t.Helper()
	s.tctl("password", "users", "add", name, "--roles=access,editor,require-trusted-device", "--logins=root", "--password-file=-")
}

// eventually runs tsh.exe until it succeeds: a node registers a moment after the server is up.
func (m *machine) eventually(args ...string) result {
	m.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		r := m.tsh("", args...)
		if r.code == 0 {
			return r
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("tsh %s: %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
		}
	}
}

const node = "root@ip-172-31-35-170"

// TestWindows plays the guide with tsh.exe.
func TestWindows(t *testing.T) {
	peer.Need(t, "swtpm", "swtpm_setup")
	boot(t)
	exe, dir := programs(t)
	s := start(t, dir)
	login := []string{"login", "--proxy=" + s.proxy, "--ca-pin=" + s.pin, "--user=myuser"}
	s.user("myuser")
	ca := swtpm.NewCA(t)

	laptop := newMachine(t, exe, swtpm.Options{EKCert: true, CA: ca, PersistentRSAParent: true})
	laptop.want(0, "", []string{"version"}, "Sallyport v")
	laptop.want(0, "", []string{"device", "collect"}, `"os_type": "windows"`, `"os_version": "`)
	laptop.want(0, "password\n", login, "Logged in as:       myuser", "private-key-policy")
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(laptop.want(0, "", []string{"ls"}).out, "ip-172-31-35-170") {
		if time.Now().After(deadline) {
			t.Fatal("the node did not come up")
		}
	}
	laptop.want(255, "", []string{"ssh", node, "true"}, "ERROR: access denied to root connecting to ip-172-31-35-170:0",
		`role "require-trusted-device" requires a trusted device, and this login carries no device proof`)

	t.Run("enroll and access", func(t *testing.T) {
		m := laptop.in(t)
		m.want(0, "", []string{"device", "enroll", "--current-device"}, `Device "ek-`, `"/Windows registered and enrolled`)
		m.want(0, "", []string{"ssh", node, "id -un; echo grüße"}, "root\n", "grüße")
		m.want(7, "", []string{"ssh", node, "exit 7"})
		m.want(0, "typed", []string{"ssh", node, "cat"}, "typed")
	})
	t.Run("login", func(t *testing.T) {
		m := laptop.in(t)
		m.want(0, "", []string{"logout"})
		before := m.tpm.Count(tpm2.TPMCCActivateCredential)
		r := m.want(0, "password\n", []string{"login", "--user=myuser"}, "(Windows), tpm_ekcert, session key in the enrolled TPM",
			"teleport-device-asset-tag, teleport-device-credential-id, teleport-device-id")
		if strings.Contains(r.err, "no device proof") || m.tpm.Count(tpm2.TPMCCActivateCredential) != before {
			t.Errorf("a login activates nothing: %s", r.err)
		}
		m.want(0, "", []string{"ssh", node, "true"})
		m.want(0, "", []string{"device", "status"}, "Login carries device: yes")
		m.want(0, "", []string{"device", "doctor"}, "ok       TPM: IBM, firmware ", `endorsement key: rsa2048, with a certificate by "CN=`, "ok       storage key: persistent 81000001",
			"ok       policy: ", "everything between this device and trust is in order")
	})
	t.Run("copies", func(t *testing.T) {
		m := laptop.in(t)
		dir := filepath.Join(filepath.Dir(m.home), "Eigene Dateien")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		text := strings.Repeat("größe\n", 10000)
		if err := os.WriteFile(filepath.Join(dir, "ä b.txt"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		there := t.TempDir()
		m.want(0, "", []string{"scp", winPath(filepath.Join(dir, "ä b.txt")), node + ":" + there + "/there"})
		m.want(0, "", []string{"scp", node + ":" + there + "/there", winPath(filepath.Join(dir, "zurück.txt"))})
		m.want(0, "", []string{"scp", "-r", winPath(dir), node + ":" + there + "/tree"})
		for _, path := range []string{there + "/there", filepath.Join(dir, "zurück.txt"), there + "/tree/ä b.txt"} {
			if raw, err := os.ReadFile(path); err != nil || string(raw) != text {
				t.Errorf("%s: %d bytes, %v", path, len(raw), err)
			}
		}
		m.want(0, "", []string{"config"}, "Host ", "ProxyCommand", "proxy ssh")
		m.want(0, "SSH-2.0-Test\r\n", []string{"proxy", "ssh", node}, "SSH-2.0-")
	})
	t.Run("measured boot", func(t *testing.T) {
		file := filepath.Join(s.data, "boot.yaml")
		spec := "kind: role\nversion: v7\nmetadata: {name: secure-boot}\nspec:\n  options: {device_requirements: {secure_boot: true}}\n" +
			"  allow: {logins: [root], node_labels: {'*': '*'}}\n"
		if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
		s.tctl("", "create", "-f", file)
		s.tctl("password", "users", "add", "booter", "--roles=access,editor,secure-boot", "--logins=root", "--password-file=-")
		m := newMachine(t, exe, swtpm.Options{EKCert: true, CA: ca})
		boot := firmware.Boot{SecureBoot: true, Loader: "bootmgfw"}
		if err := m.tpm.Raw(func(c *swtpm.Conn) error { return firmware.Extend(c, boot.Events()) }); err != nil {
			t.Fatal(err)
		}
		log := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(log, firmware.Log(boot.Events()), 0o600); err != nil {
			t.Fatal(err)
		}
		m.env = append(m.env, "SALLYPORT_TEST_TPM_LOG="+winPath(log))
		booter := []string{"login", "--proxy=" + s.proxy, "--ca-pin=" + s.pin, "--user=booter"}
		m.want(0, "password\n", booter)
		m.want(0, "", []string{"device", "enroll", "--current-device"})
		m.want(0, "password\n", []string{"login", "--user=booter"})
		m.want(0, "", []string{"ssh", node, "true"})
		m.env = append(m.env, "SALLYPORT_TEST_TPM_LOG=")
		m.want(0, "password\n", []string{"login", "--user=booter"})
		m.want(255, "", []string{"ssh", node, "true"}, "secure-boot")
	})
	t.Run("files", func(t *testing.T) {
		m := laptop.in(t)
		err := filepath.WalkDir(m.home, func(path string, e os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if info, err := e.Info(); err != nil || info.Mode().Perm()&0o007 != 0 {
				t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("A2 another machine", func(t *testing.T) {
		thief := newMachine(t, exe, swtpm.Options{EKCert: true, CA: ca, PersistentRSAParent: true})
		if err := os.CopyFS(thief.home, os.DirFS(laptop.home)); err != nil {
			t.Fatal(err)
		}
		run(t, nil, "", "chmod", "-R", "go-rwx", thief.home)
		thief.want(255, "", []string{"ssh", node, "true"}, "the TPM was cleared or replaced since enrollment")
		thief.want(0, "password\n", []string{"login", "--user=myuser"}, "no device proof: the TPM was cleared or replaced since enrollment")
		thief.want(255, "", []string{"ssh", node, "true"}, "this login carries no device proof")
	})
	t.Run("no TPM", func(t *testing.T) {
		m := newMachine(t, exe, swtpm.Options{})
		m.env = append(m.env, "SALLYPORT_TEST_TPM_PORT=")
		m.want(0, "password\n", login)
		m.want(1, "", []string{"device", "enroll", "--current-device"}, "failed to open the TPM device", "the machine has no TPM 2.0")
		m.want(1, "", []string{"device", "doctor"}, "FAILED   TPM: failed to open the TPM device", "to fix: switch the TPM on")
	})
}

// in is the machine in a part of a test.
func (m *machine) in(t *testing.T) *machine {
	c := *m
	c.t = t
	return &c
}

// TestActivation enrolls where Windows keeps activation to administrators, and with an endorsement authorization that
// it set.
func TestActivation(t *testing.T) {
	peer.Need(t, "swtpm", "swtpm_setup")
	boot(t)
	exe, dir := programs(t)
	s := start(t, dir)
	const auth = "SALLYPORT_TEST_TPM_AUTH=endorsement password"
	const plain = "SALLYPORT_TEST_TPM_PLAIN=device activate"
	rows := []struct {
		name string
		o    swtpm.Options
		env  []string
	}{
		{"authorization set, EK made", swtpm.Options{EndorsementAuth: "endorsement password"}, []string{auth}},
		{"authorization set, EK persistent", swtpm.Options{EK: true, EndorsementAuth: "endorsement password"}, []string{auth}},
		{"administrators alone", swtpm.Options{EK: true}, []string{plain}},
		{"administrators alone, authorization set", swtpm.Options{EK: true, EndorsementAuth: "endorsement password"}, []string{auth, plain}},
	}
	for i, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			user := "user" + string(rune('a'+i))
			s.tctl("password", "users", "add", user, "--roles=access,editor,require-trusted-device", "--logins=root", "--password-file=-")
			m := newMachine(t, exe, r.o)
			m.env = append(m.env, r.env...)
			m.want(0, "password\n", []string{"login", "--proxy=" + s.proxy, "--ca-pin=" + s.pin, "--user=" + user})
			m.want(0, "", []string{"device", "enroll", "--current-device"}, `"/Windows registered and enrolled`)
			m.eventually("ssh", node, "true")
			if n := m.tpm.Count(tpm2.TPMCCActivateCredential); n != 1 {
				t.Errorf("the TPM activated %d times", n)
			}
		})
	}
	t.Run("administrators too are refused", func(t *testing.T) {
		m := newMachine(t, exe, swtpm.Options{EK: true})
		m.env = append(m.env, "SALLYPORT_TEST_TPM_PLAIN=no command line holds this")
		s.user("refused")
		m.want(0, "password\n", []string{"login", "--proxy=" + s.proxy, "--ca-pin=" + s.pin, "--user=refused"})
		r := m.want(1, "", []string{"device", "enroll", "--current-device"}, "ERROR: the credential could not be activated", "0x80280400")
		if strings.Contains(r.out, "enrolled") || m.tpm.Count(tpm2.TPMCCActivateCredential) != 0 {
			t.Error(r)
		}
		m.want(255, "", []string{"ssh", node, "true"}, "this login carries no device proof")
	})
	t.Run("a login asks nobody", func(t *testing.T) {
		m := newMachine(t, exe, swtpm.Options{EK: true})
		s.tctl("password", "users", "add", "auto", "--roles=access,require-trusted-device", "--logins=root", "--password-file=-")
		login := []string{"login", "--proxy=" + s.proxy, "--ca-pin=" + s.pin, "--user=auto"}
		m.want(0, "password\n", login)
		tag := strings.TrimSpace(m.want(0, "", []string{"device", "asset-tag"}).out)
		s.tctl("", "devices", "add", "--os=windows", "--asset-tag="+tag, "--owner=auto")
		preference := strings.ReplaceAll(s.tctl("", "get", "cap"), "auto_enroll: false", "")
		s.tctl(strings.Replace(preference, "device_trust:", "device_trust:\n    auto_enroll: true", 1), "create", "-f", "-")
		m.env = append(m.env, plain)
		r := m.want(0, "password\n", login, "no device proof: enrolling needs administrator's rights, and nobody was asked for them; to fix: tsh device enroll --current-device")
		if m.tpm.Count(tpm2.TPMCCActivateCredential) != 0 {
			t.Error("a copy was started", r)
		}
		m.want(0, "", []string{"device", "enroll", "--current-device"}, "Windows enrolled") // as it says
		m.eventually("ssh", node, "true")
	})
	t.Run("authorization unknown", func(t *testing.T) {
		m := newMachine(t, exe, swtpm.Options{EK: true, EndorsementAuth: "endorsement password"})
		s.user("stranger")
		m.want(0, "password\n", []string{"login", "--proxy=" + s.proxy, "--ca-pin=" + s.pin, "--user=stranger"})
		m.want(1, "", []string{"device", "enroll", "--current-device"}, "the TPM's endorsement password is set", "Clear-Tpm")
	})
}

// TestUnits runs the tests of Windows files as Windows programs.
func TestUnits(t *testing.T) {
	p := boot(t)
	sources(t)
	for _, pkg := range []string{"hwkey", "hwkey/elevation", "hostinfo", "profile"} {
		t.Run(pkg, func(t *testing.T) {
			dir := t.TempDir()
			exe := filepath.Join(dir, "units.exe")
			run(t, []string{"CGO_ENABLED=0", "GOOS=windows", "GOARCH=amd64"}, "../..", "go", "test", "-c", "-o", exe, "./internal/"+pkg)
			env := append(wineEnv(p), "SALLYPORT_TEST_DIR="+winPath(dir))
			out := run(t, env, filepath.Join("../../internal", pkg), "wine", exe, "-test.v", "-test.run=^TestWindows", "-test.timeout=2m")
			if !strings.Contains(out, "--- PASS: TestWindows") || strings.Contains(out, "--- FAIL") {
				t.Error(out)
			}
		})
	}
}
