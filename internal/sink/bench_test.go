package sink_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/pkg/recording"
)

// What a recorded command costs the sink and the embedded server: published as
// part of a block, checked, stored, indexed and acknowledged.
func BenchmarkIngest(b *testing.B) {
	w := start(b, b.TempDir())
	c, err := recording.NewCodec()
	must(b, err)
	const perBlock = 100
	var prev recording.Hash
	seq, index := uint64(0), uint64(0)
	before := cpu(b)
	for n := 0; n < b.N; n += perBlock {
		var raw []byte
		for range perBlock {
			for _, f := range []recording.Frame{
				{Kind: recording.KindCommand, Payload: fmt.Appendf(nil, `{"session":"bench","seq":%d,"text":"SELECT abalance FROM pgbench_accounts WHERE aid = %d;","digest":"%064d","parsed":{"kinds":["SELECT"],"readOnly":true,"tables":["pgbench_accounts"]},"decision":"allow","policy":"orders","rule":"read"}`, seq, seq, seq)},
				{Kind: recording.KindOutcome, Payload: fmt.Appendf(nil, `{"session":"bench","seq":%d,"rows":1,"bytes":40,"tag":"SELECT 1","durationNs":90000}`, seq)},
			} {
				seq++
				f.Seq, f.Time = seq, 1_700_000_000_000_000_000+int64(seq)
				raw, err = recording.AppendFrame(raw, f)
				must(b, err)
			}
		}
		blk, err := recording.Build("bench", index, prev, 2*perBlock, raw, nil)
		must(b, err)
		prev = blk.Hash
		index++
		w.publish(b, "bench", c.Encode(blk))
	}
	until(b, "all to be stored", func() bool {
		s, err := w.client.Session(b.Context(), "bench")
		return err == nil && s.Blocks == index
	})
	b.ReportMetric((cpu(b)-before)/float64(index*perBlock), "cpu-ns/command")
}

// cpu is the processor time of this process in nanoseconds.
func cpu(b *testing.B) float64 {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano() + u.Stime.Nano())
}
