// Package platform reaches the machine's TPM: a device file or an emulator's socket, on Windows TPM Base Services; what
// the platform keeps beside it, an endorsement password and the event log of this start; and what it lets
// administrators alone do.
//
// Each platform has in one file
//
//	dial(path) (transport.TPMCloser, error)  the TPM, opened
//	EndorsementAuth() ([]byte, error)        the endorsement password that the platform tells
//	KeepsEndorsementAuth                     whether it has one to tell
//	EndorsementRefused(error) error          the fault of one that the TPM did not take
//	ForAdministrators(error) bool            whether an administrator would not have been refused so
package platform

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Patience is how long one operation waits for a TPM that is busy with others; tests shorten it.
var Patience = 30 * time.Second

// Open opens the TPM at path, "" for the platform's own, for one operation: a transport that is patient with a TPM that
// is busy. What stands in the way is the fault ErrOpenTPM.
func Open(path string) (transport.TPMCloser, error) {
	t, err := dial(path)
	if err != nil {
		return nil, err
	}
	return patient{t, Patience}, nil
}

// patient sends a command again while the TPM says that it did not get to it (TPM 2.0 Part 2, 6.6.3, the warnings
// RETRY, YIELDED, TESTING, NV_RATE).
type patient struct {
	transport.TPMCloser
	limit time.Duration
}

// Send implements transport.TPM.
func (p patient) Send(command []byte) ([]byte, error) {
	for wait, spent := 5*time.Millisecond, time.Duration(0); ; wait *= 2 {
		response, err := p.TPMCloser.Send(command)
		if err != nil {
			return nil, fmt.Errorf("send TPM command: %w", err)
		}
		if len(response) < 10 {
			return nil, fmt.Errorf("TPM answered %d bytes", len(response))
		}
		switch tpm2.TPMRC(binary.BigEndian.Uint32(response[6:10])) {
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate:
		default:
			return response, nil
		}
		if spent += wait; spent > p.limit {
			return response, nil
		}
		time.Sleep(wait)
	}
}
