// Package postgresadmin opens the connections over which the daemon administers
// accounts at a PostgreSQL server, by a connection string that a file holds. It
// knows nothing of what they are used for, but for one thing that several kinds of
// credential need: to end a job's sessions.
package postgresadmin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential/secretfile"
)

// Connect opens a connection of the administrator; an empty database is the
// one that the connection string names.
func Connect(ctx context.Context, file, database string) (*pgx.Conn, error) {
	config, err := config(file)
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

// Close says goodbye even when ctx has ended, but not for long.
func Close(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// config reads the administrator's connection string. It is read at each use, so
// that a changed password needs no restart.
func config(path string) (*pgx.ConnConfig, error) {
	dsn, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("administrator's connection string: %w", err)
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

func readFile(path string) (string, error) {
	content, err := secretfile.Read(path)
	if errors.Is(err, secretfile.ErrEmpty) {
		return "", fmt.Errorf("%s must hold one line, the connection string", path)
	}
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(content))
	if strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("%s must hold one line, the connection string", path)
	}
	return text, nil
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
