package quickstart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
)

// tpm is where this run's device keys live. An empty path means that there is no TPM.
type tpm struct {
	path  string
	about string
	stop  func()
}

// machineTPM is the kernel's resource manager of the machine's own TPM.
const machineTPM = "/dev/tpmrm0"

// findTPM takes the machine's TPM where it may be opened, else an installed emulator, else none.
func findTPM(ctx context.Context, dir string) (tpm, error) {
	none := func() {}
	if f, err := os.OpenFile(machineTPM, os.O_RDWR, 0); err == nil {
		f.Close()
		return tpm{machineTPM, "in this machine's TPM, " + machineTPM, none}, nil
	}
	if _, err := exec.LookPath("swtpm"); err == nil {
		if _, err := exec.LookPath("swtpm_setup"); err == nil {
			return emulator(ctx, filepath.Join(dir, "swtpm"))
		}
	}
	return tpm{"", "a file, for this machine has no TPM that may be opened and no swtpm is installed", none}, nil
}

// emulator makes and starts a TPM in software.
func emulator(ctx context.Context, dir string) (tpm, error) {
	state := filepath.Join(dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return tpm{}, err
	}
	args := []string{"--tpm2", "--tpm-state", state, "--overwrite"}
	if os.Geteuid() == 0 {
		args = append(args, "--runas", "root")
	}
	if out, err := exec.CommandContext(ctx, "swtpm_setup", args...).CombinedOutput(); err != nil {
		return tpm{}, fault.New(fault.Unavailable, "swtpm_setup failed").WithCause("%s", lastLines(out)).Wrapping(err)
	}
	socket := filepath.Join(dir, "tpm.sock")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--server", "type=unixio,path="+socket,
		"--flags", "not-need-init,startup-clear", "--log", "file="+filepath.Join(dir, "log"))
	if err := cmd.Start(); err != nil {
		return tpm{}, err
	}
	t := tpm{socket, "in an emulated TPM (swtpm), for this machine has none that may be opened", func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}}
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			return t, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.stop()
			return tpm{}, ctx.Err()
		}
	}
	t.stop()
	return tpm{}, fmt.Errorf("start swtpm: %w", errors.New("its socket did not appear"))
}
