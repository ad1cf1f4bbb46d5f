package intercept

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"chaperone.dev/chaperone/bpf"
)

// Action is what happens to a planner's connection to a captured destination.
type Action uint8

// The actions.
const (
	Redirect Action = Action(bpf.InterceptVerdictVERDICT_DIVERT) // to the listener
	Deny     Action = Action(bpf.InterceptVerdictVERDICT_DENY)   // refused with EPERM
)

// Capture is a destination that no planner reaches directly. Where several hold, the
// one with address and port goes before the one with all ports of the address, and
// that before the one with the port on all addresses.
type Capture struct {
	Addr   netip.Addr // the zero value is any address; a zone is ignored
	Port   uint16     // 0 is any port
	Action Action
	// Protocol and Target come back in the [Origin]; they mean nothing here.
	Protocol uint8
	Target   uint32
	// Datagrams says that UDP is diverted as well, to the sockets of
	// [Interceptor.ListenDatagrams]. Otherwise it is refused.
	Datagrams bool
}

// ErrCapture is wrapped by the errors of [Interceptor.Capture] about a capture
// that can't be.
var ErrCapture = errors.New("invalid capture")

// captureSet is what the kernel holds of a set of captures.
type captureSet map[bpf.InterceptCaptureKey]bpf.InterceptCapture

// Capture replaces the set of captured destinations. At each moment in between
// what is in both sets is captured. When it fails, that and an unknown part of
// the rest is; nothing that was captured and should be is ever let through.
func (i *Interceptor) Capture(set []Capture) error {
	want := captureSet{}
	for _, c := range set {
		key, value, err := c.kernel(i.port)
		if err != nil {
			return err
		}
		if _, twice := want[key]; twice {
			return fmt.Errorf("%w: %s is captured twice", ErrCapture, c.name())
		}
		want[key] = value
	}
	i.capturing.Lock()
	defer i.capturing.Unlock()
	return i.replaceCaptures(want)
}

func (c Capture) kernel(listener uint16) (bpf.InterceptCaptureKey, bpf.InterceptCapture, error) {
	key := bpf.InterceptCaptureKey{Port: hton(c.Port)}
	value := bpf.InterceptCapture{Verdict: uint8(c.Action), Protocol: c.Protocol, Target: c.Target}
	switch {
	case c.Action != Redirect && c.Action != Deny:
		return key, value, fmt.Errorf("%w: %s: unknown action %d", ErrCapture, c.name(), c.Action)
	case !c.Addr.IsValid() && c.Port == 0:
		return key, value, fmt.Errorf("%w: a capture names an address, a port or both", ErrCapture)
	case c.Addr.IsValid() && c.Addr.Unmap().IsUnspecified():
		return key, value, fmt.Errorf("%w: %s: the unspecified address is nobody's; leave the address out to mean any", ErrCapture, c.name())
	case c.Port == listener:
		return key, value, fmt.Errorf("%w: %s: the port is the listener's own", ErrCapture, c.name())
	}
	if c.Datagrams {
		value.Datagrams = 1
	}
	if c.Addr.IsValid() {
		key.Address.Bytes = c.Addr.As16()
	}
	return key, value, nil
}

func (c Capture) name() string {
	addr := "*"
	if c.Addr.IsValid() {
		addr = c.Addr.String()
	}
	if c.Port == 0 {
		return addr + " port *"
	}
	return fmt.Sprintf("%s port %d", addr, c.Port)
}

// captures reads the set that is in force. Nobody else changes it.
func (i *Interceptor) captures() (captureSet, error) {
	set, err := contents[bpf.InterceptCaptureKey, bpf.InterceptCapture](i.objects.Captures)
	if err != nil {
		return nil, fmt.Errorf("list captures: %w", err)
	}
	return set, nil
}

// replaceCaptures adds first and removes then: quick filter before captures when
// adding, after them when removing.
func (i *Interceptor) replaceCaptures(want captureSet) error {
	if err := i.configure(want.allow); err != nil {
		return err
	}
	addresses := maps.Clone(i.protected)
	for key := range want {
		if key.Address != (bpf.InterceptAddress{}) { // any address is not listed
			addresses[key.Address] = true
		}
	}
	if err := i.addAddresses(addresses); err != nil {
		return err
	}
	for key, value := range want {
		if err := i.objects.Captures.Put(key, value); err != nil {
			return fmt.Errorf("add a capture to %d: %w", len(want), err)
		}
	}
	if err := retain(i.objects.Captures, func(key bpf.InterceptCaptureKey, _ bpf.InterceptCapture) bool {
		_, keep := want[key]
		return keep
	}); err != nil {
		return fmt.Errorf("remove captures: %w", err)
	}
	if err := i.removeAddresses(addresses); err != nil {
		return err
	}
	return i.configure(func(c *bpf.InterceptConfig) {
		*c = bpf.InterceptConfig{Port: c.Port, Area: c.Area, Flags: c.Flags &^ (anyAddress | anyPort)}
		want.allow(c)
	})
}

// Flags of the kernel programs' configuration.
const (
	anyAddress  = 1 << iota // ANY_ADDRESS
	anyPort                 // ANY_PORT
	egressRules             // EGRESS_RULES
	holdUnknown             // HOLD_UNKNOWN
	nodeBelt                // NODE_BELT
)

// allow lets the set through the quick filter of the kernel programs.
func (s captureSet) allow(c *bpf.InterceptConfig) {
	for key := range s {
		if key.Address == (bpf.InterceptAddress{}) {
			c.Flags |= anyAddress
		}
		if port := ntoh(key.Port); port == 0 {
			c.Flags |= anyPort
		} else {
			c.Ports[port/64] |= 1 << (port % 64)
		}
	}
}
