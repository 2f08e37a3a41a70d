//go:build darwin || linux

package framework

import (
	"errors"
	"fmt"
	"unsafe"
)

// Of CFString.h and CFNumber.h.
const (
	encodingUTF8    = 0x08000100
	numberSInt32    = 3
	maxText         = 4096
	maxBytes        = 1 << 20
	dictionaryKeys  = "kCFTypeDictionaryKeyCallBacks"
	dictionaryValue = "kCFTypeDictionaryValueCallBacks"
)

// Core is Core Foundation.
type Core struct {
	True, False Ref

	release   func(Ref)
	typeOf    func(Ref) uint
	texts     texts
	data      bytesOf
	dict      dictionaries
	number    func(allocator uintptr, kind int, value *int32) Ref
	failure   failures
	callbacks [2]uintptr // of keys and values, which are retained by them
}

type texts struct {
	kind   func() uint
	create func(allocator uintptr, s *byte, encoding uint32) Ref
	get    func(s Ref, out *byte, size int, encoding uint32) uint8
}

type bytesOf struct {
	kind   func() uint
	create func(allocator uintptr, b *byte, size int) Ref
	bytes  func(Ref) unsafe.Pointer
	length func(Ref) int
}

type dictionaries struct {
	create func(allocator uintptr, capacity int, keys, values uintptr) Ref
	set    func(d, key, value Ref)
	get    func(d, key Ref) Ref
}

type failures struct {
	code     func(Ref) int
	domain   func(Ref) Ref
	describe func(Ref) Ref
}

// OpenCore loads Core Foundation.
func OpenCore(path string) (*Core, error) {
	l, err := Open(path)
	if err != nil {
		return nil, err
	}
	c := &Core{}
	err = l.Bind(map[string]any{
		"CFRelease": &c.release, "CFGetTypeID": &c.typeOf,
		"CFStringGetTypeID": &c.texts.kind, "CFStringCreateWithCString": &c.texts.create, "CFStringGetCString": &c.texts.get,
		"CFDataGetTypeID": &c.data.kind, "CFDataCreate": &c.data.create, "CFDataGetBytePtr": &c.data.bytes, "CFDataGetLength": &c.data.length,
		"CFDictionaryCreateMutable": &c.dict.create, "CFDictionarySetValue": &c.dict.set, "CFDictionaryGetValue": &c.dict.get,
		"CFNumberCreate": &c.number, "CFErrorGetCode": &c.failure.code, "CFErrorGetDomain": &c.failure.domain,
		"CFErrorCopyDescription": &c.failure.describe,
	})
	if err != nil {
		return nil, err
	}
	var err1, err2, err3, err4 error
	c.True, err1 = l.Constant("kCFBooleanTrue")
	c.False, err2 = l.Constant("kCFBooleanFalse")
	c.callbacks[0], err3 = l.symbol(dictionaryKeys)
	c.callbacks[1], err4 = l.symbol(dictionaryValue)
	return c, errors.Join(err1, err2, err3, err4)
}

// Text is the contents of a CFString, "" where the reference is none or is something else.
func (c *Core) Text(r Ref) string {
	if r == 0 || c.typeOf(r) != c.texts.kind() {
		return ""
	}
	b := make([]byte, maxText)
	if c.texts.get(r, &b[0], len(b), encodingUTF8) == 0 {
		return ""
	}
	for i, x := range b {
		if x == 0 {
			return string(b[:i])
		}
	}
	return ""
}

// Bytes is a copy of a CFData, nil where the reference is none or is something else.
func (c *Core) Bytes(r Ref) []byte {
	if r == 0 || c.typeOf(r) != c.data.kind() {
		return nil
	}
	n, p := c.data.length(r), c.data.bytes(r)
	if n <= 0 || n > maxBytes || p == nil {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(p), n)...)
}

// Value is what a dictionary has under a key, which it goes on owning; zero where it has nothing.
func (c *Core) Value(d, key Ref) Ref { return c.dict.get(d, key) }

// Failure is a CFError.
type Failure struct {
	Call   string
	Domain string
	Code   int
	Text   string
}

// Error is the call, its domain and code, and what the framework says of it.
func (f *Failure) Error() string {
	return fmt.Sprintf("%s: %s %d: %s", f.Call, f.Domain, f.Code, f.Text)
}

// Fail is the error of a call that gave nothing: what the framework left in r, which is released.
func (c *Core) Fail(call string, r Ref) error {
	if r == 0 {
		return &Failure{Call: call, Text: "it gave nothing and no reason"}
	}
	f := &Failure{Call: call, Domain: c.Text(c.failure.domain(r)), Code: c.failure.code(r)}
	if d := c.failure.describe(r); d != 0 {
		f.Text = c.Text(d)
		c.release(d)
	}
	c.release(r)
	return f
}

// Pool owns references, and remembers the first value that could not be made.
type Pool struct {
	core *Core
	refs []Ref
	err  error
}

// Pool gives an empty one. Release it.
func (c *Core) Pool() *Pool { return &Pool{core: c} }

// Own has the pool release r, where there is one.
func (p *Pool) Own(r Ref) Ref {
	if r != 0 {
		p.refs = append(p.refs, r)
	}
	return r
}

// Release releases all.
func (p *Pool) Release() {
	for i := len(p.refs) - 1; i >= 0; i-- {
		p.core.release(p.refs[i])
	}
	p.refs = nil
}

// Err is why a value could not be made.
func (p *Pool) Err() error { return p.err }

func (p *Pool) made(call string, r Ref) Ref {
	if r == 0 && p.err == nil {
		p.err = p.core.Fail(call, 0)
	}
	return p.Own(r)
}

// Text makes a CFString.
func (p *Pool) Text(s string) Ref {
	b := append([]byte(s), 0)
	return p.made("CFStringCreateWithCString", p.core.texts.create(0, &b[0], encodingUTF8))
}

// Bytes makes a CFData.
func (p *Pool) Bytes(b []byte) Ref {
	first := append(b[:len(b):len(b)], 0) // of no bytes too there is a first
	return p.made("CFDataCreate", p.core.data.create(0, &first[0], len(b)))
}

// Number makes a CFNumber.
func (p *Pool) Number(n int32) Ref {
	return p.made("CFNumberCreate", p.core.number(0, numberSInt32, &n))
}

// Dictionary makes a CFDictionary of keys and values in turn.
func (p *Pool) Dictionary(pairs ...Ref) Ref {
	d := p.made("CFDictionaryCreateMutable", p.core.dict.create(0, 0, p.core.callbacks[0], p.core.callbacks[1]))
	if d == 0 {
		return 0
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] == 0 || pairs[i+1] == 0 {
			if p.err == nil {
				p.err = p.core.Fail("CFDictionarySetValue", 0)
			}
			return d
		}
		p.core.dict.set(d, pairs[i], pairs[i+1])
	}
	return d
}
