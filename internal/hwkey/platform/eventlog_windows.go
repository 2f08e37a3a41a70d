package platform

import (
	"errors"

	"github.com/google/go-tpm/tpmutil/tbs"

	"github.com/sallyport/sallyport/internal/device"
)

// eventLog asks TPM Base Services (Tbsi_Get_TCG_Log), which tell everybody.
func eventLog() ([]byte, error) {
	systemOnly()
	ctx, err := tbs.CreateContext(tbs.TPMVersion20, tbs.IncludeTPM20)
	if err != nil {
		return nil, ErrNoEventLog.Wrapping(err).WithCause("TPM Base Services: %v", err)
	}
	defer func() { _ = ctx.Close() }()
	for range 3 { // it may have grown since its size was told
		size, err := ctx.GetTCGLog(nil)
		if err == nil && size > device.MaxEventLog {
			return nil, ErrNoEventLog.WithCause("it has more than %d bytes", device.MaxEventLog)
		}
		b := make([]byte, size)
		if err == nil && size > 0 {
			size, err = ctx.GetTCGLog(b)
		}
		switch {
		case errors.Is(err, tbs.ErrInsufficientBuffer):
			continue
		case errors.Is(err, tbs.ErrNoEventLog), err == nil && size == 0:
			return nil, ErrNoEventLog.WithCause("Windows has none of this start")
		case err != nil:
			return nil, ErrNoEventLog.Wrapping(err).WithCause("TPM Base Services: %v", err)
		}
		return b[:min(int(size), len(b))], nil
	}
	return nil, ErrNoEventLog.WithCause("it grows all the time")
}
