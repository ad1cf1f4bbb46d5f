package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/stage"
)

// A card number of the sample data, clear and as planners may see it.
const (
	clearCard  = "4111111111111111"
	maskedCard = "************1111"
)

func (d *demo) script() []step {
	return []step{
		{"Before: without Chaperone, psql with a password goes straight to the server and sees everything.", d.direct},
		{"\"chaperone up\" starts the daemon, NATS and the sink. The kernel diverts planners' connections from now on.", d.up},
		{"A planner job runs an unchanged psql, by the real host name, verifying the server, with no password. A role is minted for it.", d.plan},
		{"It reads customers: card numbers come back masked, though the query renames the column.", d.read},
		{"It tries to drop a table: policy denies it, with the rule's own words, and the session goes on.", d.drop},
		{"The role of this job exists at the server, now. Its name says whose it is.", d.roleExists},
		{"The same psql outside of the job still goes straight to the server, as before.", d.outside},
		{"The job ends. The role is dropped with it.", d.end},
		{"Everything it did is on record: list, replay, verify.", d.record},
		{"Security teams saw it as events on NATS.", d.events},
		{"Another job, of an agent of the company's OpenID provider, changes an order: that waits until a person has approved it.", d.approve},
		{"The daemon is killed with -9 while a planner's session is open: the session breaks, new ones are refused, nothing is let through.", d.kill},
		{"It starts again: the role that was left is gone, and the planner works again.", d.restart},
	}
}

func (d *demo) direct(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "psql", "-X", "-d", d.stage.Postgres.AdminDSN(stage.Database),
		"-c", "SELECT name, card_number FROM customers LIMIT 1")
	d.say("   $ psql -X postgres://postgres:****@%s/%s -c 'SELECT name, card_number FROM customers LIMIT 1'", stage.Host, stage.Database)
	out, err := cmd.CombinedOutput()
	d.print(string(out))
	return expect(string(out), err, []string{clearCard})
}

func (d *demo) up(ctx context.Context) (err error) {
	d.say("   $ chaperone up --config %s --state %s", d.stage.ConfigDir(), d.stage.Path("state"))
	d.daemon, err = d.stage.Up(ctx)
	if err != nil {
		return err
	}
	roles, err := d.stage.Roles(ctx)
	if err == nil && len(roles) > 0 {
		err = fmt.Errorf("minted roles exist before any job: %v", roles)
	}
	return err
}

func (d *demo) plan(ctx context.Context) (err error) {
	if d.job, err = d.startPsql("nightly-report"); err != nil {
		return err
	}
	out, err := d.job.ask(ctx, `SELECT current_user, inet_server_addr() AS server;`)
	d.print(out)
	return expect(out, err, []string{"chaperone_nightly_report", stage.Address})
}

func (d *demo) read(ctx context.Context) error {
	out, err := d.job.ask(ctx, `SELECT name, card_number AS harmless, ssn || '' AS nothing FROM customers ORDER BY id;`)
	d.print(out)
	if err := expect(out, err, []string{"Ada Lovelace", maskedCard}, clearCard, "078-05-1120"); err != nil {
		return err
	}
	d.say("   And by content, wherever it stands:")
	out, err = d.job.ask(ctx, `SELECT id, note FROM orders WHERE note LIKE 'pay%';`)
	d.print(out)
	return expect(out, err, []string{"pay with"}, "4111 1111 1111 1111")
}

func (d *demo) drop(ctx context.Context) error {
	out, err := d.job.ask(ctx, `DROP TABLE customers;`)
	d.print(out)
	if err := expect(out, err, []string{"ERROR:", "schema changes go through migrations"}); err != nil {
		return err
	}
	out, err = d.job.ask(ctx, `SELECT count(*) AS customers_still_there FROM customers;`)
	d.print(out)
	return expect(out, err, []string{"3"})
}

func (d *demo) roleExists(ctx context.Context) error {
	out, err := d.showRoles(ctx)
	return expect(out, err, []string{"chaperone_nightly_report"})
}

func (d *demo) showRoles(ctx context.Context) (string, error) {
	const query = `SELECT rolname, rolvaliduntil, shobj_description(oid, 'pg_authid') AS comment FROM pg_roles
		WHERE rolname LIKE 'chaperone\_%' AND rolname <> 'chaperone_admin'`
	d.say("   postgres=# SELECT rolname, … FROM pg_roles WHERE rolname LIKE 'chaperone\\_%%'")
	out, err := exec.CommandContext(ctx, "psql", "-X", "-d", d.stage.Postgres.AdminDSN(stage.Database), "-c", query).CombinedOutput()
	d.print(string(out))
	return string(out), err
}

