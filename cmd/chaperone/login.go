package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/internal/login"
)

// loginOptions are the flags of "chaperone login".
type loginOptions struct {
	server, ca     string
	browser, print bool
	notices        io.Writer
}

func loginCommand() *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login [--server URL]",
		Short: "Log in at a sink, to answer requests for approval",
		Long: "Log in at a sink, with the issuer that its Sink document names: with a code that you type at any browser,\n" +
			"or, with --browser, with one on this machine. The ID token is kept in the kernel's keyring until it expires, and nowhere else.",
		Args: usageArgs(cobra.NoArgs),
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "the sink's URL (default: that of the last login)")
	f.StringVar(&o.ca, "ca", "", "PEM certificates to verify the sink and the issuer with")
	f.BoolVar(&o.browser, "browser", false, "log in with a browser on this machine")
	f.BoolVar(&o.print, "print", false, "print the ID token instead of keeping it, for machines without a keyring")
	cmd.SetFlagErrorFunc(flagError)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.notices = cmd.ErrOrStderr()
		server, err := chosenServer(o.server, o.ca)
		if err != nil {
			return err
		}
		if server.URL == "" {
			return usage("--server: say where the sink is, such as https://chaperone.corp.example")
		}
		if o.print {
			if isTerminal(cmd.OutOrStdout()) {
				return usage("--print: the token is a secret, and would stay on your screen.\n%s", withoutKeyring(server.URL))
			}
		} else if err := (login.Keyring{}).Check(); err != nil { // before anybody types a password
			return fmt.Errorf("your login can't be kept: %w.\n%s", err, withoutKeyring(server.URL))
		}
		who, token, err := o.logIn(cmd.Context(), server)
		if err != nil {
			return told(err)
		}
		return o.keep(cmd.OutOrStdout(), server, who, token)
	}
	return cmd
}

// logIn gets a token that the sink takes.
func (o *loginOptions) logIn(ctx context.Context, server login.Server) (api.Who, login.Token, error) {
	var token login.Token
	sink, err := client.New(client.Options{URL: server.URL, CAFile: server.CAFile, Token: func(context.Context) (string, error) { return token.Raw, nil }})
	if err != nil {
		return api.Who{}, token, err
	}
	defer sink.Close()
	info, err := sink.Login(ctx)
	if err != nil {
		return api.Who{}, token, err
	}
	issuer, err := login.Open(ctx, login.Options{Issuer: info.Issuer, ClientID: info.ClientID, Scopes: info.Scopes, CAFile: server.CAFile})
	if err != nil {
		return api.Who{}, token, err
	}
	defer issuer.Close()
	if o.browser {
		token, err = issuer.Browser(ctx, o.showAddress)
	} else {
		token, err = issuer.Device(ctx, o.showCode)
	}
	if err != nil {
		return api.Who{}, token, fmt.Errorf("login at %s: %w", printable(info.Issuer), err)
	}
	who, err := sink.WhoAmI(ctx)
	return who, token, err
}

func (o *loginOptions) showCode(p login.Prompt) error {
	_, err := fmt.Fprintf(o.notices, "Open %s in a browser, on any device, and type the code\n\n    %s\n\n", p.URL, p.Code)
	if err == nil && p.Complete != "" {
		_, err = fmt.Fprintf(o.notices, "or open %s, and compare the code.\n", p.Complete)
	}
	if err == nil {
		_, err = fmt.Fprintf(o.notices, "Waiting for you, until %s…\n", p.Until.Local().Format(time.TimeOnly))
	}
	return err
}

func (o *loginOptions) showAddress(address string) error {
	_, err := fmt.Fprintf(o.notices, "Log in with a browser on this machine, at\n\n    %s\n\nWaiting for you…\n", address)
	openBrowser(address)
	return err
}

