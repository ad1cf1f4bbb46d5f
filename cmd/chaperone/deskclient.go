package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/internal/login"
	"chaperone.dev/chaperone/internal/node"
)

// tokenVariable is where a token is looked for before the keyring.
const tokenVariable = "CHAPERONE_TOKEN"

// errLogin is wrapped by what a login would put right.
var errLogin = errors.New("not logged in")

// deskFlags say where people's requests go, and with which token. They are read
// when a command runs.
type deskFlags struct {
	server, ca, socket, tokenFile string
	runDir                        *string // of the root command
}

// addDeskCommands adds the commands of people: who they are, what they are asked,
// what they lock, and what they publish.
func addDeskCommands(root *cobra.Command, runDir *string) {
	flags := &deskFlags{runDir: runDir}
	root.AddCommand(loginCommand(), logoutCommand(), whoamiCommand(flags), approvalsCommand(flags), lockCommand(flags), locksCommand(flags), unlockCommand(flags))
	for _, cmd := range root.Commands() {
		if cmd.Name() == "policy" {
			cmd.AddCommand(policyPublishCommand(flags), policyPublishedCommand(flags))
		}
	}
}

// bind adds the flags to a command and those below it, whose mistakes are usage
// errors from here on.
func (f *deskFlags) bind(cmd *cobra.Command) {
	p := cmd.PersistentFlags()
	p.StringVar(&f.server, "server", "", "the sink's URL (default: where you are logged in, else the local sink's socket)")
	p.StringVar(&f.ca, "ca", "", "PEM certificates to verify the server with (default: those given at the login, else the system's)")
	p.StringVar(&f.socket, "socket", "", "the sink's unix socket (default: "+node.SinkSocket+" in the run folder)")
	p.StringVar(&f.tokenFile, "token-file", "", "file with the ID token to use (default: $"+tokenVariable+", else that of the login)")
	cmd.SetFlagErrorFunc(flagError)
}

// place is where the desk is: a socket, or a server.
type place struct {
	socket string
	server login.Server
}

// place finds the desk.
func (f *deskFlags) place() (place, error) {
	switch {
	case f.server != "" && f.socket != "":
		return place{}, usage("--server and --socket: want one of them")
	case f.socket != "" && (f.ca != "" || f.tokenFile != ""):
		return place{}, usage("--socket: the kernel says who you are there; --ca and --token-file have no use")
	case f.socket != "":
		return place{socket: f.socket}, nil
	}
	server, err := chosenServer(f.server, f.ca)
	if err != nil || server.URL != "" {
		return place{server: server}, err
	}
	socket := filepath.Join(*f.runDir, node.SinkSocket)
	if info, err := os.Stat(socket); err == nil && info.Mode()&os.ModeSocket != 0 {
		return place{socket: socket}, nil
	}
	return place{}, fmt.Errorf("%w: there is no sink on this machine (%s). Log in first: chaperone login --server https://…", errLogin, socket)
}

// chosenServer is the server that flags name, or where the user is logged in; if neither,
// it has no URL.
func chosenServer(url, ca string) (login.Server, error) {
	file, err := login.ServerFile()
	var kept login.Server
	if err == nil {
		kept, err = login.LoadServer(file)
	}
	if url == "" {
		switch {
		case errors.Is(err, os.ErrNotExist), file == "": // no home: nothing is kept there
			return login.Server{}, nil
		case err != nil:
			return login.Server{}, err
		}
		url = kept.URL
	}
	server := login.Server{CAFile: ca}
	if server.URL, err = login.ParseURL(url); err != nil {
		return login.Server{}, exitStatus{2, err}
	}
	if ca == "" && kept.URL == server.URL {
		server.CAFile = kept.CAFile
	}
	if server.CAFile != "" {
		// It is read from other folders later.
		if server.CAFile, err = filepath.Abs(server.CAFile); err != nil {
			return login.Server{}, fmt.Errorf("--ca: %w", err)
		}
	}
	return server, nil
}

