package main

import (
	"errors"
	"fmt"
)

// cleaner is what swtpm wants of a test, for a program: what fails ends it, what is to be cleaned up is the world's.
type cleaner struct{ w *world }

func (cleaner) Helper()            {}
func (cleaner) Fatal(args ...any)  { panic(errors.New(fmt.Sprint(args...))) }
func (cleaner) Skip(args ...any)   { panic(errors.New(fmt.Sprint(args...))) }
func (c cleaner) Cleanup(f func()) { c.w.later = append(c.w.later, f) }
