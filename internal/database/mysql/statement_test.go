package mysql

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/dbwire/mysql"
)

// TestA62_LongData: what all prepared statements of a connection hold of data sent ahead is bounded, and given back.
func TestA62_LongData(t *testing.T) {
	var s statements
	for id := range uint32(100) {
		s.add(mysql.Prepared{ID: id, Params: maxLong}, &statement{query: "x"})
		for param := range uint16(maxLong) {
			args := binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint32(nil, id), param)
			s.change(&command{code: mysql.StmtLongData, args: append(args, strings.Repeat("x", 2000)...)})
		}
	}
	held := 0
	for _, p := range s.byID {
		for _, text := range p.long {
			held += len(text)
		}
	}
	if held > bytesKept+8<<10 || held < bytesKept {
		t.Errorf("%d bytes are held", held)
	}
	for id := range uint32(100) {
		s.change(&command{code: mysql.StmtClose, args: binary.LittleEndian.AppendUint32(nil, id)})
	}
	if s.long != 0 || s.kept != 0 {
		t.Errorf("%d and %d bytes are left", s.long, s.kept)
	}
}
