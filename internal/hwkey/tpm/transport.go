package tpm

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// patience is how long one operation waits for a TPM that is busy with others.
var patience = 30 * time.Second

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
