package console

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sallyport/sallyport/internal/fault"
)

// Program gives a root command what all three programs share: errors are left to PrintError, bad flags are bad usage,
// `help` knows what it is asked, and `completion` prints a script. It is called when every command has been added.
func Program(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(badFlag)
	root.AddCommand(completion(root.Name()))
	root.SetHelpCommand(help(root))
	completeFormat(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if f := listingFormat(cmd); f != nil && !slices.Contains(formats, f.Value.String()) {
			return Usagef("--format: %q is none of %s", f.Value, strings.Join(formats, ", "))
		}
		return nil
	}
}

// Group is a command that is nothing but its subcommands.
func Group(use, short, example string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: "  " + example, SuggestionsMinimumDistance: 2}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		near := ""
		if all := cmd.SuggestionsFor(args[0]); len(all) > 0 {
			near = all[0]
		}
		return unknown(args[0], cmd.CommandPath(), near)
	}
	c.AddCommand(sub...)
	return c
}

// unknown is the error of a command that there is none of; near is what was perhaps meant.
func unknown(name, path, near string) error {
	fix := path + " --help"
	if near != "" {
		fix = path + " " + near
	}
	return &Usage{fault.New(fault.Invalid, "unknown command %q for %q", name, path).WithFix("%s", fix)}
}

var unknownCommand = regexp.MustCompile(`^unknown command "(.*)" for "(.*)"(?:\n+Did you mean this\?\n\t(\S+))?`)

// Typed makes a Usage of what the command library says of a command that it does not know.
func Typed(err error) error {
	var u *Usage
	if err == nil || errors.As(err, &u) {
		return err
	}
	if m := unknownCommand.FindStringSubmatch(err.Error()); m != nil {
		return unknown(m[1], m[2], m[3])
	}
	return err
}

var badValue = regexp.MustCompile(`(?s)^invalid argument "(.*)" for ".*--(\S+)" flag: `)

// kinds are the values of flags, by their type, as people would call them.
var kinds = map[string]string{"duration": "no span of time such as 8h or 30m", "int": "no number", "bool": "neither true nor false"}

// badFlag words what the flag library says.
func badFlag(cmd *cobra.Command, err error) error {
	if m := badValue.FindStringSubmatch(err.Error()); m != nil {
		if f := cmd.Flag(m[2]); f != nil && kinds[f.Value.Type()] != "" {
			return Usagef("--%s: %q is %s", m[2], m[1], kinds[f.Value.Type()])
		}
	}
	return &Usage{fault.New(fault.Invalid, "%s", err.Error()).WithFix("%s --help", cmd.CommandPath())}
}

// help prints what a command does; of one that there is none of it says so.
func help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "help [command]", Short: "Say what a command does", Example: "  " + root.Name() + " help version",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 && c.HasSubCommands() {
				return unknown(rest[0], c.CommandPath(), "")
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		}}
}

// noWords stands in for the one function of the package bash-completion that the script for bash calls.
const noWords = `declare -F _get_comp_words_by_ref >/dev/null || _get_comp_words_by_ref() {
    cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
}
`

func completion(name string) *cobra.Command {
	return &cobra.Command{Use: "completion bash|zsh|fish", Short: "Print a completion script", ValidArgs: []string{"bash", "zsh", "fish"},
		Example: fmt.Sprintf("  source <(%s completion bash)\n  %[1]s completion zsh > \"${fpath[1]}/_%[1]s\"\n  %[1]s completion fish > ~/.config/fish/completions/%[1]s.fish", name),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch strings.Join(args, " ") {
			case "bash":
				fmt.Fprint(out, noWords)
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "":
				return Usagef("usage: %s completion bash|zsh|fish", name)
			}
			return Usagef("completion: %q is none of bash, zsh, fish", strings.Join(args, " "))
		}}
}

// formats are the values of --format.
var formats = []string{"text", "json", "yaml"}

// listingFormat is the --format of a command that prints one of formats.
func listingFormat(c *cobra.Command) *pflag.Flag {
	f := c.Flags().Lookup("format")
	if f == nil || !slices.Contains(formats, f.DefValue) {
		return nil
	}
	return f
}

// completeFormat offers the values of --format wherever there is one.
func completeFormat(c *cobra.Command) {
	if listingFormat(c) != nil {
		_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	}
	for _, sub := range c.Commands() {
		completeFormat(sub)
	}
}
