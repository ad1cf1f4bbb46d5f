#!/bin/sh
# Builds kube-apiserver and kubectl from the module in tools/kube, for tests
# that need a real API server. They are kept in bin/kube/VERSION, and nothing is
# done when they are there. The first build takes minutes.
#
# usage: tools/kube.sh
set -eu

cd "$(dirname "$0")/kube"
version=$(sed -n 's/^.*[[:space:]]k8s\.io\/kubernetes \(v[0-9.]*\).*$/\1/p' go.mod)
[ -n "$version" ] || {
	echo "kube: tools/kube/go.mod names no version of k8s.io/kubernetes" >&2
	exit 1
}
target=../../bin/kube/$version

built() {
	[ -x "$target/kube-apiserver" ] && [ -x "$target/kubectl" ]
}
! built || exit 0

# Of several at once one builds, and the others find its work.
mkdir -p ../../bin/kube
exec 9>../../bin/kube/lock
flock 9
! built || exit 0

echo "kube: building kube-apiserver and kubectl $version, which takes some minutes"
work=$(mktemp -d ../../bin/kube/build.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP INT TERM
chmod 0755 "$work"
number=${version#v}
major=${number%%.*}
rest=${number#*.}
minor=${rest%%.*}
info=k8s.io/component-base/version
CGO_ENABLED=0 "${GO:-go}" build -trimpath -o "$work/" \
	-ldflags "-s -w -X $info.gitVersion=$version -X $info.gitMajor=$major -X $info.gitMinor=$minor" \
	k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl
rm -rf "$target"
mv "$work" "$target"
