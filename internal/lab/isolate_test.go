package lab_test

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"chaperone.dev/chaperone/internal/lab"
)

// envInside tells the test binary to be the isolated program of a test.
const envInside = "CHAPERONE_LAB_TEST_INSIDE"

func TestMain(m *testing.M) {
	if play := os.Getenv(envInside); play != "" {
		os.Exit(inside(play))
	}
	os.Exit(m.Run())
}

func inside(play string) int {
	err := lab.Isolate(lab.Namespace{
		Hosts:     map[string]string{"orders.db.internal": "10.20.0.5", "six.db.internal": "fd00:20::5"},
		Addresses: []string{"10.20.0.6"},
	})
	if err != nil {
		fmt.Println("isolate:", err)
		return 99
	}
	switch play {
	case "look":
		if err := look(); err != nil {
			fmt.Println(err)
			return 1
		}
		return 7
	case "signal":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		fmt.Println("waiting")
		<-signals
		return 8
	case "network":
		if err := network(); err != nil {
			fmt.Println(err)
			return 1
		}
		return 7
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return 1
}

// look checks the world from the inside.
func look() error {
	if !lab.Isolated() {
		return errors.New("Isolated is false inside")
	}
	if err := lab.Isolate(lab.Namespace{}); err != nil {
		return fmt.Errorf("isolating twice: %w", err)
	}
	for name, want := range map[string]string{"orders.db.internal": "10.20.0.5", "six.db.internal": "fd00:20::5"} {
		got, err := net.LookupHost(name)
		if err != nil || len(got) != 1 || got[0] != want {
			return fmt.Errorf("%s is %v (%v), want %s", name, got, err, want)
		}
	}
	for _, host := range []string{"127.0.0.1", "::1", "10.20.0.5", "10.20.0.6", "fd00:20::5"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "5432"))
		if err != nil {
			return err
		}
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		conn.Close()
		l.Close()
	}
	interfaces, err := net.Interfaces()
	if err != nil || len(interfaces) != 1 {
		return fmt.Errorf("interfaces %v (%v), want lo alone", interfaces, err)
	}
	pins, err := os.ReadDir("/sys/fs/bpf")
	if err != nil {
		return err
	}
	for _, pin := range pins {
		// Kernels with CONFIG_BPF_PRELOAD put *.debug into every new bpffs.
		if !strings.HasSuffix(pin.Name(), ".debug") {
			return fmt.Errorf("bpffs holds %s, want nobody's pins", pin.Name())
		}
	}
	input, err := io.ReadAll(os.Stdin)
	if err != nil || string(input) != "hello" {
		return fmt.Errorf("stdin holds %q (%v)", input, err)
	}
	return nil
}

func isolatedProgram(play string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envInside+"="+play)
	return cmd
}

func TestIsolateMakesAWorldOfItsOwn(t *testing.T) {
	before := outside(t)
	pin := "/sys/fs/bpf/" + strings.ToLower(rand.Text()[:12]) // something to hide
	if err := os.Mkdir(pin, 0o700); err == nil {
		t.Cleanup(func() { os.Remove(pin) })
	}
	cmd := isolatedProgram("look")
	cmd.Stdin = strings.NewReader("hello")
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Fatalf("exit code %d (%v), want the child's 7\n%s", code, err, out)
	}
	if lab.Isolated() {
		t.Error("Isolated is true outside")
	}
	if after := outside(t); after != before {
		t.Errorf("the outside changed:\n%s\nbefore:\n%s", after, before)
	}
}

// outside is what must not change on the machine.
func outside(t *testing.T) string {
	t.Helper()
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s\n%s\n%v", hosts, mounts, addresses)
}

func TestIsolatePassesSignalsAndDeathsOn(t *testing.T) {
	cmd := isolatedProgram("signal")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "waiting\n" {
		t.Errorf("got %q (%v)", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // the code tells all
	if code := cmd.ProcessState.ExitCode(); code != 8 {
		t.Errorf("exit code %d, want 8: the signal didn't arrive", code)
	}

	cmd = isolatedProgram("die")
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("exit code %d of a killed child, want 137", code)
	}
}

func TestIsolateRefusesWhatIsNoAddress(t *testing.T) {
	if err := lab.Isolate(lab.Namespace{Hosts: map[string]string{"a": "nowhere"}}); err == nil {
		t.Fatal("accepted")
	}
}
