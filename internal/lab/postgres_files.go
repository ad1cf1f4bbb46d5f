package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// installation is where the server's programs are, and whom they run as.
type installation struct {
	bin string
	// owner is nil when the server runs as ourselves. PostgreSQL refuses to
	// run as root, so root hands it to the "postgres" user.
	owner *syscall.Credential
}

// findInstallation takes the major version, or, for 0, the newest under Debian's
// folder.
func findInstallation(version int) (installation, error) {
	found, err := installations()
	if err != nil {
		return installation{}, err
	}
	if version == 0 {
		version = newestOfDebian(found)
	}
	bin, ok := found[version]
	switch {
	case !ok && version == 0:
		return installation{}, fmt.Errorf("PostgreSQL's programs aren't below %s: install the Debian package postgresql", debianPostgres)
	case !ok:
		return installation{}, fmt.Errorf("the programs of PostgreSQL %d aren't here: run tools/setup.sh clients", version)
	}
	in := installation{bin: bin}
	if os.Geteuid() != 0 {
		return in, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return installation{}, fmt.Errorf("PostgreSQL refuses to run as root, and its own user is missing: install the Debian package postgresql: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return installation{}, fmt.Errorf("user postgres: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return installation{}, fmt.Errorf("user postgres: %w", err)
	}
	in.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return in, nil
}

// command is one of the server's programs, with nothing of our environment.
func (in installation) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(in.bin, program), args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin:" + in.bin, "LC_ALL=C.UTF-8", "LC_MESSAGES=C", "TZ=UTC"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: in.owner}
	return cmd
}

// give hands a file or folder to the user that the server runs as.
func (in installation) give(path string) error {
	if in.owner == nil {
		return nil
	}
	return os.Chown(path, int(in.owner.Uid), int(in.owner.Gid))
}

func (p *Postgres) dataDir() string { return filepath.Join(p.dir, "data") }

// create makes the server's folder and its database cluster.
func (p *Postgres) create(ctx context.Context) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("PostgreSQL folder: %w", err)
	}
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return fmt.Errorf("PostgreSQL folder: %w", err)
	}
	p.dir = dir
	if err := p.install.give(p.dir); err != nil {
		return fmt.Errorf("PostgreSQL folder: %w", err)
	}
	if err := p.checkPath(); err != nil {
		return err
	}
	if err := p.bringPrograms(); err != nil {
		return err
	}
	passwordFile := filepath.Join(p.dir, "password")
	if err := p.writeFile(passwordFile, []byte(p.password)); err != nil {
		return err
	}
	defer os.Remove(passwordFile)
	cmd := p.install.command(ctx, "initdb", "--pgdata="+p.dataDir(), "--username="+superuser, "--pwfile="+passwordFile,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// checkPath says beforehand what the server would fail at in its own words:
// a folder that its user can't reach, a socket whose path is too long.
func (p *Postgres) checkPath() error {
	const maxSocket = 107 // sun_path of unix(7), less its NUL
	if socket := filepath.Join(p.dir, ".s.PGSQL.65535"); len(socket) > maxSocket {
		return fmt.Errorf("PostgreSQL folder %s: its path is too long for a unix socket (%d bytes, at most %d)", p.dir, len(socket), maxSocket)
	}
	closed, mode, err := p.install.outOfReach(p.dir)
	if err != nil {
		return fmt.Errorf("PostgreSQL folder: %w", err)
	}
	if closed != "" {
		return fmt.Errorf("PostgreSQL folder %s: user postgres can't reach it, for %s has mode %04o: %w", p.dir, closed, mode, fs.ErrPermission)
	}
	return nil
}

// outOfReach names the folder above path that the server's user can't go through;
// empty: there is none.
func (in installation) outOfReach(path string) (closed string, mode fs.FileMode, err error) {
	if in.owner == nil {
		return "", 0, nil
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return "", 0, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if ok && info.Mode().Perm()&0o001 == 0 && st.Uid != in.owner.Uid {
			return dir, info.Mode().Perm(), nil
		}
		if dir == filepath.Dir(dir) {
			return "", 0, nil
		}
	}
}

// bringPrograms copies the server's programs into its folder when its user can't
// reach them: those of a project below a folder that is one person's own.
func (p *Postgres) bringPrograms() error {
	closed, _, err := p.install.outOfReach(filepath.Join(p.install.bin, "postgres"))
	if err != nil || closed == "" {
		return err
	}
	programs := filepath.Join(p.dir, "programs")
	if err := os.CopyFS(programs, os.DirFS(filepath.Dir(p.install.bin))); err != nil {
		return fmt.Errorf("PostgreSQL's programs: %w", err)
	}
	p.install.bin = filepath.Join(programs, "bin")
	return p.install.give(programs)
}

// writeConfig writes what can differ from one start to the next.
func (p *Postgres) writeConfig() error {
	hba := p.options.HBA
	if len(hba) == 0 {
		hba = []string{"host all all all scram-sha-256"}
	}
	hba = append([]string{"local all " + superuser + " scram-sha-256"}, hba...)
	settings := map[string]string{
		"listen_addresses":        strings.Join(p.options.Listen, ","),
		"port":                    strconv.Itoa(p.options.Port),
		"unix_socket_directories": p.dir,
		"password_encryption":     "scram-sha-256",
		"max_connections":         "100",
		"log_destination":         "stderr",
		"logging_collector":       "off",
		"log_min_messages":        "warning",
	}
	if !p.options.Durable {
		settings["fsync"] = "off"
		settings["synchronous_commit"] = "off"
		settings["full_page_writes"] = "off"
	}
	files := map[string][]byte{"pg_hba.conf": []byte(strings.Join(hba, "\n") + "\n")}
	if pair := p.options.TLS; pair != nil {
		settings["ssl"] = "on"
		files["server.crt"], files["server.key"] = pair.CertPEM, pair.KeyPEM
	}
	if p.options.ClientCA != nil {
		settings["ssl_ca_file"] = "client-ca.crt"
		files["client-ca.crt"] = p.options.ClientCA
	}
	maps.Copy(settings, p.options.Config)
	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	files["postgresql.conf"] = []byte(conf.String())
	var errs []error
	for name, content := range files {
		errs = append(errs, p.writeFile(filepath.Join(p.dataDir(), name), content))
	}
	return errors.Join(errs...)
}

func (p *Postgres) writeFile(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("PostgreSQL file: %w", err)
	}
	if err := p.install.give(path); err != nil {
		return fmt.Errorf("PostgreSQL file: %w", err)
	}
	return nil
}
