package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// MaxAdmissionWait bounds how long the daemon has a process wait for admission.
const MaxAdmissionWait = 5 * time.Minute

// maxWaiting bounds how many processes wait for admission at once.
const maxWaiting = 256

// AdmissionRequest asks what the asking process is to the daemon.
type AdmissionRequest struct {
	// WaitMillis is how long to wait until that is known, in milliseconds.
	WaitMillis int64 `json:"waitMillis"`
}

// AdmissionReply says what the asking process is. That is in force already.
type AdmissionReply struct {
	// Planner tells whether it is part of a planner job, and served in its network
	// namespace. If it isn't it goes its way.
	Planner bool `json:"planner"`
	// Job and Workload are the planner's.
	Job      string `json:"job,omitempty"`
	Workload string `json:"workload,omitempty"`
	// Cgroup is what the process was known by.
	Cgroup string `json:"cgroup"`
}

// admission answers processes that wait to be known.
type admission struct {
	ctx     context.Context // of the daemon
	handler Handler
	places  chan struct{}
}

func (a admission) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	peer, ok := r.Context().Value(peerKey{}).(Peer)
	if !ok {
		fail(w, http.StatusForbidden, errors.New("the kernel doesn't say who asks"))
		return
	}
	var req AdmissionRequest
	if err := decode(w, r, &req); err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if most := MaxAdmissionWait.Milliseconds(); req.WaitMillis <= 0 || req.WaitMillis > most {
		fail(w, http.StatusBadRequest, fmt.Errorf("the wait must be between 1 and %d milliseconds", most))
		return
	}
	select {
	case a.places <- struct{}{}:
		defer func() { <-a.places }()
	default:
		fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d processes wait for admission already", cap(a.places)))
		return
	}
	wait := time.Duration(req.WaitMillis) * time.Millisecond
	// The server's own bounds are for questions that are answered at once. When one of
	// them passes, the request's context ends as if the client had gone.
	control := http.NewResponseController(w)
	end := time.Now().Add(wait + 10*time.Second)
	if err := errors.Join(control.SetReadDeadline(end), control.SetWriteDeadline(end)); err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	reply, err := a.handler.Admit(ctx, peer)
	if err != nil {
		status := http.StatusForbidden
		if a.ctx.Err() != nil {
			status, err = http.StatusServiceUnavailable, errors.New("the daemon is being stopped")
		}
		fail(w, status, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply)
}
