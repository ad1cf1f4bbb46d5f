package main

import (
	"io"
	"net"
	"sync"
)

// relayWord is the first argument of this program as a relay.
const relayWord = "relay"

// relay copies bytes both ways and looks at none: what any proxy in Go costs. It ends when
// it is killed.
func relay(listen, target string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("tcp", target)
			if err != nil {
				return // the client sees its connection end
			}
			defer server.Close()
			var both sync.WaitGroup
			both.Go(func() { forward(server, client) })
			both.Go(func() { forward(client, server) })
			both.Wait()
		}()
	}
}

// forward copies by way of a buffer: splice(2), which io.Copy would use, sees no bytes.
func forward(to, from net.Conn) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
	_ = to.(*net.TCPConn).CloseWrite()
}
