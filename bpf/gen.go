// Package bpf holds the kernel programs that stand between planners and what
// they may not reach directly, and the Go side of them that bpf2go makes of their
// BTF: the types they share with the daemon, and the compiled objects. Both are
// committed, so building needs no clang. How the programs are loaded, attached
// and fed is not known here; see package intercept.
//
// "go generate ./bpf" rebuilds them with Debian's clang-19, llvm-19 and
// libbpf-dev, and gives the same bytes in any folder.
package bpf

//go:generate go tool bpf2go -go-package bpf -output-stem intercept -target amd64,arm64 -cc clang-19 -strip llvm-strip-19 -type role -type verdict -type outcome -type hook -type report Intercept src/intercept.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wpadded -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -go-package bpf -output-stem optional -no-global-types -target amd64,arm64 -cc clang-19 -strip llvm-strip-19 Optional src/optional.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wpadded -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
