package recording

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/cipher"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// chunk is one as it was read; sealed is its body.
type chunk struct {
	raw    []byte
	number uint32
	flags  byte
}

func (c *chunk) final() bool { return c.flags&flagFinal != 0 }

// readChunk reads a chunk into buf, which it may grow; io.EOF where there is none, ErrDamaged where it is torn.
func readChunk(r io.Reader, buf []byte) (chunk, error) {
	head := append(buf[:0], make([]byte, chunkHead)...)
	if n, err := io.ReadFull(r, head); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return chunk{}, io.EOF
		}
		return chunk{}, ErrDamaged
	}
	length := binary.BigEndian.Uint32(head)
	if length > maxSealed {
		return chunk{}, ErrDamaged
	}
	c := chunk{number: binary.BigEndian.Uint32(head[4:]), flags: head[8]}
	if cap(head) < chunkHead+int(length) {
		head = append(make([]byte, 0, chunkHead+int(length)), head...)
	}
	c.raw = head[:chunkHead+int(length)]
	if _, err := io.ReadFull(r, c.raw[chunkHead:]); err != nil {
		return chunk{}, ErrDamaged
	}
	if checksum(c.raw) != binary.BigEndian.Uint32(c.raw[9:]) || c.flags&^(flagFinal|flagCompressed) != 0 {
		return chunk{}, ErrDamaged
	}
	return c, nil
}

// Progress is how far a recording has come, for who holds it without its key.
type Progress struct {
	Chunks uint32 `json:"chunks"`
	Length int64  `json:"length"` // of header and whole chunks, in bytes
	Final  bool   `json:"final"`
}

// Advance reads further chunks of a recording and says how far it then is; what is behind the last whole chunk, and how
// it is no chunk of this place, is the error, beside the progress up to it.
func (p Progress) Advance(r io.Reader) (Progress, error) {
	var buf []byte
	for {
		c, err := readChunk(r, buf)
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err == nil && (p.Final || c.number != p.Chunks) {
			err = ErrDamaged
		}
		if err != nil {
			return p, err
		}
		p.Chunks, p.Length, p.Final = p.Chunks+1, p.Length+int64(len(c.raw)), c.final()
		buf = c.raw
	}
}

// NextChunk is the length of the first whole chunk of b, 0 where there is none.
func NextChunk(b []byte) int {
	if len(b) < chunkHead {
		return 0
	}
	if n := uint64(binary.BigEndian.Uint32(b)) + chunkHead; n <= uint64(len(b)) {
		return int(n)
	}
	return 0
}

// Opener reads a recording's frames.
type Opener struct {
	r      *bufio.Reader
	header *Header
	aead   cipher.AEAD
	number uint32
	final  bool
	sealed []byte
	plain  []byte
	frames []byte // of the current chunk, those still to be given
}

// NewOpener begins to read a recording from its header on.
func NewOpener(r io.Reader, with *Identity) (*Opener, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	h, _, err := ReadHeader(b)
	if err != nil {
		return nil, err
	}
	if h.keyID != with.id {
		return nil, errors.New("the recording is sealed for another key")
	}
	_, kdf, suiteAEAD := suite()
	secret, err := hpke.Open(with.key, kdf, suiteAEAD, []byte(label), h.key)
	if err != nil || len(secret) != keyLength {
		return nil, ErrDamaged
	}
	aead, err := h.aead(secret)
	clear(secret)
	return &Opener{r: b, header: h, aead: aead}, err
}

// Name is the recording's.
func (o *Opener) Name() string { return o.header.Name }

// Next gives the next frame, whose data is good until the next call. io.EOF is the end of a whole recording,
// io.ErrUnexpectedEOF that of one that was cut short; ErrDamaged is that it was changed.
func (o *Opener) Next() (Frame, error) {
	for len(o.frames) == 0 {
		if err := o.chunk(); err != nil {
			return Frame{}, err
		}
	}
	f, rest, err := CutFrame(o.frames)
	o.frames = rest
	if err != nil {
		return f, ErrDamaged
	}
	return f, nil
}

func (o *Opener) chunk() error {
	c, err := readChunk(o.r, o.sealed)
	switch {
	case errors.Is(err, io.EOF) && o.final:
		return io.EOF
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case o.final || c.number != o.number:
		return ErrDamaged
	}
	o.sealed = c.raw
	o.plain, err = o.aead.Open(o.plain[:0], nonce(c.number), c.raw[chunkHead:], aad(o.header, c.raw[:9]))
	if err != nil {
		return ErrDamaged
	}
	o.number, o.final, o.frames = o.number+1, c.final(), o.plain
	if c.flags&flagCompressed == 0 {
		return nil
	}
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(flate.NewReader(bytes.NewReader(o.plain)), MaxChunk+1))
	if err != nil || n > MaxChunk {
		return fmt.Errorf("%w: its compression", ErrDamaged)
	}
	o.frames = out.Bytes()
	return nil
}
