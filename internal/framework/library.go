//go:build darwin || linux

package framework

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Ref is a CFTypeRef: a reference to a value of a framework. Zero is none.
type Ref uintptr

// Paths say where the frameworks are.
type Paths struct {
	CoreFoundation string
	Security       string
	IOKit          string
}

// System are macOS's own, which the dynamic linker has in its cache.
func System() Paths {
	at := func(name string) string { return "/System/Library/Frameworks/" + name + ".framework/" + name }
	return Paths{CoreFoundation: at("CoreFoundation"), Security: at("Security"), IOKit: at("IOKit")}
}

// Library is a loaded framework. It stays loaded.
type Library struct {
	handle uintptr
	path   string
}

// Open loads a framework.
func Open(path string) (Library, error) {
	h, err := purego.Dlopen(path, purego.RTLD_LAZY|purego.RTLD_GLOBAL)
	if err != nil {
		return Library{}, fmt.Errorf("load framework: %w", err)
	}
	return Library{h, path}, nil
}

// Bind sets the functions that fns point to, by name, each of whose Go type is its C declaration.
func (l Library) Bind(fns map[string]any) error {
	for name, fn := range fns {
		sym, err := l.symbol(name)
		if err != nil {
			return err
		}
		purego.RegisterFunc(fn, sym)
	}
	return nil
}

func (l Library) symbol(name string) (uintptr, error) {
	sym, err := purego.Dlsym(l.handle, name)
	if err != nil || sym == 0 {
		return 0, fmt.Errorf("framework %s has no %s: %w", l.path, name, err)
	}
	return sym, nil
}

// Constant is the value of an exported variable that holds a reference, as kSecClass does: the symbol is its address.
func (l Library) Constant(name string) (Ref, error) {
	sym, err := l.symbol(name)
	if err != nil {
		return 0, err
	}
	r := **(**Ref)(unsafe.Pointer(&sym))
	if r == 0 {
		return 0, fmt.Errorf("framework %s: %s is empty", l.path, name)
	}
	return r, nil
}

// Constants are several by name.
func (l Library) Constants(names ...string) (map[string]Ref, error) {
	out := make(map[string]Ref, len(names))
	for _, name := range names {
		r, err := l.Constant(name)
		if err != nil {
			return nil, err
		}
		out[name] = r
	}
	return out, nil
}
