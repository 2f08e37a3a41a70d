package membership

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/fault"
)

// TestA76OtherProtocol: a host of an older or newer build may not enforce what this cluster promises.
func TestA76OtherProtocol(t *testing.T) {
	if err := CheckProtocol(cluster.Version, cluster.ProtocolVersion); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []uint32{0, cluster.ProtocolVersion - 1, cluster.ProtocolVersion + 1} {
		err := CheckProtocol("v9.9.9", protocol)
		if f := fault.Of(err); !fault.Because(err, "protocol_version") || f.Kind != fault.Unsupported || !strings.Contains(f.Fix, cluster.Version) {
			t.Errorf("protocol %d: %v", protocol, err)
		}
	}
	if f := fault.Of(CheckProtocol(strings.Repeat("x", 1<<20), 0)); len(f.Text) > 200 {
		t.Errorf("a version of a megabyte makes a text of %d bytes", len(f.Text))
	}
}
