package tsh

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

// activateCommand is what an enrollment on Windows starts with administrator's rights; nobody types it.
func (a *app) activateCommand() *cobra.Command {
	return &cobra.Command{Use: local.ActivationCommand + " PIPE PROCESS", Hidden: true, Args: tool.Exactly(2),
		Short: "Activate one credential for an enrollment (started by it)", Example: "  (started by tsh device enroll)",
		RunE: func(_ *cobra.Command, args []string) error {
			parent, err := strconv.ParseUint(args[1], 10, 32)
			if err != nil {
				return console.Usagef("%q is no process", args[1])
			}
			return local.ServeActivation(args[0], uint32(parent))
		}}
}
