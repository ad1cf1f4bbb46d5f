package postgresadmin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chaperone.dev/chaperone/internal/credential"
)

// Terminate ends the sessions of a role that were opened as told, and waits until
// none of them is left. Others of the same role go on.
func Terminate(ctx context.Context, file, role string, backends []credential.Backend) error {
	if len(backends) == 0 {
		return nil
	}
	conn, err := Connect(ctx, file, "")
	if err != nil {
		return err
	}
	defer Close(ctx, conn)
	processes, ports := make([]int32, len(backends)), make([]int32, len(backends))
	for i, b := range backends {
		processes[i], ports[i] = int32(b.Process), int32(b.Port)
	}
	// A process id is soon another session's; with the client's port it is not. Who
	// may not see another role's port sees NULL.
	const query = `SELECT count(*), count(pg_terminate_backend(a.pid)) FILTER (WHERE a.client_port IS NOT NULL)
		FROM pg_stat_activity a JOIN unnest($1::int[], $2::int[]) AS s(pid, port) ON a.pid = s.pid
		WHERE a.usename = $3 AND (a.client_port IS NULL OR a.client_port = s.port)`
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		var left, seen int
		if err := conn.QueryRow(ctx, query, processes, ports, role).Scan(&left, &seen); err != nil {
			return fmt.Errorf("end sessions of role %s: %w", role, err)
		}
		if left == 0 {
			return nil
		}
		if seen == 0 {
			return fmt.Errorf("end sessions of role %s: %w", role, errBlind)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d sessions of role %s don't end: %w", left, role, ctx.Err())
		case <-time.After(pause):
		}
	}
}

var errBlind = errors.New("the administrator can't tell them apart: grant it pg_read_all_stats, and pg_signal_backend to end them")
