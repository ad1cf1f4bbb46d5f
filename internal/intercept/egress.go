package intercept

import (
	"errors"
	"fmt"
	"net/netip"

	"chaperone.dev/chaperone/bpf"
)

// Destination is what a planner with a profile may reach besides what is
// captured: a port on a range of addresses.
type Destination struct {
	Prefix netip.Prefix
	Port   uint16
}

// ErrDestination is wrapped by errors about a destination that can't be.
var ErrDestination = errors.New("invalid destination")

// lengthOfPorts is how many bits of an egress_key, after its count, precede the
// address.
const lengthOfPorts = 96

func (d Destination) kernel(profile uint32) (bpf.InterceptEgressKey, error) {
	key := bpf.InterceptEgressKey{Profile: profile, Port: hton(d.Port)}
	switch {
	case profile == 0:
		return key, fmt.Errorf("%w: %s: profile 0 is that of planners without a profile", ErrDestination, d.Prefix)
	case !d.Prefix.IsValid() || d.Port == 0:
		return key, fmt.Errorf("%w: %s port %d", ErrDestination, d.Prefix, d.Port)
	}
	bits := d.Prefix.Bits()
	if d.Prefix.Addr().Is4() {
		bits += 96
	}
	key.Bits = uint32(lengthOfPorts + bits)
	key.Address = kernelAddress(d.Prefix.Masked().Addr())
	return key, nil
}

// Allow adds destinations to a profile. They are in force when it returns.
func (i *Interceptor) Allow(profile uint32, destinations []Destination) error {
	for _, d := range destinations {
		key, err := d.kernel(profile)
		if err != nil {
			return err
		}
		if err := i.objects.EgressRules.Put(key, uint32(1)); err != nil {
			return fmt.Errorf("allow %s port %d: %w", d.Prefix, d.Port, err)
		}
	}
	return nil
}

// Egress replaces the destinations of all profiles, and says whether
// cgroups that are not known yet are held: whatever they ask for but loopback is
// refused until they are enrolled or known as bystanders. What is both in the
// old set and in the new one is allowed throughout.
func (i *Interceptor) Egress(profiles map[uint32][]Destination, hold bool) error {
	want := map[bpf.InterceptEgressKey]bool{}
	for profile, destinations := range profiles {
		for _, d := range destinations {
			key, err := d.kernel(profile)
			if err != nil {
				return err
			}
			want[key] = true
		}
	}
	i.capturing.Lock()
	defer i.capturing.Unlock()
	for key := range want {
		if err := i.objects.EgressRules.Put(key, uint32(1)); err != nil {
			return fmt.Errorf("allow a destination, of %d: %w", len(want), err)
		}
	}
	err := retain(i.objects.EgressRules, func(key bpf.InterceptEgressKey, _ uint32) bool { return want[key] })
	if err != nil {
		return fmt.Errorf("remove allowed destinations: %w", err)
	}
	return i.configure(func(c *bpf.InterceptConfig) {
		c.Flags &^= egressRules | holdUnknown
		if len(profiles) > 0 {
			c.Flags |= egressRules
		}
		if hold {
			c.Flags |= holdUnknown
		}
	})
}
