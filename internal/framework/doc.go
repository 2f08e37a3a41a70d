// Package framework calls macOS's frameworks without cgo: values of Core Foundation, the symbols of other frameworks,
// and what IOKit says of the machine.
//
// It builds on Linux too, for tests alone, which load a library that stands in for the frameworks; no program that is
// shipped for Linux links it.
package framework
