package node

import (
	"fmt"
	"net"
	"os"
)

// notifyReady says that the node enforces. One that has taken over is another process than
// systemd has started, perhaps, and says which.
func (n *node) notifyReady() {
	if n.from != nil {
		notify(fmt.Sprintf("MAINPID=%d\nREADY=1", os.Getpid()))
		return
	}
	notify("READY=1")
}

// notify tells systemd, if it started us, how we are (sd_notify(3)).
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
