package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// acks collects JetStream's acknowledgements. Each message that is sent has a
// number; its reply subject ends in it. After a failure the numbers go on, so
// a late answer to an earlier sending is known as such.
type acks struct {
	prefix  string
	sub     *nats.Subscription
	arrived chan struct{}

	mu    sync.Mutex
	base  uint64 // number of the first message that is not taken yet
	state [maxInFlight]answer
}

type answer struct {
	done bool
	err  error
}

func newAcks(nc *nats.Conn) (*acks, error) {
	a := &acks{prefix: nc.NewRespInbox() + ".", arrived: make(chan struct{}, 1)}
	sub, err := nc.Subscribe(a.prefix+"*", a.answer)
	if err != nil {
		return nil, fmt.Errorf("listen to acknowledgements: %w", err)
	}
	a.sub = sub
	return a, nil
}

// close ends the subscription; a closed connection has done that.
func (a *acks) close() error {
	if err := a.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("acknowledgements: %w", err)
	}
	return nil
}

// reply is the reply subject of the i-th message that is not taken yet.
func (a *acks) reply(i int) string {
	a.mu.Lock()
	n := a.base + uint64(i)
	a.mu.Unlock()
	return a.prefix + strconv.FormatUint(n, 10)
}

// answer handles one acknowledgement, on the subscription's goroutine.
func (a *acks) answer(m *nats.Msg) {
	n, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, a.prefix), 10, 64)
	if err != nil {
		return
	}
	ans := answer{done: true, err: refusal(m)}
	a.mu.Lock()
	if n >= a.base && n-a.base < maxInFlight {
		a.state[n%maxInFlight] = ans
	}
	a.mu.Unlock()
	select {
	case a.arrived <- struct{}{}:
	default:
	}
}

// refusal is the error that an answer tells, or nil.
func refusal(m *nats.Msg) error {
	if len(m.Data) == 0 {
		if m.Header.Get("Status") == "503" {
			return jetstream.ErrNoStreamResponse
		}
		return fmt.Errorf("empty acknowledgement, status %q", m.Header.Get("Status"))
	}
	if bytes.HasPrefix(m.Data, []byte(`{"stream":`)) {
		return nil
	}
	var r struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
	}
	switch err := json.Unmarshal(m.Data, &r); {
	case err != nil:
		return fmt.Errorf("unreadable acknowledgement: %w", err)
	case r.Error != nil:
		return r.Error
	case r.Stream == "":
		return errors.New("acknowledgement of no stream")
	}
	return nil
}

// take returns how many of the first sent messages are acknowledged, without a
// gap, and the error of the one behind them, if it was refused.
func (a *acks) take(sent int) (n int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n < sent {
		s := &a.state[a.base%maxInFlight]
		if !s.done {
			return n, nil
		}
		if s.err != nil {
			return n, s.err
		}
		*s = answer{}
		a.base++
		n++
	}
	return n, nil
}

// forget gives up on everything that was sent so far.
func (a *acks) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.base += maxInFlight
	a.state = [maxInFlight]answer{}
}
