package client

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/desk/api"
)

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"nothing":       {},
		"both":          {Socket: "/run/s", URL: "https://sink.example"},
		"plain":         {URL: "http://sink.example"},
		"a path":        {URL: "https://sink.example/x"},
		"a user":        {URL: "https://me:secret@sink.example"},
		"another kind":  {URL: "ftp://127.0.0.1"},
		"no CA file":    {URL: "https://sink.example", CAFile: "/nowhere/ca.pem"},
		"no host":       {URL: "https://"},
		"loopback name": {URL: "http://localhost.evil.example"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestAnswersOfSomethingElse(t *testing.T) {
	elsewhere := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/whoami":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/elsewhere":
			elsewhere = true
		case "/v1/locks":
			http.Error(w, "<html>a proxy speaks", http.StatusBadGateway)
		case "/v1/documents":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusConflict)
			_, _ = w.Write([]byte(`{"error":"It is taken.","code":"conflict"}`))
		case "/v1/approvals":
			_, _ = w.Write([]byte("no JSON"))
		}
	}))
	defer server.Close()
	c, err := New(Options{URL: server.URL, Token: func(context.Context) (string, error) { return "t", nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var refused *api.Error
	if _, err := c.WhoAmI(t.Context()); !errors.As(err, &refused) || refused.Status != 302 || elsewhere {
		t.Errorf("a redirect: %v, followed: %t", err, elsewhere)
	}
	if _, err := c.Locks(t.Context()); !errors.As(err, &refused) || refused.Status != 502 || err.Error() != "the sink answered 502 Bad Gateway" {
		t.Errorf("a proxy's answer: %v", err)
	}
	if _, err := c.Published(t.Context()); !errors.As(err, &refused) || refused.Status != 409 || refused.Code != api.CodeConflict || err.Error() != "It is taken." {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := c.Approvals(t.Context(), "all"); err == nil || !strings.Contains(err.Error(), "can't be read") {
		t.Errorf("no JSON: %v", err)
	}
	server.Close()
	if _, err := c.Locks(t.Context()); err == nil || !strings.Contains(err.Error(), "can't be reached") {
		t.Errorf("nobody there: %v", err)
	}
	bad, err := New(Options{URL: server.URL, Token: func(context.Context) (string, error) { return "a\r\nX-Evil: b", nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Locks(t.Context()); err == nil || !strings.Contains(err.Error(), "log in again") {
		t.Errorf("a token that is none: %v", err)
	}
}

func TestReadEvents(t *testing.T) {
	var got []string
	err := readEvents(strings.NewReader(": hello\nevent: approval\ndata: {\ndata: }\n\nevent:ping\n\n\ndata: x\n\nevent: cut"), func(name string, data []byte) error {
		got = append(got, name+"="+string(data))
		return nil
	})
	if !errors.Is(err, ErrBroken) || strings.Join(got, "|") != "approval={\n}|ping=|=x" {
		t.Errorf("%q, %v", got, err)
	}
	long := "data: " + strings.Repeat("x", api.MaxEvent/2) + "\n"
	if err := readEvents(strings.NewReader(long+long+long), func(string, []byte) error { return nil }); !errors.Is(err, ErrBroken) {
		t.Errorf("an event without end: %v", err)
	}
	stop := errors.New("enough")
	if err := readEvents(strings.NewReader("data: x\n\n"), func(string, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("who reads has enough: %v", err)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add([]byte("event: approval\ndata: {}\n\n"))
	f.Add([]byte("data\n\n:x\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		size := 0
		if err := readEvents(strings.NewReader(string(stream)), func(_ string, data []byte) error { size += len(data); return nil }); !errors.Is(err, ErrBroken) {
			t.Errorf("it ends with %v", err)
		}
		if size > len(stream) {
			t.Errorf("%d bytes of data in %d", size, len(stream))
		}
	})
}
