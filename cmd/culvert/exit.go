package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/exitcode"
)

// explain is the exit code and the line of an error.
func explain(ctx context.Context, err error) (code int, text string) {
	if ended, ok := errors.AsType[*commandEndedError](err); ok {
		return ended.code, "" // it has said why
	}
	if ctx.Err() != nil {
		return exitcode.Interrupted, "interrupted"
	}
	return exitcode.Of(err), exitcode.Line(err)
}

// exitCodesTopic is a page of help, and no command.
func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "The exit codes, and what they say",
		Long:  exitcode.Table(),
	}
}
