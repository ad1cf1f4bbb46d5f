package login

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of [Keyring], to be told apart with errors.Is.
var (
	// ErrNoKeyring: the kernel keeps no secrets for this process, as in many
	// containers, or has no room for this one.
	ErrNoKeyring = errors.New("the kernel's keyring is not to be had")
	// ErrNone: no secret of that name is kept.
	ErrNone = errors.New("nothing is kept")
	// ErrEnded: the secret was kept, and its time is over.
	ErrEnded = errors.New("its time is over")
)

// Keyring keeps secrets in the kernel's memory, in the keyring of the user
// (user-keyring(7)): all of the user's login sessions share it, and it is gone when the
// machine stops. The zero value is ready to use.
type Keyring struct{}

// What [unix.KeyctlSetperm] takes; see keyctl_setperm(3). Who has the key in one of
// their keyrings may do all; the user's other sessions may read, replace and remove
// it too; nobody else may do anything.
const (
	possessorAll = 0x3f << 24
	userView     = 0x01 << 16
	userRead     = 0x02 << 16
	userWrite    = 0x04 << 16
	userSearch   = 0x08 << 16
	userSetattr  = 0x20 << 16
	permissions  = possessorAll | userView | userRead | userWrite | userSearch | userSetattr
)

const (
	keyType = "user"
	prefix  = "chaperone:"
)

// Check tells whether secrets can be kept, by keeping one for a moment.
func (k Keyring) Check() error {
	const name = "check"
	if err := k.Keep(name, "nothing", time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := k.Find(name); err != nil {
		return err
	}
	return k.Forget(name)
}

// Keep keeps the secret until it expires, in the place of one of that name.
func (Keyring) Keep(name, secret string, expires time.Time) error {
	life := (time.Until(expires) + time.Second - 1) / time.Second
	if life <= 0 {
		return ErrEnded
	}
	// The key is made where nobody else finds it, and shown to the user's other
	// processes when it has its permissions and its end. A thread's keyring is
	// that thread's alone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	id, err := unix.AddKey(keyType, prefix+name, []byte(secret), unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return refused("add_key", err)
	}
	defer func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_THREAD_KEYRING, 0, 0) }()
	if err := unix.KeyctlSetperm(id, permissions); err != nil {
		return refused("KEYCTL_SETPERM", err)
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, id, int(life), 0, 0); err != nil {
		return refused("KEYCTL_SET_TIMEOUT", err)
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_LINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0); err != nil {
		return refused("KEYCTL_LINK", err)
	}
	return nil
}

// Find returns the secret of that name, or an error that wraps [ErrNone],
// [ErrEnded] or [ErrNoKeyring].
func (Keyring) Find(name string) (string, error) {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, prefix+name, 0)
	if err != nil {
		return "", missing("KEYCTL_SEARCH", err)
	}
	secret := make([]byte, maxToken)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, secret, 0)
	if err != nil {
		return "", missing("KEYCTL_READ", err)
	}
	if n > len(secret) { // the kernel then returns how long it is, and no part of it
		return "", fmt.Errorf("%w: somebody else's value of %d bytes is in its place", ErrNone, n)
	}
	return string(secret[:n]), nil
}

// Forget removes the secret of that name. The error wraps [ErrNone] when there is
// none, or none any more.
func (Keyring) Forget(name string) error {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, prefix+name, 0)
	if errors.Is(err, unix.EKEYEXPIRED) {
		return ErrNone
	}
	if err != nil {
		return missing("KEYCTL_SEARCH", err)
	}
	// Invalidated, it can't be found from here on, whoever else has it in a keyring.
	if _, err := unix.KeyctlInt(unix.KEYCTL_INVALIDATE, id, 0, 0, 0); err != nil {
		return missing("KEYCTL_INVALIDATE", err)
	}
	return nil
}

// missing tells why a key that was looked for is not there.
func missing(call string, err error) error {
	switch {
	case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EKEYREVOKED):
		return ErrNone
	case errors.Is(err, unix.EKEYEXPIRED):
		return ErrEnded
	}
	return refused(call, err)
}

func refused(call string, err error) error {
	switch {
	case errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: the user's quota of keys is full (/proc/key-users)", ErrNoKeyring)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: this kernel has none", ErrNoKeyring)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %s: %w, as in many containers", ErrNoKeyring, call, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrNoKeyring, call, err)
}
