package idp_test

import (
	"crypto/rand"
	"net/http"
	"strings"
	"testing"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"
)

func TestCodeFlow(t *testing.T) {
	w := start(t)
	tests := []struct {
		name, client, secret, redirect, user string
		accessAudience                       []string
	}{
		{"public client", "cli", "", "http://127.0.0.1:4711/callback", "ada", []string{"cli", "chaperone"}},
		{"confidential client", "console", "s3cret", "https://console.example/callback", "ada@corp.example", []string{"console"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			config := w.config(t, test.client, test.secret, test.redirect)
			verifier, nonce := oauth2.GenerateVerifier(), rand.Text()
			login := w.get(t, config.AuthCodeURL("the-state", oauth2.S256ChallengeOption(verifier), gooidc.Nonce(nonce)))
			back := w.submit(t, login, map[string]string{"username": test.user, "password": "correct horse"})
			if back.redirect == nil || !strings.HasPrefix(back.redirect.String(), test.redirect+"?") {
				t.Fatalf("it leads to %v, status %d\n%s", back.redirect, back.status, back.text)
			}
			if got := back.redirect.Query().Get("state"); got != "the-state" {
				t.Errorf("the state is %q", got)
			}
			code := back.redirect.Query().Get("code")
			token, err := config.Exchange(w.context(t), code, oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatal(err)
			}
			want := claims{
				Subject: "ada", Audience: []string{test.client}, Email: "ada@corp.example", Name: "Ada L.",
				Groups: []string{"dba", "oncall"}, Nonce: nonce,
			}
			idToken, _ := token.Extra("id_token").(string)
			got, err := w.verify(t, idToken, test.client)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("ID token: %v %s", err, diff)
			}
			want.Audience = test.accessAudience
			got, err = w.verify(t, token.AccessToken, test.client)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("access token: %v %s", err, diff)
			}
			info, err := w.discover(t).UserInfo(w.context(t), oauth2.StaticTokenSource(token))
			if err != nil || info.Subject != "ada" || info.Email != "ada@corp.example" {
				t.Errorf("userinfo is %+v, %v", info, err)
			}
			if _, err := config.Exchange(w.context(t), code, oauth2.VerifierOption(verifier)); oauthError(err) != "invalid_grant" {
				t.Errorf("a code that was used: %v", err)
			}
		})
	}
}

