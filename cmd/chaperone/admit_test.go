package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/control"
)

// admitting is a daemon with one answer.
type admitting struct {
	control.Handler
	reply control.AdmissionReply
	err   error
}

func (a admitting) Admit(context.Context, control.Peer) (control.AdmissionReply, error) {
	return a.reply, a.err
}

func TestAdmit(t *testing.T) {
	planner := admitting{reply: control.AdmissionReply{Planner: true, Job: "planner-1", Workload: "units"}}
	bystander := admitting{reply: control.AdmissionReply{Cgroup: "/system.slice/web.service"}}
	tests := []struct {
		name   string
		daemon *admitting // nil: none runs
		args   []string
		code   int
		want   string
	}{
		{"a planner", &planner, nil, 0, "planner job planner-1 of workload units"},
		{"what has to be a planner", &planner, []string{"--planner"}, 0, "planner-1"},
		{"a bystander", &bystander, nil, 0, "as no planner"},
		{"a bystander that has to be a planner", &bystander, []string{"--planner"}, 255, "no Workload document selects the unit of cgroup /system.slice/web.service"},
		{"a refusal", &admitting{err: errors.New("two documents")}, nil, 255, "not admitted: two documents"},
		{"no daemon", nil, []string{"--timeout", "250ms"}, 255, "no daemon at"},
		{"no time", &planner, []string{"--timeout", "0s"}, 255, "must be between"},
		{"an unknown flag", &planner, []string{"--planer"}, 255, "unknown flag"},
		{"an argument", &planner, []string{"planner.service"}, 255, "unknown command"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if test.daemon != nil {
				ctx, stop := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- control.Serve(ctx, filepath.Join(dir, control.SocketName), *test.daemon) }()
				defer func() {
					stop()
					if err := <-served; err != nil {
						t.Error(err)
					}
				}()
			}
			root := rootCommand()
			var out bytes.Buffer
			root.SetOut(&out)
			root.SetErr(&out)
			// The daemon may begin to listen only after it was asked.
			root.SetArgs(append([]string{"admit", "--run-dir", dir}, test.args...))
			err := root.ExecuteContext(t.Context())
			code := 0
			if err != nil {
				code = 1
				out.WriteString(err.Error())
			}
			var status exitStatus
			if errors.As(err, &status) {
				code = status.code
			}
			if code != test.code || !strings.Contains(out.String(), test.want) {
				t.Errorf("exit code %d, want %d; it said %q, want %q", code, test.code, out.String(), test.want)
			}
		})
	}
}