func (d *demo) outside(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "psql", "-X", "-d", d.stage.Postgres.AdminDSN(stage.Database), "-c", "SELECT card_number FROM customers WHERE id = 1")
	out, err := cmd.CombinedOutput()
	d.print(string(out))
	if err := expect(string(out), err, []string{clearCard}); err != nil {
		return err
	}
	// Without a password there is no way in for anyone who is no planner.
	psql := stage.Psql("-w", "-c", "SELECT 1")
	cmd = exec.CommandContext(ctx, psql[0], psql[1:]...)
	cmd.Env = append(os.Environ(), "PGSSLROOTCERT="+d.stage.Path("target-ca.pem"))
	refused, err := d.show(cmd)
	if err == nil {
		return errors.New("psql came in with no password outside of a job")
	}
	return expect(refused, nil, []string{"no password supplied"})
}

func (d *demo) end(ctx context.Context) error {
	if err := d.job.leave(ctx); err != nil {
		return err
	}
	if err := d.untilNoRoles(ctx); err != nil {
		return err
	}
	out, err := d.showRoles(ctx)
	return expect(out, err, []string{"(0 rows)"})
}

// untilNoRoles waits until no minted role exists: a role outlives its job by
// the moment that it takes to drop it.
func (d *demo) untilNoRoles(ctx context.Context) error {
	return until(ctx, func() (bool, error) {
		roles, err := d.stage.Roles(ctx)
		return len(roles) == 0, err
	})
}

// until asks again and again until it is so or ctx is done.
func until(ctx context.Context, so func() (bool, error)) error {
	for {
		done, err := so()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.New("it did not happen in time")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *demo) record(ctx context.Context) error {
	// The last block of a recording is at the sink a moment after its session.
	type listed struct {
		ID    string     `json:"session"`
		Ended *time.Time `json:"ended"`
	}
	err := until(ctx, func() (bool, error) {
		out, err := d.stage.Command(ctx, "sessions", "list", "-o", "json").Output()
		if err != nil {
			return false, err
		}
		var sessions []listed
		if err := json.Unmarshal(out, &sessions); err != nil {
			return false, fmt.Errorf("sessions list -o json: %w", err)
		}
		if len(sessions) == 0 || sessions[0].Ended == nil {
			return false, nil
		}
		d.session = sessions[0].ID
		return true, nil
	})
	if err != nil {
		return err
	}
	if _, err := d.show(d.stage.Command(ctx, "sessions", "list")); err != nil {
		return err
	}
	out, err := d.show(d.stage.Command(ctx, "sessions", "replay", d.session))
	if err := expect(out, err, []string{"DROP TABLE customers", "schema changes go through migrations"}, clearCard); err != nil {
		return err
	}
	out, err = d.show(d.stage.Command(ctx, "sessions", "verify", d.session))
	return expect(out, err, []string{"verified"})
}

func (d *demo) events(ctx context.Context) error {
	out, err := d.show(d.stage.Command(ctx, "events", "tail"))
	return expect(out, err, []string{
		"credential.issued", "session.started", "mask.applied", "command", "session.ended", "credential.revoked",
	}, clearCard)
}

// aQuery is what a planner types in a shell.
func aQuery(sql string) string { return quoted(stage.Psql("-c", sql)) }

func (d *demo) kill(ctx context.Context) (err error) {
	if d.job, err = d.startShell("nightly-second"); err != nil {
		return err
	}
	if _, err := d.job.ask(ctx, aQuery(stage.SlowQuery)+" &"); err != nil {
		return err
	}
	if err := until(ctx, func() (bool, error) {
		running, err := d.stage.SlowQueries(ctx)
		return running == 1, err
	}); err != nil {
		return err
	}
	d.say("   The session is open and its query runs.")
	d.say("   $ kill -9 %d", d.daemon.PID())
	if err := d.daemon.Kill(); err != nil {
		return err
	}
	out, err := d.job.ask(ctx, "wait")
	d.print(out)
	if err := expect(out, err, []string{"connection to server was lost"}, "1111"); err != nil {
		return err
	}
	out, err = d.job.ask(ctx, aQuery("SELECT card_number FROM customers"))
	d.print(out)
	if err := expect(out, err, []string{"Connection refused"}, "1111"); err != nil {
		return err
	}
	d.say("   The role was left at the server, since nobody lived to drop it:")
	out, err = d.showRoles(ctx)
	return expect(out, err, []string{"chaperone_nightly_second"})
}

func (d *demo) restart(ctx context.Context) (err error) {
	left, err := d.stage.Roles(ctx)
	if err != nil {
		return err
	}
	if d.daemon, err = d.stage.Up(ctx); err != nil {
		return err
	}
	if err := d.untilNoRoles(ctx); err != nil {
		return err
	}
	d.say("   %s is gone. The job's shell lived on; its next connection gets a new role:", strings.Join(left, " "))
	out, err := d.job.ask(ctx, aQuery("SELECT name, card_number, current_user FROM customers WHERE id = 1"))
	d.print(out)
	if err := expect(out, err, []string{"Ada Lovelace", maskedCard}, append(left, clearCard)...); err != nil {
		return err
	}
	if err := d.job.leave(ctx); err != nil {
		return err
	}
	return d.untilNoRoles(ctx)
}
