package session

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// maySet judges the settings of the startup packet as the SET statements that
// they are: "role" among them would be a way around what policy says of SET
// ROLE. Those that only shape how the session reads and shows data are no
// question of policy, as no client connects without some.
func (c *connection) maySet(startup postgres.Startup) *postgres.Refusal {
	settings, err := startup.Settings()
	if err != nil {
		return asRefusal(err)
	}
	for _, setting := range settings {
		text := `SET "` + strings.ReplaceAll(setting.Name, `"`, `""`) + `" TO '` + strings.ReplaceAll(setting.Value, `'`, `''`) + `'`
		query, err := c.server.opts.Parser.Parse(text)
		if err == nil && len(query.Statements) != 1 {
			err = errors.New("it is no setting")
		}
		if err != nil {
			refusal := unreadable(err)
			refusal.Message = fmt.Sprintf("startup parameter %q: %s", setting.Name, refusal.Message)
			refusal.Position = 0
			return refusal
		}
		facts := query.Statements[0].Facts(text)
		if facts.ReadOnly {
			continue
		}
		if decision := c.bound.Statement(time.Now(), policy.SessionFacts{}, &facts); decision.Action != policy.Allow {
			return &postgres.Refusal{
				Reason: event.ReasonDenied, SQLState: "42501",
				Message: fmt.Sprintf("startup parameter %q is refused: %s", setting.Name, decision.Message),
				Detail:  decidedBy(decision),
			}
		}
	}
	return nil
}
