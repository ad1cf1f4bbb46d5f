package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
)

// recordedCommand is one command of a recording.
type recordedCommand struct {
	At      time.Time
	Command event.Command // with its outcome, where that is recorded
	Over    bool          // it was refused, or its outcome is recorded
}

// recordedCommands reads a session's recording: who the session was for, where
// it led, and its commands in their order. With an error it returns what could
// be read before: of a recording that is not whole and unchanged (the error
// says which block), or that has not ended yet (it wraps [recording.ErrTruncated]).
func recordedCommands(ctx context.Context, client *sink.Client, session string) (event.SessionStarted, []recordedCommand, error) {
	keys, err := client.Keys(ctx)
	if err != nil {
		return event.SessionStarted{}, nil, err
	}
	codec, err := recording.NewCodec()
	if err != nil {
		return event.SessionStarted{}, nil, err
	}
	check := newChecker(codec, session, keys)
	commands := commandReader{bySeq: map[uint64]int{}}
	err = client.Blocks(ctx, session, func(data []byte) error {
		if b := check.add(data); b != nil {
			return commands.block(b)
		}
		return nil
	})
	if err != nil {
		return commands.started, commands.list, notFound(err, session)
	}
	_, err = check.result()
	if err == nil && commands.started.Session == "" {
		err = fmt.Errorf("recording of session %s doesn't say who it was for", printable(session))
	}
	return commands.started, commands.list, err
}

// commandReader gathers a recording's commands.
type commandReader struct {
	started event.SessionStarted
	list    []recordedCommand
	bySeq   map[uint64]int
}

// maxRecordedCommands bounds what is held of one session.
const maxRecordedCommands = 1_000_000

func (r *commandReader) block(b *recording.Block) error {
	for f, err := range b.Frames() {
		if err != nil {
			return nil // what is wrong with it is told by the verification
		}
		if err := r.frame(f); err != nil {
			return fmt.Errorf("%s at %s: %w", f.Kind, f.At().Format(time.RFC3339Nano), err)
		}
	}
	return nil
}

func (r *commandReader) frame(f recording.Frame) error {
	switch f.Kind {
	case recording.KindSessionStarted:
		return json.Unmarshal(f.Payload, &r.started)
	case recording.KindCommand:
		if len(r.list) == maxRecordedCommands {
			return errors.New("there are too many commands in one session to be held at once")
		}
		c := recordedCommand{At: f.At()}
		if err := json.Unmarshal(f.Payload, &c.Command); err != nil {
			return err
		}
		c.Over = c.Command.Decision != "allow"
		r.bySeq[c.Command.Seq] = len(r.list)
		r.list = append(r.list, c)
	case recording.KindOutcome:
		var o event.Command
		if err := json.Unmarshal(f.Payload, &o); err != nil {
			return err
		}
		if i, known := r.bySeq[o.Seq]; known {
			r.list[i].Command.SetOutcome(&o)
			r.list[i].Over = true
		}
	}
	return nil
}
