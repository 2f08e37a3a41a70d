package console

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// TestProgram holds what a person sees of each wrong command line: words, a remedy, and exit status 2.
func TestProgram(t *testing.T) {
	for typed, want := range map[string]string{
		"statu":               "ERROR: unknown command \"statu\" for \"prog\"\n  to fix: prog status\n",
		"users lss":           "ERROR: unknown command \"lss\" for \"prog users\"\n  to fix: prog users ls\n",
		"users zzzzzz":        "ERROR: unknown command \"zzzzzz\" for \"prog users\"\n  to fix: prog users --help\n",
		"help nothing":        "ERROR: unknown command \"nothing\" for \"prog\"\n  to fix: prog --help\n",
		"status --frob":       "ERROR: unknown flag: --frob\n  to fix: prog status --help\n",
		"status --ttl=abc":    "ERROR: --ttl: \"abc\" is no span of time such as 8h or 30m\n",
		"status --format=xml": "ERROR: --format: \"xml\" is none of text, json, yaml\n",
		"completion tcsh":     "ERROR: completion: \"tcsh\" is none of bash, zsh, fish\n",
		"completion":          "ERROR: usage: prog completion bash|zsh|fish\n",
	} {
		root := &cobra.Command{Use: "prog"}
		status := &cobra.Command{Use: "status", RunE: func(*cobra.Command, []string) error { return nil }}
		status.Flags().Duration("ttl", time.Hour, "")
		status.Flags().String("format", "text", "")
		root.AddCommand(status, Group("users", "Users", "prog users ls", &cobra.Command{Use: "ls", Run: func(*cobra.Command, []string) {}}))
		Program(root)
		var out, said bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(strings.Fields(typed))
		err := Typed(root.Execute())
		PrintError(&said, err)
		if said.String() != want || ExitCode(err) != 2 {
			t.Errorf("%s: status %d, %q, want %q", typed, ExitCode(err), said.String(), want)
		}
	}
}

// TestInterrupted holds that an interrupted command says so and nothing of what broke by it.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	broken := errors.New("the cluster did not answer")
	if got := Interrupted(ctx, broken); got != broken {
		t.Errorf("before: %v", got)
	}
	cancel()
	var said bytes.Buffer
	PrintError(&said, Interrupted(ctx, broken))
	if said.String() != "ERROR: interrupted\n" || Interrupted(ctx, nil) != nil || Interrupted(ctx, Status(3)) != Status(3) {
		t.Errorf("after: %q", said.String())
	}
}
