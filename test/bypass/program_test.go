package bypass

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Kernel programs of the planner's own, which take CAP_BPF.

func programRows() []row {
	const rewritten = "a program on the device rewrites packets behind all hooks of a cgroup: drop CAP_NET_ADMIN and CAP_BPF"
	const preorder = 1 << 6 // BPF_F_PREORDER
	var all []row
	for _, way := range []struct {
		name  string
		flags uint32
	}{{"alone", 0}, {"overridable", unix.BPF_F_ALLOW_OVERRIDE}, {"one of many", unix.BPF_F_ALLOW_MULTI}, {"before its parents", unix.BPF_F_ALLOW_MULTI | preorder}} {
		all = append(all,
			row{threat: 9, name: "own program, " + way.name, hope: "a child cgroup's connect4 program sends all to the target",
				do: programmed(way.flags, func(a aim) (answer, error) { return plain4(a) }), want: "diverted"},
			row{threat: 9, name: "own program, " + way.name + ", from an allowed address", hope: "the same, asked for what is allowed",
				do: programmed(way.flags, func(a aim) (answer, error) { return dial(hop4, freePort) }), want: "diverted", mayAsAny: true})
	}
	return append(all,
		row{threat: 9, name: "own program, UDP", hope: "a child cgroup's sendmsg4 program sends all to the target", do: programmedUDP, want: "refused"},
		row{threat: 9, name: "own program, connected UDP", hope: "its connect4 program connects a datagram socket to the target",
			do: programmed(unix.BPF_F_ALLOW_MULTI, func(a aim) (answer, error) {
				a.V4, a.Port = hop4, freePort
				return connectedDatagram(v4)(a)
			}), want: "refused"},
		row{threat: 9, name: "own program on the device", hope: "tc at egress: the packet of an allowed datagram gets another address",
			do: rewriting, want: "refused or dropped", open: rewritten, closers: []string{asRun}},
	)
}

// toTarget writes the target's address and port over those that a socket asks for.
func toTarget(a aim, t ebpf.AttachType) (*ebpf.Program, error) {
	v4 := a.V4.As4()
	const ip4, port = 4, 24 // of struct bpf_sock_addr
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockAddr, AttachType: t, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadImm(asm.R2, int64(binary.NativeEndian.Uint32(v4[:])), asm.DWord),
			asm.StoreMem(asm.R1, ip4, asm.R2, asm.Word),
			asm.LoadImm(asm.R2, int64(a.Port<<8|a.Port>>8), asm.DWord),
			asm.StoreMem(asm.R1, port, asm.R2, asm.Word),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
		},
	})
	return p, step("load a program", err)
}

// inChild joins a cgroup below the job that has a program of its own.
func inChild(a aim, t ebpf.AttachType, flags uint32) error {
	child := filepath.Join(a.Job, "child")
	if err := os.Mkdir(child, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(child)
	if err != nil {
		return err
	}
	defer dir.Close()
	p, err := toTarget(a, t)
	if err != nil {
		return err
	}
	if err := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(dir.Fd()), Program: p, Attach: t, Flags: flags,
	}); err != nil {
		return step("attach a program", err)
	}
	return join(child)
}

func programmed(flags uint32, do attack) attack {
	return func(a aim) (answer, error) {
		if err := inChild(a, ebpf.AttachCGroupInet4Connect, flags); err != nil {
			return answer{}, err
		}
		return do(a)
	}
}

func programmedUDP(a aim) (answer, error) {
	if err := inChild(a, ebpf.AttachCGroupUDP4Sendmsg, unix.BPF_F_ALLOW_MULTI); err != nil {
		return answer{}, err
	}
	return sendTo(func(aim) netip.Addr { return hop4 })(aim{place: place{Port: freePort}})
}

// rewriting attaches a program to the device (tcx, Linux 6.6) that turns datagrams to
// an allowed port of another host into datagrams to the target.
func rewriting(a aim) (answer, error) {
	const toAddress, toPort = 14 + 16, 14 + 20 + 2 // in the frame
	v4 := a.V4.As4()
	store := func(at int32, value int64, size int32) asm.Instructions {
		return asm.Instructions{
			asm.LoadImm(asm.R1, value, asm.DWord),
			asm.StoreMem(asm.RFP, -8, asm.R1, asm.Word),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, at),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -8),
			asm.Mov.Imm(asm.R4, size),
			asm.Mov.Imm(asm.R5, 0),
			asm.FnSkbStoreBytes.Call(),
		}
	}
	const secret = 6001 // nobody else sends there
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R2, toPort),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 2),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Half),
		asm.JNE.Imm(asm.R1, secret<<8&0xffff|secret>>8, "out"),
	}
	code = append(code, store(toAddress, int64(binary.NativeEndian.Uint32(v4[:])), 4)...)
	code = append(code, store(toPort, int64(a.Port<<8|a.Port>>8), 2)...)
	code = append(code, asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), asm.Return())
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: code})
	if err != nil {
		return answer{}, step("load a program", err)
	}
	index, err := deviceIndex("n-db")
	if err != nil {
		return answer{}, err
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return answer{}, step("attach a program", unix.EOPNOTSUPP)
	}
	defer l.Close()
	return sendTo(func(aim) netip.Addr { return hop4 })(aim{place: place{Port: secret}})
}
