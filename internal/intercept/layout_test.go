package intercept

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"chaperone.dev/chaperone/bpf"
)

// The daemon's types lie in memory as those of the kernel programs do, and no key has
// a hole that nobody writes.
func TestLayout(t *testing.T) {
	spec, err := bpf.LoadIntercept()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"address":     bpf.InterceptAddress{},
		"budget":      bpf.InterceptBudget{},
		"capture":     bpf.InterceptCapture{},
		"capture_key": bpf.InterceptCaptureKey{},
		"config":      bpf.InterceptConfig{},
		"member":      bpf.InterceptMember{},
		"origin":      bpf.InterceptOrigin{},
		"report":      bpf.InterceptReport{},
		"tuple":       bpf.InterceptTuple{},
	} {
		t.Run(name, func(t *testing.T) {
			var c *btf.Struct
			if err := spec.Types.TypeByName(name, &c); err != nil {
				t.Fatal(err)
			}
			g := reflect.TypeOf(value)
			if uintptr(c.Size) != g.Size() || binary.Size(value) != int(c.Size) {
				t.Errorf("%d bytes in C, %d in Go's memory, %d encoded", c.Size, g.Size(), binary.Size(value))
			}
			compareMembers(t, c, g)
		})
	}
	if n := int(bpf.InterceptOutcomeOUTCOMES); spec.Maps[bpf.InterceptMapStats].MaxEntries != uint32(n) {
		t.Errorf("%d counters for %d outcomes", spec.Maps[bpf.InterceptMapStats].MaxEntries, n)
	}
	for n, outcome := range outcomes() {
		if outcome == "" {
			t.Errorf("outcome %d has no name", n)
		}
	}
}

func compareMembers(t *testing.T, c *btf.Struct, g reflect.Type) {
	t.Helper()
	var fields []reflect.StructField
	for _, f := range reflect.VisibleFields(g) {
		if f.Name != "_" && len(f.Index) == 1 {
			fields = append(fields, f)
		}
	}
	if c.Name == "address" { // a union, of which Go has one view
		return
	}
	if len(fields) != len(c.Members) {
		t.Fatalf("%d members in C, %d fields in Go", len(c.Members), len(fields))
	}
	var end uint32
	for n, m := range c.Members {
		f := fields[n]
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatal(err)
		}
		if m.Offset.Bytes() != end {
			t.Errorf("a hole before %s: bytes %d to %d", m.Name, end, m.Offset.Bytes())
		}
		end = m.Offset.Bytes() + uint32(size)
		if !strings.EqualFold(f.Name, strings.ReplaceAll(m.Name, "_", "")) {
			t.Errorf("member %s is called %s in Go", m.Name, f.Name)
		}
		if f.Offset != uintptr(m.Offset.Bytes()) || f.Type.Size() != uintptr(size) {
			t.Errorf("%s: bytes %d+%d in C, %d+%d in Go", m.Name, m.Offset.Bytes(), size, f.Offset, f.Type.Size())
		}
	}
	if end != c.Size {
		t.Errorf("a hole at the end: bytes %d to %d", end, c.Size)
	}
}

func FuzzDecodeBypass(f *testing.F) {
	f.Add(make([]byte, binary.Size(bpf.InterceptReport{})))
	f.Fuzz(func(t *testing.T, sample []byte) {
		b, err := decodeBypass(sample)
		if err == nil && (b.Outcome == "" || b.Hook == "" || b.Socket == "") {
			t.Errorf("incomplete: %+v", b)
		}
	})
}
