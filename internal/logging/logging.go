// Package logging makes the logger of a daemon: lines of JSON for programs,
// or for people when the output is a terminal.
package logging

import (
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// New returns a logger of the level and above.
func New(out *os.File, level string) (zerolog.Logger, error) {
	parsed, err := zerolog.ParseLevel(level)
	if err != nil || parsed == zerolog.NoLevel {
		return zerolog.Nop(), fmt.Errorf("log level %q is none of debug, info, warn, error", level)
	}
	if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err == nil {
		return zerolog.New(zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly}).Level(parsed).With().Timestamp().Logger(), nil
	}
	return zerolog.New(out).Level(parsed).With().Timestamp().Logger(), nil
}
