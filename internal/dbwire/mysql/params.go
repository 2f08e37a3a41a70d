package mysql

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// Type is how a parameter is sent: a column type, and its flags (0x8000: unsigned).
type Type uint16

// Column types.
const (
	typeTiny      = 0x01
	typeShort     = 0x02
	typeLong      = 0x03
	typeFloat     = 0x04
	typeDouble    = 0x05
	typeNull      = 0x06
	typeTimestamp = 0x07
	typeLongLong  = 0x08
	typeInt24     = 0x09
	typeDate      = 0x0a
	typeTime      = 0x0b
	typeDateTime  = 0x0c
	typeYear      = 0x0d
	typeBlobs     = 0xf9 // to typeBlob
	typeBlob      = 0xfc
)

// Limits bound what is decoded of one command's parameters: how many, and bytes of each one's text.
type Limits struct{ Count, Text int }

// Null is how a NULL is told.
const Null = "NULL"

// Execute reads the arguments of COM_STMT_EXECUTE behind the statement's id: its parameters as text. Where no types are
// sent with them those of the time before hold. long holds the text of parameters that were sent ahead. What lies behind
// the end of args (they may be cut) is left out, and cut says so.
func Execute(args []byte, params int, types []Type, long map[uint16]string, l Limits) (texts []string, now []Type, cut bool) {
	c := cursor{b: args}
	c.take(4 + 1 + 4) // id, flags, iterations
	if params == 0 || c.bad {
		return nil, types, false
	}
	nulls := c.take((params + 7) / 8)
	if c.uint(1) == 1 {
		types = readTypes(&c, params)
	}
	for i := 0; i < params; i++ {
		if c.bad || i >= l.Count || len(types) != params {
			return texts, types, true
		}
		text, is := long[uint16(i)]
		switch {
		case is:
		case nulls[i/8]&(1<<(i%8)) != 0:
			text = Null
		default:
			text = value(&c, types[i], l.Text)
		}
		if c.bad {
			return texts, types, true
		}
		texts = append(texts, text)
	}
	return texts, types, false
}

func readTypes(c *cursor, n int) []Type {
	b := c.take(2 * n)
	if b == nil {
		return nil
	}
	types := make([]Type, n)
	for i := range types {
		types[i] = Type(b[2*i]) | Type(b[2*i+1])<<8
	}
	return types
}

// BulkExecute is Execute for MariaDB's COM_STMT_BULK_EXECUTE: the parameters of each row in turn.
func BulkExecute(args []byte, params int, types []Type, l Limits) (texts []string, now []Type, cut bool) {
	c := cursor{b: args}
	c.take(4)
	if c.uint(2)&128 != 0 {
		types = readTypes(&c, params)
	}
	if params == 0 || c.bad || len(types) != params {
		return nil, types, true
	}
	for i := 0; len(c.b) > 0; i++ {
		if len(texts) >= l.Count {
			return texts, types, true
		}
		text := [...]string{1: Null, 2: "DEFAULT", 3: "IGNORE"}
		switch how := c.uint(1); {
		case how == 0:
			texts = append(texts, value(&c, types[i%params], l.Text))
		case how <= 3:
			texts = append(texts, text[how])
		default:
			c.bad = true
		}
		if c.bad {
			return texts[:max(len(texts)-1, 0)], types, true
		}
	}
	return texts, types, false
}

func value(c *cursor, t Type, limit int) string {
	unsigned := t&0x8000 != 0
	whole := func(bytes int) string {
		v := c.uint(bytes)
		if unsigned {
			return strconv.FormatUint(v, 10)
		}
		shift := 64 - 8*bytes
		return strconv.FormatInt(int64(v<<shift)>>shift, 10)
	}
	switch byte(t) {
	case typeTiny:
		return whole(1)
	case typeShort, typeYear:
		return whole(2)
	case typeLong, typeInt24:
		return whole(4)
	case typeLongLong:
		return whole(8)
	case typeFloat:
		return strconv.FormatFloat(float64(math.Float32frombits(uint32(c.uint(4)))), 'g', -1, 32)
	case typeDouble:
		return strconv.FormatFloat(math.Float64frombits(c.uint(8)), 'g', -1, 64)
	case typeNull:
		return Null
	case typeDate, typeDateTime, typeTimestamp:
		return date(cursor{b: c.take(int(c.uint(1)))})
	case typeTime:
		return clock(cursor{b: c.take(int(c.uint(1)))})
	}
	return Text(c.text(), byte(t) >= typeBlobs && byte(t) <= typeBlob, limit)
}

// Text is a value as text of at most limit bytes; what is no text is told as its hex.
func Text(b []byte, blob bool, limit int) string {
	if len(b) > limit {
		b = b[:limit]
		for !blob && len(b) > limit-utf8.UTFMax && !utf8.Valid(b) {
			b = b[:len(b)-1]
		}
		return Text(b, blob, limit) + "…"
	}
	if utf8.Valid(b) {
		return string(b)
	}
	return "0x" + hex.EncodeToString(b)
}

func date(c cursor) string {
	if len(c.b) == 0 {
		return "0000-00-00"
	}
	s := fmt.Sprintf("%04d-%02d-%02d", c.uint(2), c.uint(1), c.uint(1))
	if len(c.b) >= 3 {
		s += fmt.Sprintf(" %02d:%02d:%02d", c.uint(1), c.uint(1), c.uint(1))
	}
	if len(c.b) >= 4 {
		s += fmt.Sprintf(".%06d", c.uint(4))
	}
	return s
}

func clock(c cursor) string {
	if len(c.b) < 8 {
		return "00:00:00"
	}
	sign := ""
	if c.uint(1) != 0 {
		sign = "-"
	}
	d := time.Duration(c.uint(4)) * 24
	s := fmt.Sprintf("%s%02d:%02d:%02d", sign, uint64(d)+c.uint(1), c.uint(1), c.uint(1))
	if len(c.b) >= 4 {
		s += fmt.Sprintf(".%06d", c.uint(4))
	}
	return s
}
