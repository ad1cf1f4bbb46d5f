package postgresrole

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// connect opens a connection of the administrator; an empty database is the
// one that the connection string names.
func connect(ctx context.Context, adminFile, database string) (*pgx.Conn, error) {
	config, err := adminConfig(adminFile)
	if err != nil {
		return nil, err
	}
	if database != "" {
		config.Database = database
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		// pgx names user, host and database here, and covers the password.
		return nil, fmt.Errorf("administrator's connection: %w", err)
	}
	return conn, nil
}

// adminConfig reads the administrator's connection string. It is read at each
// use, so that a changed password needs no restart.
func adminConfig(path string) (*pgx.ConnConfig, error) {
	dsn, err := readSecretFile(path)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The parser's error quotes the string.
		return nil, fmt.Errorf("administrator's connection string in %s: it is no PostgreSQL connection string", path)
	}
	if err := checkTLS(config); err != nil {
		return nil, fmt.Errorf("administrator's connection string in %s: %w", path, err)
	}
	if config.ConnectTimeout == 0 || config.ConnectTimeout > 10*time.Second {
		config.ConnectTimeout = 10 * time.Second
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.RuntimeParams = map[string]string{
		"application_name": "chaperone",
		// Planners may make functions and operators in other schemas, which
		// must not run with the administrator's rights.
		"search_path":                 "pg_catalog, pg_temp",
		"standard_conforming_strings": "on",
		"client_encoding":             "UTF8",
		"lock_timeout":                "10s",
		"statement_timeout":           "30s",
	}
	return config, nil
}

// checkTLS refuses the modes in which the network chooses whether there is
// encryption. libpq's default, prefer, is one of them.
func checkTLS(config *pgx.ConnConfig) error {
	plain, encrypted := false, false
	see := func(host string, tls bool) {
		if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") {
			return // unix socket
		}
		plain, encrypted = plain || !tls, encrypted || tls
	}
	see(config.Host, config.TLSConfig != nil)
	for _, f := range config.Fallbacks {
		see(f.Host, f.TLSConfig != nil)
	}
	if plain && encrypted {
		return errors.New("sslmode must be verify-full, verify-ca, require or disable: with prefer, the default, and allow the network decides")
	}
	return nil
}

// readSecretFile reads a file that only its owner, who is root or ourselves,
// may write, and that not everybody may read.
func readSecretFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return "", fmt.Errorf("administrator's connection string: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("administrator's connection string: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("administrator's connection string: %s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return "", fmt.Errorf("administrator's connection string: %s has mode %04o, which lets others at it: chmod 600 it (0640 will do)", path, mode)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("administrator's connection string: %s belongs to uid %d, not to root or the daemon's user", path, st.Uid)
	}
	const limit = 64 << 10
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return "", fmt.Errorf("administrator's connection string: %w", err)
	}
	text := strings.TrimSpace(string(content))
	if len(content) > limit || text == "" || strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("administrator's connection string: %s must hold one line, the connection string", path)
	}
	return text, nil
}
