package main

import (
	"crypto/ed25519"
	"fmt"

	"chaperone.dev/chaperone/pkg/recording"
)

// checker verifies a recording block by block and keeps the first fault.
type checker struct {
	codec  *recording.Codec
	keys   map[string]ed25519.PublicKey // node → key
	report recording.Report
	node   string
	fault  error
}

func newChecker(codec *recording.Codec, session string, keys map[string]ed25519.PublicKey) *checker {
	return &checker{codec: codec, keys: keys, report: recording.Report{Session: session}}
}

// add checks the next block and returns it, or nil if it is none.
func (c *checker) add(data []byte) *recording.Block {
	b, err := c.codec.Decode(data)
	if err != nil {
		c.fail(&recording.Fault{Block: c.report.Blocks, Err: err})
		return nil
	}
	if c.fault != nil {
		return b
	}
	var key ed25519.PublicKey
	if b.Last {
		for node, k := range c.keys {
			if recording.IDOf(k) == b.Key {
				c.node, key = node, k
			}
		}
	}
	v := recording.ResumeVerifier(c.report, key)
	if err := v.Add(b); err != nil {
		c.fail(err)
	}
	c.report = v.Report()
	return b
}

func (c *checker) fail(err error) {
	if c.fault == nil {
		c.fault = err
	}
}

// result is a sentence about a good recording, or the error of a bad one.
func (c *checker) result() (string, error) {
	if c.fault == nil {
		_, c.fault = recording.ResumeVerifier(c.report, nil).Close()
	}
	if c.fault != nil {
		return "", fmt.Errorf("recording of session %s is NOT VERIFIED: %w", printable(c.report.Session), c.fault)
	}
	return fmt.Sprintf("recording verified: %d blocks, %d frames, root %s, signed by node %s (key %s)",
		c.report.Blocks, c.report.Frames, c.report.Root, printable(c.node), c.report.Key), nil
}
