package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/lab/idp"
)

// company is the OpenID provider of the demonstration, with a person who may
// approve, and the address of the sink's page.
type company struct {
	provider *idp.Provider
	sink     string
}

func openCompany(ctx context.Context) (*company, error) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the provider's library says there what people see anyway
	ca, err := lab.NewCA()
	if err != nil {
		return nil, err
	}
	port, err := lab.FreePort(ctx)
	if err != nil {
		return nil, err
	}
	c := &company{sink: fmt.Sprintf("http://127.0.0.1:%d", port)}
	c.provider, err = idp.Start(ctx, idp.Options{
		CA:    ca,
		Users: []idp.User{{Subject: "ana", Password: "ana", Email: "ana@corp.example", Name: "Ana", Groups: []string{"dba"}}},
		Clients: []idp.Client{
			{ID: "page", Redirects: []string{c.sink + "/callback"}},
			{ID: "cli", Device: true},
		},
	})
	return c, err
}

// documents are those that people and their issuer take.
func (c *company) documents() map[string]string {
	return map[string]string{"people.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp-idp}
spec: {issuer: "` + c.provider.Issuer() + `", audiences: [chaperone], caFile: "{{dir}}/idp-ca.pem"}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: refunds}
spec:
  select: {run: {name: "refund-*"}}
  identity: {issuer: corp-idp, audience: chaperone}
---
apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: refunds}
spec:
  principals: {subjects: ["refund-agent@corp-idp"]}
  targets: [orders-db]
  rules:
    - name: refunds
      when: "statement.kind == 'UPDATE' && statement.tables == ['orders']"
      then: approve
      message: "an agent changes an order"
      approval: {from: {groups: [dba]}, within: 5m}
---
apiVersion: chaperone.dev/v1alpha1
kind: Sink
metadata: {name: sink}
spec:
  listen: "` + strings.TrimPrefix(c.sink, "http://") + `"
  url: "` + c.sink + `"
  login: {issuer: corp-idp, clientID: page, cliClientID: cli}
`}
}

// userCode is what the provider has a person type in.
var userCode = regexp.MustCompile(`\b[A-Z]{4}-[A-Z]{4}\b`)

// approve has a person asked for what a job wants, who logs in and says yes.
func (d *demo) approve(ctx context.Context) error {
	token, err := d.company.provider.Token(idp.TokenRequest{Subject: "refund-agent", Audience: []string{"chaperone"}})
	if err != nil {
		return err
	}
	file := d.stage.Path("refund-agent.token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return err
	}
	job, err := d.startPsqlAs("refund-7", file)
	if err != nil {
		return err
	}
	type answer struct {
		said string
		err  error
	}
	waiting := make(chan answer, 1)
	go func() {
		said, err := job.ask(ctx, `UPDATE orders SET note = 'refunded' WHERE id = 1;`)
		waiting <- answer{said, err}
	}()
	login, err := d.login(ctx)
	if err != nil {
		return err
	}
	var listed string
	if err := until(ctx, func() (bool, error) {
		out, err := d.person(ctx, login, "approvals", "list").CombinedOutput()
		listed = string(out)
		return strings.Contains(listed, "refund-agent"), err
	}); err != nil {
		return fmt.Errorf("%w: %s", err, listed)
	}
	id := regexp.MustCompile(`a-[a-z2-7]{16}`).FindString(listed)
	if _, err := d.show(d.person(ctx, login, "approvals", "show", id)); err != nil {
		return err
	}
	if _, err := d.show(d.person(ctx, login, "approvals", "approve", id, "--yes", "--reason", "the goods came back")); err != nil {
		return err
	}
	got := <-waiting
	d.print(got.said)
	if err := expect(got.said, got.err, []string{"waiting for approval " + id, "UPDATE 1"}); err != nil {
		return err
	}
	return job.leave(ctx)
}

// login logs Ana in, as she would at a terminal, and returns her token.
func (d *demo) login(ctx context.Context) (token string, err error) {
	cmd := d.person(ctx, "", "login", "--print", "--ca", d.stage.Path("idp-ca.pem"))
	d.say("   ana$ %s", quoted(cmd.Args))
	var out strings.Builder
	cmd.Stdout = &out
	prompts, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var said strings.Builder
	lines := bufio.NewScanner(io.LimitReader(prompts, 64<<10))
	for typed := false; lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if code := userCode.FindString(lines.Text()); code != "" && !typed {
			typed = true
			d.say("     %s\n   (Ana does so in her browser.)", lines.Text())
			if err := d.company.provider.Approve(code, "ana"); err != nil {
				return "", errors.Join(err, cmd.Process.Kill(), cmd.Wait())
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("chaperone login: %w: %s", err, said.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// person is a command that somebody types who has logged in.
func (d *demo) person(ctx context.Context, token string, args ...string) *exec.Cmd {
	cmd := d.stage.Command(ctx, append(args, "--server", d.company.sink)...)
	cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+d.stage.Path("ana"), "CHAPERONE_TOKEN="+token)
	return cmd
}
