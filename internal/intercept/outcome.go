package intercept

import (
	"fmt"

	"chaperone.dev/chaperone/bpf"
)

// Outcome is what the kernel programs did.
type Outcome string

// The outcomes. All but those of diversion are refusals.
const (
	Diverted          Outcome = "diverted"           // a connect(2) was sent to the listener
	HandedOver        Outcome = "handed_over"        // its origin reached the accepted socket
	RefusedTarget     Outcome = "refused_target"     // captured with Deny
	RefusedStranger   Outcome = "refused_stranger"   // captured, and asked for by no planner
	RefusedProtocol   Outcome = "refused_protocol"   // captured, and asked for by something else than TCP
	RefusedListener   Outcome = "refused_listener"   // straight to the listener
	RefusedSocket     Outcome = "refused_socket"     // a planner asked for a socket that is neither TCP nor UDP
	RefusedBind       Outcome = "refused_bind"       // the listener's port
	RefusedClosed     Outcome = "refused_closed"     // the daemon didn't listen
	RefusedBusy       Outcome = "refused_busy"       // the planner had too many connections in set-up
	RefusedFault      Outcome = "refused_fault"      // the kernel had no room, or no configuration
	DroppedTarget     Outcome = "dropped_target"     // a packet to a captured destination
	DroppedUnreadable Outcome = "dropped_unreadable" // a packet whose port can't be told
	Unreported        Outcome = "unreported"         // of the refusals, those not reported singly
	RefusedEgress     Outcome = "refused_egress"     // not among what the planner's profile allows
	DroppedEgress     Outcome = "dropped_egress"     // a packet to such a destination
	RefusedUnix       Outcome = "refused_unix"       // the unix socket of a protected service
	DivertedDatagram  Outcome = "diverted_datagram"  // a datagram, or connect(2) for them, was sent to the resolver
)

// outcomes returns all of them, each at the index that the kernel knows it by.
func outcomes() [bpf.InterceptOutcomeOUTCOMES]Outcome {
	return [...]Outcome{
		bpf.InterceptOutcomeDIVERTED:           Diverted,
		bpf.InterceptOutcomeHANDED_OVER:        HandedOver,
		bpf.InterceptOutcomeREFUSED_TARGET:     RefusedTarget,
		bpf.InterceptOutcomeREFUSED_STRANGER:   RefusedStranger,
		bpf.InterceptOutcomeREFUSED_PROTOCOL:   RefusedProtocol,
		bpf.InterceptOutcomeREFUSED_LISTENER:   RefusedListener,
		bpf.InterceptOutcomeREFUSED_SOCKET:     RefusedSocket,
		bpf.InterceptOutcomeREFUSED_BIND:       RefusedBind,
		bpf.InterceptOutcomeREFUSED_CLOSED:     RefusedClosed,
		bpf.InterceptOutcomeREFUSED_BUSY:       RefusedBusy,
		bpf.InterceptOutcomeREFUSED_FAULT:      RefusedFault,
		bpf.InterceptOutcomeDROPPED_TARGET:     DroppedTarget,
		bpf.InterceptOutcomeDROPPED_UNREADABLE: DroppedUnreadable,
		bpf.InterceptOutcomeUNREPORTED:         Unreported,
		bpf.InterceptOutcomeREFUSED_EGRESS:     RefusedEgress,
		bpf.InterceptOutcomeDROPPED_EGRESS:     DroppedEgress,
		bpf.InterceptOutcomeREFUSED_UNIX:       RefusedUnix,
		bpf.InterceptOutcomeDIVERTED_DATAGRAM:  DivertedDatagram,
	}
}

// Stats counts outcomes since the maps were first pinned, exactly: also those
// while no daemon ran, and those that were not reported.
func (i *Interceptor) Stats() (map[Outcome]uint64, error) {
	stats := map[Outcome]uint64{}
	for index, outcome := range outcomes() {
		var perCPU []uint64
		if err := i.objects.Stats.Lookup(uint32(index), &perCPU); err != nil {
			return nil, fmt.Errorf("read count of %s: %w", outcome, err)
		}
		for _, n := range perCPU {
			stats[outcome] += n
		}
	}
	return stats, nil
}
