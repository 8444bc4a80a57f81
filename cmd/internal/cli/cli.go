// Package cli is what the three binaries have in common: configuration files
// under flags, logging, and an end on a signal.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// LoadConfig fills into from the YAML file that args name with --config, if any.
// Unknown and repeated fields are errors. Flags that are bound to into
// afterwards take the file's values as their defaults, so that a flag wins over
// the file.
func LoadConfig(args []string, into any) error {
	file, ok := configFile(args)
	if !ok {
		return nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	if err := decode(raw, into); err != nil {
		return fmt.Errorf("--config %s: %w", file, err)
	}
	return nil
}

// configFile finds --config before the flags that depend on it are parsed.
func configFile(args []string) (string, bool) {
	for i, a := range args {
		switch {
		case a == "--":
			return "", false
		case a == "--config" && i+1 < len(args):
			return args[i+1], true
		case strings.HasPrefix(a, "--config="):
			return strings.TrimPrefix(a, "--config="), true
		}
	}
	return "", false
}

// ConfigFlag documents --config, which LoadConfig has read already.
func ConfigFlag(fs *pflag.FlagSet) {
	fs.String("config", "", "YAML file with settings; a flag wins over the file")
}

// ExplainUsage makes errors of the command line of cmd, and of the commands below
// it, say where the flags and commands are listed. Call it once all commands are
// there. A command without Args gets cobra.NoArgs: what it does not know is an
// error, not a reason to print help and succeed. What does not say what its arguments
// complete to completes to nothing, rather than to files.
func ExplainUsage(cmd *cobra.Command) {
	explain := func(cmd *cobra.Command, err error) error {
		return Usage(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
	}
	cmd.SetFlagErrorFunc(explain)
	args := cmd.Args
	if args == nil {
		args = cobra.NoArgs
	}
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			if !cmd.HasSubCommands() && strings.HasPrefix(err.Error(), "unknown command") { // as cobra.NoArgs calls it
				err = fmt.Errorf("unknown argument %q: none is wanted", given[0])
			}
			return explain(cmd, err)
		}
		return nil
	}
	if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	if !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, child := range cmd.Commands() {
		ExplainUsage(child)
	}
}

// Logging are the flags of the log.
type Logging struct {
	format, level string
}

// Bind adds the flags to fs.
func (l *Logging) Bind(fs *pflag.FlagSet) {
	fs.StringVar(&l.format, "log-format", "text", "form of the log on standard error: text or json")
	fs.StringVar(&l.level, "log-level", "info", "least level to log: debug, info, warn or error")
}

// Logger returns the logger that the flags ask for, writes to w, and makes it
// the default of the process, for the Kubernetes libraries too.
func (l *Logging) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, fmt.Errorf("--log-level: %q is not debug, info, warn or error", l.level)
	}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler
	switch l.format {
	case "text":
		handler = slog.NewTextHandler(w, options)
	case "json":
		handler = slog.NewJSONHandler(w, options)
	default:
		return nil, fmt.Errorf("--log-format: %q is not text or json", l.format)
	}
	log := slog.New(handler)
	slog.SetDefault(log)
	klog.SetSlogLogger(log)
	return log, nil
}

// usageError is a command line that is wrong.
type usageError struct{ error }

// Exit is the code of package exitcode.
func (usageError) Exit() int { return 2 }

func (e usageError) Unwrap() error { return e.error }

// Usage marks an error as one of the command line; nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// Usagef is [Usage] of [fmt.Errorf].
func Usagef(format string, args ...any) error { return Usage(fmt.Errorf(format, args...)) }

// Main runs a command with a context that ends on SIGINT or SIGTERM, and exits:
// 0 on success, 1 on failure, with the error on standard error. A second signal
// ends the process at once.
func Main(name string, run func(ctx context.Context, args []string) error) {
	MainWithCodes(name, run, func(_ context.Context, err error) (int, string) { return 1, err.Error() })
}

// MainWithCodes is Main for a command whose exit codes, and the text on standard error,
// tell what went wrong. An empty text says nothing.
func MainWithCodes(name string, run func(ctx context.Context, args []string) error, explain func(ctx context.Context, err error) (code int, text string)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the next signal has its default effect
	err := run(ctx, os.Args[1:])
	if err == nil || errors.Is(err, pflag.ErrHelp) || errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	code, text := explain(ctx, err)
	if text != "" {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, printableLines(text)) // others have their words in it
	}
	os.Exit(code)
}
