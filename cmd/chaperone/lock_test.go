package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/lock"
)

func TestLocks(t *testing.T) {
	w := startDesk(t)
	for _, c := range []struct {
		args string
		want string
	}{
		{"lock --target orders-db", "--for"},
		{"lock --for 1h", "say what to lock"},
		{"lock --for -1h --target x", "want a duration"},
		{"lock --for 1h --principal ann", "want subject@issuer"},
		{"lock --for 1h --target x more", "unknown command"},
		{"unlock", "accepts 1 arg"},
	} {
		if _, err := w.command(t, strings.Fields(c.args)...); code(err) != 2 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("chaperone %s: %v", c.args, err)
		}
	}
	out, err := w.command(t, "locks")
	if err != nil || out != "There are no locks.\n" {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = w.command(t, "lock", "--principal", "ann@corp@local", "--target", "orders-db", "--for", "1h", "--reason", "leak \x1b[2J")
	ok(t, err)
	m := regexp.MustCompile(`^Locked (l-[a-z2-7]{16}) until .*: principal ann@corp@local, target orders-db\nRelease it with: chaperone unlock (l-[a-z2-7]{16})\n$`).FindStringSubmatch(out)
	if m == nil || m[1] != m[2] {
		t.Fatal(out)
	}
	out, err = w.command(t, "locks")
	ok(t, err)
	if !strings.Contains(out, m[1]+"  in force  principal ann@corp@local, target orders-db  root@local") || !strings.Contains(out, `leak \x1b[2J`) {
		t.Error(out)
	}
	noControl(t, "locks", out)
	if _, err := w.command(t, "unlock", "l-zzzz"); code(err) != 1 || !strings.Contains(err.Error(), "no such lock") {
		t.Error(err)
	}
	out, err = w.command(t, "unlock", m[1][:8], "--reason", "found")
	if err != nil || out != "Released "+m[1]+": principal ann@corp@local, target orders-db\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := w.command(t, "unlock", m[1]); code(err) != 1 || !strings.Contains(err.Error(), "over already") {
		t.Error(err)
	}
	out, err = w.command(t, "locks")
	ok(t, err)
	if !strings.Contains(out, "released by root@local") || !strings.Contains(out, "; released: found") {
		t.Error(out)
	}
	out, err = w.command(t, "locks", "-o", "json")
	ok(t, err)
	var list []lock.Entry
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].Lock.ID != m[1] {
		t.Errorf("%v in %s", err, out)
	}
}

func TestLockID(t *testing.T) {
	list := []lock.Entry{{Lock: lock.Lock{ID: "l-aaaa"}}, {Lock: lock.Lock{ID: "l-aabb"}}, {Lock: lock.Lock{ID: "l-cccc"}}}
	for begin, want := range map[string]string{"l-c": "l-cccc", "C": "l-cccc", "l-aaa": "l-aaaa", "l-aa": "", "l-x": "l-x"} {
		if got, err := lockID(list, begin); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", begin, got, err)
		}
	}
}

const providerDocument = `apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp}
spec: {issuer: "https://corp.example", audiences: [chaperone]}
`

func TestPublish(t *testing.T) {
	w := startDesk(t)
	dir := t.TempDir()
	write := func(name, text string) { ok(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)) }
	if _, err := w.command(t, "policy", "published"); code(err) != 1 || !strings.Contains(err.Error(), "No documents are published") {
		t.Error(err)
	}
	if _, err := w.command(t, "policy", "publish"); code(err) != 2 {
		t.Error(err)
	}
	write("corp.yaml", strings.Replace(providerDocument, "issuer:", "isuer:", 1))
	if _, err := w.command(t, "policy", "publish", dir, "--server", "http://127.0.0.1:1"); code(err) != 1 || !strings.Contains(err.Error(), filepath.Join(dir, "corp.yaml")+":4") {
		t.Errorf("checked before anybody is asked: %v", err)
	}
	write("corp.yaml", providerDocument)
	write("corp_test.yaml", "not: documents")
	write("notes.txt", "neither")
	write("sink.yaml", "apiVersion: chaperone.dev/v1alpha1\nkind: Sink\nmetadata: {name: sink}\nspec: {listen: \"127.0.0.1:1\", url: \"http://127.0.0.1:1\", login: {issuer: corp, clientID: x}}\n")
	if _, err := w.command(t, "policy", "publish", dir); code(err) != 1 || !strings.Contains(err.Error(), "sink.yaml") || !strings.Contains(err.Error(), "only Target") {
		t.Errorf("a sink's own settings: %v", err)
	}
	ok(t, os.Remove(filepath.Join(dir, "sink.yaml")))
	out, err := w.command(t, "policy", "publish", dir)
	ok(t, err)
	m := regexp.MustCompile(`^Published 1 file: serial (\d+), revision (\S+)\n$`).FindStringSubmatch(out)
	if m == nil {
		t.Fatal(out)
	}
	out, err = w.command(t, "policy", "published")
	ok(t, err)
	for _, want := range []string{"Serial        " + m[1], "Revision      " + m[2], "Published by  root@local", "Files         corp.yaml, " + fmt.Sprint(len(providerDocument)) + " bytes\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, err = w.command(t, "policy", "published", "-o", "json")
	ok(t, err)
	var p api.Published
	if err := json.Unmarshal([]byte(out), &p); err != nil || p.Files["corp.yaml"] != providerDocument {
		t.Errorf("%v in %s", err, out)
	}
}
