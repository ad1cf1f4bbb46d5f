// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * What not every kernel has or lets load, and what nothing else depends on. Each
 * program is loaded by itself, onto the pinned maps of the others:
 *
 *   connect_unix         cgroup hook of 6.7: a planner's connection to the unix
 *                        socket of a local database, by the name that it asks for
 *   unix_connect         the same by the name that the database bound, which no
 *                        link or other path can hide
 *   create_socket        sockets of families that no other program sees
 *
 * The latter two modify the return of a security hook, which needs a kernel with
 * CONFIG_BPF_EVENTS and a policy of the host that lets tracing programs load.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "address.h"
#include "maps.h"
#include "member.h"
#include "report.h"

#define AF_UNIX 1
#define AF_NETLINK 16
#define EPERM 1

#define SUN_PATH 108  /* of sockaddr_un */
#define PATH_OFFSET 2 /* of sun_path in it */

struct sockaddr_un {
	unsigned short sun_family;
	char sun_path[SUN_PATH];
} __attribute__((preserve_access_index));

struct unix_address {
	int len;
	struct sockaddr_un name[];
} __attribute__((preserve_access_index));

struct unix_sock {
	struct unix_address *addr;
} __attribute__((preserve_access_index));

struct bpf_sock_addr_kern {
	struct sockaddr_un *uaddr;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *) __ksym;

/* Where PostgreSQL's socket lies in a name: DIRECTORY/.s.PGSQL.PORT, or @ that. */
static __always_inline int service_at(const char *path)
{
	const char name[] = ".s.PGSQL.";

	for (int at = 0; at < SUN_PATH - (int)sizeof(name); at++) {
		bool same = true;

		for (unsigned int n = 0; n < sizeof(name) - 1; n++)
			same = same && path[at + n] == name[n];
		if (same)
			return at + sizeof(name) - 1;
	}
	return 0;
}

/* Whether a unix socket's name is that of a service whose port is captured. */
static __always_inline bool is_protected(const struct config *c, const char *path)
{
	__u32 port = 0;
	int at = service_at(path);

	if (!at)
		return false;
	for (int n = 0; n < 5; n++) {
		char digit;

		if (at + n >= SUN_PATH)
			break;
		digit = path[at + n];
		if (digit < '0' || digit > '9')
			break;
		port = port * 10 + (digit - '0');
	}
	return maybe_captured(c, bpf_htons(port));
}

static __always_inline bool may_connect(const char *path)
{
	const struct config *c = configuration();
	struct party who;
	struct report *r;

	if (!c || !is_protected(c, path) || is_daemon(bpf_get_current_cgroup_id()))
		return true;
	current_party_or(c, &who, SIDE_OUTSIDE);
	if (who.side != SIDE_PLANNER && who.side != SIDE_UNKNOWN)
		return true;
	r = report(HOOK_CONNECT_UNIX, REFUSED_UNIX, &who);
	if (r) {
		r->cgroup = bpf_get_current_cgroup_id();
		current_process(&r->process);
		r->family = AF_UNIX;
		bpf_ringbuf_submit(r, 0);
	}
	return false;
}

SEC("cgroup/connect_unix")
int connect_unix(struct bpf_sock_addr *ctx)
{
	struct bpf_sock_addr_kern *kern = bpf_cast_to_kern_ctx(ctx);
	struct sockaddr_un *address = BPF_CORE_READ(kern, uaddr);
	char path[SUN_PATH] = {};

	if (!address || bpf_core_read(path, sizeof(path), &address->sun_path))
		return 0;
	return may_connect(path);
}

SEC("fmod_ret/security_unix_stream_connect")
int BPF_PROG(unix_connect, struct unix_sock *sock, struct unix_sock *other, void *new, int ret)
{
	struct unix_address *bound = BPF_CORE_READ(other, addr);
	char path[SUN_PATH] = {};

	if (ret || !bound)
		return ret;
	if (bpf_core_read(path, sizeof(path), &bound->name[0].sun_path))
		return -EPERM;
	return may_connect(path) ? 0 : -EPERM;
}

/*
 * Packet sockets make frames of their own, AF_XDP sockets too, AF_VSOCK and the
 * like reach elsewhere by no packet at all.
 */
SEC("fmod_ret/security_socket_create")
int BPF_PROG(create_socket, int family, int type, int protocol, int kern, int ret)
{
	struct party who;
	struct report *r;

	if (ret || kern || family == AF_UNIX || family == AF_INET || family == AF_INET6 ||
	    family == AF_NETLINK)
		return ret;
	current_party_or(configuration(), &who, SIDE_OUTSIDE);
	if (!who.member)
		return 0;
	r = report(HOOK_SOCKET, REFUSED_SOCKET, &who);
	if (r) {
		r->cgroup = bpf_get_current_cgroup_id();
		current_process(&r->process);
		r->family = family;
		r->type = type;
		r->protocol = protocol;
		bpf_ringbuf_submit(r, 0);
	}
	return -EPERM;
}

char _license[] SEC("license") = "GPL";
