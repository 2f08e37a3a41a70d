package e2e

import (
	"github.com/google/go-tpm/tpm2"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/internal/swtpm"
)

// cmdChip does to the TPM in a variable what happens to hardware: chip NAME clear, restart (of the machine), lockout (by
// wrong passwords), refuse (it answers in lockout, as some do then), or fine.
func cmdChip(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: chip NAME clear|restart|lockout|refuse|fine")
	}
	v, ok := emulators.Load(ts.Getenv(args[0]))
	if !ok {
		ts.Fatalf("no TPM %s", args[0])
	}
	e := v.(*swtpm.Emulator)
	switch args[1] {
	case "clear":
		ts.Check(e.Clear())
	case "restart":
		ts.Check(e.Restart())
	case "lockout":
		ts.Check(e.LockOut())
	case "refuse":
		e.Intercept(func(cc tpm2.TPMCC) (tpm2.TPMRC, bool) { return tpm2.TPMRCLockout, cc == tpm2.TPMCCCreate })
	case "fine":
		e.Intercept(nil)
	default:
		ts.Fatalf("unknown: chip NAME %s", args[1])
	}
}
