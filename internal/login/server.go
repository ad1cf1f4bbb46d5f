package login

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Server is where the sink is that a person works with.
type Server struct {
	URL    string `json:"server"`
	CAFile string `json:"caFile,omitempty"` // absolute; empty: the system's
}

// ParseURL reads a sink's URL as a person types it, and returns it as it is
// kept.
func ParseURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("server %q: want a URL like https://chaperone.corp.example", text)
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return "", fmt.Errorf("server %q: it must be https, as your token goes there", text)
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

// ServerFile is where the user's [Server] is kept: chaperone/server.json in
// $XDG_CONFIG_HOME, or in ~/.config.
func ServerFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no folder for settings: %w", err)
	}
	return filepath.Join(dir, "chaperone", "server.json"), nil
}

const maxServerFile = 64 << 10

// LoadServer reads the file, or returns an error that wraps [os.ErrNotExist].
func LoadServer(path string) (Server, error) {
	f, err := os.Open(path)
	if err != nil {
		return Server{}, fmt.Errorf("settings: %w", err)
	}
	defer f.Close()
	var s Server
	if err := json.NewDecoder(io.LimitReader(f, maxServerFile)).Decode(&s); err != nil {
		return Server{}, fmt.Errorf("settings in %s: %w; log in again, with --server", path, err)
	}
	if s.URL, err = ParseURL(s.URL); err != nil {
		return Server{}, fmt.Errorf("settings in %s: %w; log in again, with --server", path, err)
	}
	return s, nil
}

// SaveServer writes the file, whole or not at all.
func SaveServer(path string, s Server) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	f, err := os.CreateTemp(dir, ".server-*") // mode 0600
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// ForgetServer removes the file, if it is there.
func ForgetServer(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}