// client returns a client of the desk. The caller closes it.
func (f *deskFlags) client() (*client.Client, error) {
	at, err := f.place()
	if err != nil {
		return nil, err
	}
	if at.socket != "" {
		return client.New(client.Options{Socket: at.socket})
	}
	return client.New(client.Options{URL: at.server.URL, CAFile: at.server.CAFile, Token: func(context.Context) (string, error) {
		return findToken(at.server.URL, f.tokenFile)
	}})
}

// findToken finds the token for a server.
func findToken(server, file string) (string, error) {
	if file != "" {
		return login.ReadToken(file)
	}
	if text := os.Getenv(tokenVariable); text != "" {
		token, err := login.OneToken(text)
		if err != nil {
			return "", fmt.Errorf("$%s: %w", tokenVariable, err)
		}
		return token, nil
	}
	token, err := login.Keyring{}.Find(login.KeyringName(server))
	switch {
	case errors.Is(err, login.ErrNone):
		return "", fmt.Errorf("%w. Log in first: chaperone login --server %s", errLogin, server)
	case errors.Is(err, login.ErrEnded):
		return "", fmt.Errorf("%w any more: your login at %s has ended. Log in again: chaperone login", errLogin, server)
	case err != nil:
		return "", fmt.Errorf("%w: no login can be kept on this machine: %w.\n%s", errLogin, err, withoutKeyring(server))
	}
	return token, nil
}

// withoutKeyring says what to do instead.
func withoutKeyring(server string) string {
	return fmt.Sprintf("Without a keyring, give the ID token in $%s or with --token-file FILE. This gets one for the shell that it is typed in:\n"+
		"  export %s=\"$(chaperone login --print --server %s)\"", tokenVariable, tokenVariable, server)
}

// asks makes a command that asks the desk.
func (f *deskFlags) asks(run func(cmd *cobra.Command, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := f.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return told(run(cmd, c, args))
	}
}

// shows makes a command of one that has the desk say something: it prints that, or its JSON.
func shows[T any](f *deskFlags, cmd *cobra.Command, get func(*client.Client, context.Context) (T, error), show func(io.Writer, T) error) *cobra.Command {
	f.bind(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return exitStatus{2, err}
		}
		return f.asks(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			said, err := get(c, cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printAsJSON(cmd.OutOrStdout(), said, "  ")
			}
			return show(cmd.OutOrStdout(), said)
		})(cmd, args)
	}
	return cmd
}

// told makes an error of the desk fit for a terminal, and says what to do.
func told(err error) error {
	if err == nil {
		return nil
	}
	var refused *api.Error
	var status exitStatus
	switch {
	case errors.As(err, &status), errors.Is(err, errLogin):
		return err
	case errors.Is(err, unix.EACCES):
		return shown{err, err.Error() + ". You need leave to use the socket, or to log in at a server: chaperone login --server https://…"}
	case errors.As(err, &refused):
		lines := strings.Split(err.Error(), "\n")
		for i, line := range lines {
			lines[i] = printable(line)
		}
		return shown{err, strings.Join(lines, "\n")}
	}
	return err
}

// shown is an error with another text.
type shown struct {
	error
	text string
}

func (s shown) Error() string { return s.text }
func (s shown) Unwrap() error { return s.error }

// usage is an error of who typed the command.
func usage(format string, args ...any) error { return exitStatus{2, fmt.Errorf(format, args...)} }

func flagError(_ *cobra.Command, err error) error { return exitStatus{2, err} }

// usageArgs has a command's wrong arguments be usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return exitStatus{2, fmt.Errorf("%s: %w", cmd.CommandPath(), err)}
		}
		return nil
	}
}

// parseFor reads how long something is to hold; empty is 0.
func parseFor(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, usage(`--for %q: want a duration like "30m" or "8h"`, text)
	}
	return d, nil
}

// printAsJSON prints JSON that a terminal only shows, whatever others wrote:
// encoding/json leaves what is above ASCII as it is.
func printAsJSON(w io.Writer, v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	var out bytes.Buffer
	for rest := text.Bytes(); len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			out.Write(rest[:size])
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
		rest = rest[size:]
	}
	_, err := out.WriteTo(w)
	return err
}

// clock is a time as people read it.
func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

// span is a duration without what nobody reads.
func span(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
