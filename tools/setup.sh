#!/bin/sh
# Installs the Debian packages that a make target needs, and only those that
# are missing; for "clients" also what tools/npm.sh does. Services that packages
# would start on installation are kept from starting: the project runs its own, on
# addresses and in folders of its own.
#
# usage: tools/setup.sh build|test|clients|lint|bench|generate|kernels ...
set -eu

packages=
after=true # what is run once the packages are there
for purpose in "$@"; do
	case $purpose in
	build) packages="$packages gcc libc6-dev ca-certificates" ;;
	test)
		packages="$packages postgresql postgresql-contrib openssl openssh-client knot bind9-dnsutils iproute2 systemd etcd-server chromium" ;;
	clients) # of PostgreSQL, beside its own
		packages="$packages gcc libpq-dev default-jdk-headless libpostgresql-jdbc-java python3-psycopg python3-psycopg2"
		# Node.js may be here from elsewhere, of a version that Debian's npm won't have.
		if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
			packages="$packages nodejs npm"
		fi
		after=$(dirname "$0")/npm.sh
		;;
	lint) packages="$packages shellcheck clang-format-19" ;;
	bench) packages="$packages pgbouncer haproxy" ;;
	generate) packages="$packages clang-19 llvm-19 libbpf-dev" ;;
	kernels) packages="$packages qemu-system-x86 busybox-static cpio kmod xz-utils" ;;
	*)
		echo "setup: unknown purpose '$purpose'" >&2
		exit 2
		;;
	esac
done

missing=
for package in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exec "$after"

if [ "$(id -u)" != 0 ]; then
	echo "setup: these packages are missing and only root can install them:$missing" >&2
	exit 1
fi

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 0755 "$policy"
	trap 'rm -f "$policy"' EXIT INT TERM
fi
echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# A package list that is there already is tried first: refreshing it takes longer than most installations.
# shellcheck disable=SC2086 # the list is meant to be split
apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
"$after"