// openBrowser tries to show the address to who sits at this machine. Whether that
// worked the person sees; the address is on the terminal in any case.
func openBrowser(address string) {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return // it might begin a text browser in this terminal
	}
	cmd := exec.Command("xdg-open", address)
	// The browser outlives the login, also one that is interrupted.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() == nil {
		_ = cmd.Process.Release()
	}
}

// keep keeps what was given, or prints it.
func (o *loginOptions) keep(out io.Writer, server login.Server, who api.Who, token login.Token) error {
	file, err := login.ServerFile()
	if err == nil {
		err = login.SaveServer(file, server)
	}
	if o.print {
		if err != nil { // then it is named each time
			fmt.Fprintf(o.notices, "The server is not remembered, so give --server with each command: %v\n", err)
		}
		_, err = fmt.Fprintln(out, token.Raw)
		return err
	}
	if err != nil {
		return err
	}
	if err := (login.Keyring{}).Keep(login.KeyringName(server.URL), token.Raw, token.Expires); err != nil {
		return fmt.Errorf("your login can't be kept: %w.\n%s", err, withoutKeyring(server.URL))
	}
	if os.Getenv(tokenVariable) != "" {
		fmt.Fprintf(o.notices, "$%s is set, and is used in place of this login: unset it.\n", tokenVariable)
	}
	_, err = fmt.Fprintf(out, "Logged in at %s as %s, until %s.\n", server.URL, personName(who.Subject, who.Issuer, who.Name), clock(token.Expires))
	return err
}

func logoutCommand() *cobra.Command {
	var url string
	cmd := &cobra.Command{Use: "logout", Short: "Forget the login", Args: usageArgs(cobra.NoArgs)}
	cmd.Flags().StringVar(&url, "server", "", "the sink's URL (default: that of the last login)")
	cmd.SetFlagErrorFunc(flagError)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		server, err := chosenServer(url, "")
		if err != nil {
			return err
		}
		if server.URL == "" {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "You are not logged in.")
			return err
		}
		err = login.Keyring{}.Forget(login.KeyringName(server.URL))
		had := err == nil
		if err != nil && !errors.Is(err, login.ErrNone) && !errors.Is(err, login.ErrNoKeyring) {
			return err
		}
		if err := forgetServer(server.URL); err != nil {
			return err
		}
		text := "You were not logged in at %s; it is forgotten.\n"
		if had {
			text = "Logged out of %s.\n"
		}
		if os.Getenv(tokenVariable) != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "$%s is set still: unset it.\n", tokenVariable)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), text, server.URL)
		return err
	}
	return cmd
}

// forgetServer removes what is kept of the server, if it is the one that is used.
func forgetServer(url string) error {
	file, err := login.ServerFile()
	if err != nil {
		return err
	}
	kept, err := login.LoadServer(file)
	if errors.Is(err, os.ErrNotExist) || err == nil && kept.URL != url {
		return nil
	}
	return login.ForgetServer(file)
}

func whoamiCommand(flags *deskFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "whoami", Short: "Say who the sink takes you for", Args: usageArgs(cobra.NoArgs)}
	return shows(flags, cmd, (*client.Client).WhoAmI, flags.printWho)
}

func (f *deskFlags) printWho(out io.Writer, who api.Who) error {
	at, err := f.place()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
		}
	}
	line("You are", who.String())
	line("Name", who.Name)
	line("Groups", strings.Join(who.Groups, ", "))
	if who.Admin {
		line("Admin", "yes: you may lock, and publish documents")
	}
	line("At", at.socket+at.server.URL)
	if at.socket == "" {
		if token, err := findToken(at.server.URL, f.tokenFile); err == nil {
			if expires, ok := login.Expires(token); ok {
				line("Until", clock(expires))
			}
		}
	}
	return w.Flush()
}

// personName is somebody as people read it: what proves who it is comes first.
func personName(subject, issuer, name string) string {
	text := brief(subject, 64) + "@" + brief(issuer, 64)
	if name != "" {
		text += " (" + brief(name, 64) + ")"
	}
	return text
}
