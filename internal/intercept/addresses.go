package intercept

import (
	"fmt"
	"maps"
	"net/netip"

	"chaperone.dev/chaperone/bpf"
)

// Protect replaces the set of addresses that are known to be targets'. They
// matter where a port doesn't tell: a fragment, or a protocol without ports, toward
// one of them is dropped, and with [Options.NodeBelt] captured ports of them are
// refused to everybody on the node but planners and the daemon. Addresses
// of [Capture]s are protected anyway.
func (i *Interceptor) Protect(addresses []netip.Addr) error {
	protected := addressSet{}
	for _, a := range addresses {
		if !a.IsValid() || a.Unmap().IsUnspecified() {
			return fmt.Errorf("%w: %s can't be a target's address", ErrCapture, a)
		}
		protected[kernelAddress(a)] = true
	}
	i.capturing.Lock()
	defer i.capturing.Unlock()
	captured, err := i.captures()
	if err != nil {
		return err
	}
	if err := i.addAddresses(protected); err != nil {
		return err
	}
	i.protected = protected
	keep := maps.Clone(protected)
	for key := range captured {
		keep[key.Address] = true
	}
	return i.removeAddresses(keep)
}

// ProtectAlso adds to the set of [Interceptor.Protect].
func (i *Interceptor) ProtectAlso(addresses []netip.Addr) error {
	more := addressSet{}
	for _, a := range addresses {
		if a.IsValid() && !a.Unmap().IsUnspecified() {
			more[kernelAddress(a)] = true
		}
	}
	i.capturing.Lock()
	defer i.capturing.Unlock()
	if err := i.addAddresses(more); err != nil {
		return err
	}
	maps.Copy(i.protected, more)
	return nil
}

// addressSet is what the kernel holds of a set of addresses.
type addressSet map[bpf.InterceptAddress]bool

func kernelAddress(a netip.Addr) bpf.InterceptAddress {
	return bpf.InterceptAddress{Bytes: a.As16()}
}

// takeOverAddresses keeps what an earlier process protected in force, until
// this one says what it protects.
func (i *Interceptor) takeOverAddresses() error {
	listed, err := contents[bpf.InterceptAddress, uint32](i.objects.Addresses)
	if err != nil {
		return fmt.Errorf("list protected addresses: %w", err)
	}
	i.protected = addressSet{}
	for a := range listed {
		i.protected[a] = true
	}
	return nil
}

func (i *Interceptor) addAddresses(set addressSet) error {
	for a := range set {
		if err := i.objects.Addresses.Put(a, uint32(1)); err != nil {
			return fmt.Errorf("add a protected address to %d: %w", len(set), err)
		}
	}
	return nil
}

func (i *Interceptor) removeAddresses(keep addressSet) error {
	err := retain(i.objects.Addresses, func(a bpf.InterceptAddress, _ uint32) bool { return keep[a] })
	if err != nil {
		return fmt.Errorf("remove protected addresses: %w", err)
	}
	return nil
}
