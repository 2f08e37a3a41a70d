package tpm

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/windowstpm"
	"github.com/google/go-tpm/tpmutil/tbs"

	"github.com/sallyport/sallyport/internal/hwkey"
)

// dial opens the TPM through TPM Base Services; the path says nothing here.
func dial(string) (transport.TPMCloser, error) {
	t, err := windowstpm.Open()
	if err != nil {
		return nil, hwkey.ErrOpenTPM.Wrapping(err).WithCause("TPM Base Services: %v", err)
	}
	return t, nil
}

// Of tbs.h: the kind of authorization, and the answer where none is kept.
const (
	ownerAuthEndorsement20 = 12
	tbsOwnerAuthNotFound   = 0x80284015
)

var getOwnerAuth = syscall.NewLazyDLL("tbs.dll").NewProc("Tbsi_Get_OwnerAuth")

// endorsementAuth reads the endorsement password that Windows set; empty where it keeps none.
func endorsementAuth() ([]byte, error) {
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
	switch {
	case uint32(rc) == tbsOwnerAuthNotFound:
		return nil, nil
	case rc != 0:
		return nil, fmt.Errorf("read endorsement authorization: %w", tbs.Error(rc))
	}
	return buf[:min(int(size), len(buf))], nil
}
