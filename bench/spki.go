package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/internal/hwkey"
)

func spkiOf(k hwkey.Key) ([]byte, error) { return x509.MarshalPKIXPublicKey(k.Public()) }

// cleaner is what swtpm wants of a test, for a program: what fails ends it, what is to be cleaned up is the world's.
type cleaner struct{ w *world }

func (cleaner) Helper()                      {}
func (cleaner) Fatal(args ...any)            { panic(errors.New(fmt.Sprint(args...))) }
func (cleaner) Skip(args ...any)             { panic(errors.New(fmt.Sprint(args...))) }
func (c cleaner) Cleanup(f func())           { c.w.later = append(c.w.later, f) }
func (cleaner) Context() context.Context     { return context.Background() }
func (cleaner) Fatalf(f string, args ...any) { panic(fmt.Errorf(f, args...)) }
