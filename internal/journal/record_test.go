package journal

import (
	"bytes"
	"errors"
	"testing"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
	"github.com/google/go-cmp/cmp"
)

func TestFrameRoundTrip(t *testing.T) {
	for _, f := range []frame{
		{Type: recFrame, Kind: recording.KindOutcome, Flags: flagLong, Session: "s-1", Time: -5, Seq: 1 << 60, Rows: 300, Payload: []byte("{}")},
		{Type: recOpen, Kind: recording.KindSessionStarted, Session: "s", Target: "orders-db", Subject: "j-1", Payload: []byte("x")},
		{Type: recTruncate, Kind: recording.KindSessionEnded, Session: "s", Payload: []byte{}},
	} {
		got, err := parseFrame(append(f.appendHeader(nil), f.Payload...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f, got); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzRecord(f *testing.F) {
	one := frame{Type: recOpen, Kind: recording.KindSessionStarted, Session: "s", Time: 1, Seq: 2, Target: "t", Subject: "u"}
	f.Add(one.appendHeader(nil))
	for _, v := range []any{seal{Session: "s", Index: 1}, checkpoint{From: 7}, nodeEvent{Event: event.Event{ID: "1"}}} {
		rec, err := encodeJSON(recSeal, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(rec)
	}
	f.Fuzz(func(t *testing.T, rec []byte) {
		if len(rec) == 0 {
			return // the log holds no empty records
		}
		s := startState{seals: map[string]map[uint64]seal{}, open: map[string]bool{}, ended: map[string]bool{}}
		if err := s.visit(rec); err != nil && !errors.Is(err, errRecord) {
			t.Fatalf("error is no errRecord: %v", err)
		}
		if got, err := parseFrame(rec); err == nil {
			again, err := parseFrame(append(got.appendHeader(nil), got.Payload...))
			if err != nil {
				t.Fatal(err)
			}
			if got.Type == recOpen != (again.Type == recOpen) || !bytes.Equal(got.Payload, again.Payload) || got.Session != again.Session {
				t.Fatalf("%+v, then %+v", got, again)
			}
		}
	})
}
