package tctl

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

// TestEveryCommand holds that each command says what it does, with an example that begins with its own name, and that
// every listing has --format.
func TestEveryCommand(t *testing.T) {
	run := &tool.Tool{Program: tool.Program{Streams: console.Streams{Env: func(string) string { return "" }}}}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		switch c.Name() {
		case "ls", "get", "status", "tokens":
			if c.RunE != nil && c.Flags().Lookup("format") == nil && !(c.Name() == "tokens" && c.Parent().Name() == "tctl") {
				t.Errorf("%s: no --format", c.CommandPath())
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(commands{run}.root())
}

func TestVersionLine(t *testing.T) {
	for toolchain, want := range map[string]string{
		"go1.26.8": "Sallyport v0.1.0 go1.26", "go1.26": "Sallyport v0.1.0 go1.26", "go1.26.8 X:nodwarf5": "Sallyport v0.1.0 go1.26",
		"go1.27rc1": "Sallyport v0.1.0 go1.27rc1",
	} {
		if got := versionLine(toolchain); got != want {
			t.Errorf("%s: %s, want %s", toolchain, got, want)
		}
	}
}
