package e2e

import (
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/swtpm/firmware"
)

// cmdBoot starts the machine whose TPM a variable names, as a firmware does, with Secure Boot on or off and a boot loader,
// and has tsh read its event log: boot NAME on|off LOADER.
func cmdBoot(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: boot NAME on|off LOADER")
	}
	v, ok := emulators.Load(ts.Getenv(args[0]))
	if !ok {
		ts.Fatalf("no TPM %s", args[0])
	}
	e := v.(*swtpm.Emulator)
	list := firmware.Boot{SecureBoot: args[1] == "on", Loader: args[2], DBX: 40 << 10}.Events()
	ts.Check(e.Restart())
	ts.Check(e.Raw(func(c *swtpm.Conn) error { return firmware.Extend(c, list) }))
	path := filepath.Join(ts.Getenv("WORK"), args[0]+".log")
	ts.Check(os.WriteFile(path, firmware.Log(list), 0o600))
	ts.Setenv("TSH_EVENTLOG", path)
}
