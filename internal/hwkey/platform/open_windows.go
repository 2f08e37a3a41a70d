package platform

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
	"unsafe"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/windowstpm"
	"github.com/google/go-tpm/tpmutil/tbs"
	"golang.org/x/sys/windows"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// systemOnly has libraries looked for in the system's directory alone: tbs.dll is loaded by its bare name, and must
// not come from beside the program or from where it was started.
var systemOnly = sync.OnceFunc(func() { _ = windows.SetDefaultDllDirectories(windows.LOAD_LIBRARY_SEARCH_SYSTEM32) })

// dial opens the TPM through TPM Base Services; the path says nothing here.
func dial(string) (transport.TPMCloser, error) {
	systemOnly()
	for wait, spent := 5*time.Millisecond, time.Duration(0); ; wait = min(2*wait, time.Second) {
		t, err := windowstpm.Open()
		if err == nil {
			return t, nil
		}
		if spent += wait; spent > Patience || !busy(err) {
			return nil, openFault(err)
		}
		time.Sleep(wait)
	}
}

// busy reports whether the TPM may be had a little later.
func busy(err error) bool {
	return errors.Is(err, tbs.ErrTooManyTBSContexts) || errors.Is(err, tbs.ErrTooManyResources) || errors.Is(err, tbs.ErrServiceStartPending)
}

// openFault says what stands in the way of the TPM and what to type.
func openFault(err error) error {
	f := hwkey.ErrOpenTPM.Wrapping(err)
	switch {
	case errors.Is(err, tbs.ErrTPMNotFound), errors.Is(err, windowstpm.ErrNotTPM20):
		return hwkey.ErrOpenTPM.Wrapping(errors.Join(err, fs.ErrNotExist)).
			WithCause("the machine has no TPM 2.0, or its firmware has it switched off").
			WithFix("switch the TPM on in the firmware's setup (often called fTPM or PTT), then: tsh device doctor")
	case errors.Is(err, tbs.ErrServiceNotRunning), errors.Is(err, tbs.ErrServiceDisabled):
		return f.WithCause("the service TPM Base Services does not run").WithFix("sc start tbs   (as administrator)")
	}
	return f.WithCause("TPM Base Services: %v", err)
}

// Of tbs.h and winerror.h: the kind of authorization, and answers to those who are no administrators. A command may be
// blocked by TBS or, in the TPM's place, in a response.
const (
	ownerAuthEndorsement20 = 12
	tpmCommandBlocked      = 0x80280400 // TPM_E_COMMAND_BLOCKED
	accessDenied           = 0x80070005 // E_ACCESSDENIED
)

// ForAdministrators tells an activation that Windows keeps to administrators: the command is blocked, or the
// endorsement authorization was not told.
func ForAdministrators(err error) bool {
	if fault.Because(err, hwkey.ErrEndorsement.Reason) {
		return true
	}
	for _, e := range []error{tbs.Error(tpmCommandBlocked), tbs.Error(accessDenied), tbs.ErrAccessDenied, tpm2.TPMRC(tpmCommandBlocked)} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// KeepsEndorsementAuth says whether the platform keeps the endorsement password, for administrators to use.
const KeepsEndorsementAuth = true

// EndorsementRefused is the fault of an endorsement password that is not the one that was given. Windows does not know it
// then, and a clear takes it away.
func EndorsementRefused(err error) error {
	return hwkey.ErrEndorsement.Wrapping(err).WithCause("Windows does not know it").
		WithFix("save the BitLocker recovery key, clear the TPM (Clear-Tpm, as administrator), then: tsh device enroll --current-device")
}

var getOwnerAuth = windows.NewLazySystemDLL("tbs.dll").NewProc("Tbsi_Get_OwnerAuth")

// EndorsementAuth reads the endorsement password that Windows set; empty where it keeps none, or tells it to
// administrators alone: then the TPM refuses the empty one.
func EndorsementAuth() ([]byte, error) {
	if err := getOwnerAuth.Find(); err != nil {
		return nil, nil // older than Windows 8: never set
	}
	ctx, err := tbs.CreateContext(tbs.TPMVersion20, tbs.IncludeTPM20)
	if err != nil {
		return nil, fmt.Errorf("open TPM Base Services: %w", err)
	}
	defer func() { _ = ctx.Close() }()
	buf := make([]byte, 256)
	size := uint32(len(buf))
	rc, _, _ := getOwnerAuth.Call(uintptr(ctx), ownerAuthEndorsement20, uintptr(unsafe.Pointer(&buf[0])),
		uintptr(unsafe.Pointer(&size)))
	switch tbs.Error(rc) {
	case 0:
		return buf[:min(int(size), len(buf))], nil
	case tbs.ErrOwnerauthNotFound, tbs.ErrAccessDenied, accessDenied:
		return nil, nil
	}
	return nil, fmt.Errorf("read endorsement authorization: %w", tbs.Error(rc))
}