func TestLoginRefusesAWrongPassword(t *testing.T) {
	w := start(t)
	config := w.config(t, "cli", "", "http://127.0.0.1:4711/callback")
	login := w.get(t, config.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	for _, fields := range []map[string]string{
		{"username": "ada", "password": "wrong"},
		{"username": "ada", "password": ""},
		{"username": "bob", "password": ""},
		{"username": "", "password": ""},
		{"username": "<b>nobody</b>", "password": "correct horse"},
	} {
		p := w.submit(t, login, fields)
		if p.status != http.StatusUnauthorized || p.redirect != nil || !strings.Contains(p.text, "not the user name and password") {
			t.Errorf("%v: status %d, leads to %v\n%s", fields, p.status, p.redirect, p.text)
		}
		if strings.Contains(p.text, "<b>") {
			t.Errorf("the page has what was typed as HTML:\n%s", p.text)
		}
		login = p // the page asks again
	}
	if back := w.submit(t, login, ada); back.redirect == nil {
		t.Errorf("the right password after wrong ones: status %d\n%s", back.status, back.text)
	}
}

func TestCodeFlowRefuses(t *testing.T) {
	w := start(t)
	t.Run("another redirect", func(t *testing.T) {
		for id, redirect := range map[string]string{
			"cli":     "https://evil.example/callback",
			"console": "https://console.example/callback/x",
			"nobody":  "http://127.0.0.1/callback",
		} {
			p := w.get(t, w.config(t, id, "", redirect).AuthCodeURL("s"))
			if p.status != http.StatusBadRequest || p.redirect != nil {
				t.Errorf("%s at %s: status %d, leads to %v", id, redirect, p.status, p.redirect)
			}
		}
	})
	for _, test := range []struct {
		name      string
		client    string
		secret    string
		redirect  string
		challenge bool
		verifier  string
		want      string
	}{
		{"no PKCE", "cli", "", "http://127.0.0.1:1/callback", false, "", "invalid_request"},
		{"another verifier", "cli", "", "http://127.0.0.1:1/callback", true, oauth2.GenerateVerifier(), "invalid_grant"},
		{"a wrong secret", "console", "guess", "https://console.example/callback", false, "", "invalid_client"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := w.config(t, test.client, test.secret, test.redirect)
			var challenge, verifier []oauth2.AuthCodeOption
			if test.challenge {
				challenge = append(challenge, oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
				verifier = append(verifier, oauth2.VerifierOption(test.verifier))
			}
			back := w.submit(t, w.get(t, config.AuthCodeURL("s", challenge...)), ada)
			if back.redirect == nil {
				t.Fatalf("the login failed: %d\n%s", back.status, back.text)
			}
			config.Endpoint.AuthStyle = oauth2.AuthStyleInParams // one try only: a code is good for one
			_, err := config.Exchange(w.context(t), back.redirect.Query().Get("code"), verifier...)
			if oauthError(err) != test.want {
				t.Errorf("the token endpoint says %v, not %s", err, test.want)
			}
		})
	}
}

func TestDeviceFlow(t *testing.T) {
	for _, test := range []struct {
		name    string
		approve func(*testing.T, *world, *oauth2.DeviceAuthResponse)
	}{
		{"page", func(t *testing.T, w *world, auth *oauth2.DeviceAuthResponse) {
			form := map[string]string{"user_code": "XXXX-XXXX", "username": "ada", "password": "correct horse"}
			p := w.submit(t, w.get(t, auth.VerificationURI), form)
			if p.status != http.StatusBadRequest || !strings.Contains(p.text, "no device waits with that code") {
				t.Errorf("a wrong code: status %d\n%s", p.status, p.text)
			}
			form["user_code"], form["password"] = auth.UserCode, "wrong"
			p = w.submit(t, p, form)
			if p.status != http.StatusUnauthorized {
				t.Errorf("a wrong password: status %d\n%s", p.status, p.text)
			}
			form["user_code"], form["password"] = strings.ToLower(strings.ReplaceAll(auth.UserCode, "-", "")), "correct horse"
			p = w.submit(t, p, form)
			if p.status != http.StatusOK || !strings.Contains(p.text, "The device is connected") {
				t.Fatalf("status %d\n%s", p.status, p.text)
			}
		}},
		{"complete address", func(t *testing.T, w *world, auth *oauth2.DeviceAuthResponse) {
			p := w.get(t, auth.VerificationURIComplete)
			if !strings.Contains(p.text, `value="`+auth.UserCode+`"`) {
				t.Fatalf("the code isn't filled in:\n%s", p.text)
			}
			p = w.submit(t, p, map[string]string{"user_code": auth.UserCode, "username": "ada", "password": "correct horse"})
			if p.status != http.StatusOK {
				t.Fatalf("status %d\n%s", p.status, p.text)
			}
		}},
		{"approve", func(t *testing.T, w *world, auth *oauth2.DeviceAuthResponse) {
			if err := w.Approve(auth.UserCode, "nobody"); err == nil {
				t.Error("approved as nobody")
			}
			if err := w.Approve("XXXX-XXXX", "ada"); err == nil {
				t.Error("approved a code that was never given out")
			}
			if err := w.Approve(auth.UserCode, "ada"); err != nil {
				t.Fatal(err)
			}
			if err := w.Approve(auth.UserCode, "bob"); err == nil {
				t.Error("approved again, as somebody else")
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			config := w.config(t, "cli", "", "")
			auth, err := config.DeviceAuth(w.context(t))
			if err != nil {
				t.Fatal(err)
			}
			if got := w.poll(t, auth); got != "authorization_pending" {
				t.Errorf("before the approval a poll says %q", got)
			}
			test.approve(t, w, auth)
			token, err := config.DeviceAccessToken(w.context(t), auth)
			if err != nil {
				t.Fatal(err)
			}
			idToken, _ := token.Extra("id_token").(string)
			want := claims{
				Subject: "ada", Audience: []string{"cli"}, Email: "ada@corp.example", Name: "Ada L.", Groups: []string{"dba", "oncall"},
			}
			got, err := w.verify(t, idToken, "cli")
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("ID token: %v %s", err, diff)
			}
			want.Audience = []string{"cli", "chaperone"}
			got, err = w.verify(t, token.AccessToken, "chaperone")
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("access token: %v %s", err, diff)
			}
			if got := w.poll(t, auth); got != "access_denied" {
				t.Errorf("after the token a poll says %q", got)
			}
		})
	}
}

func TestDeviceFlowNeedsLeave(t *testing.T) {
	w := start(t)
	if _, err := w.config(t, "console", "s3cret", "").DeviceAuth(w.context(t)); oauthError(err) != "unauthorized_client" {
		t.Errorf("a client without the device grant: %v", err)
	}
}
