/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The hooks on the system calls: what a process asks of a socket. */
#ifndef CHAPERONE_SOCKET_H
#define CHAPERONE_SOCKET_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "maps.h"
#include "member.h"
#include "report.h"

#define REFUSE 0
#define PASS 1

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define ECONNREFUSED 111

/*
 * Bridge entries of one planner at once. They live from SYN to established, on
 * loopback microseconds; a planner that holds more is flooding.
 */
#define MAX_PENDING 4096

static __always_inline void address_of_v6(struct address *a, const struct bpf_sock_addr *ctx)
{
	a->words[0] = ctx->user_ip6[0];
	a->words[1] = ctx->user_ip6[1];
	a->words[2] = ctx->user_ip6[2];
	a->words[3] = ctx->user_ip6[3];
}

static __always_inline int refuse(const struct bpf_sock_addr *ctx, enum hook hook,
				  const struct address *to, enum outcome outcome,
				  struct member *planner, __u64 workload)
{
	struct report *r = report(hook, outcome, planner);

	if (r) {
		r->workload = workload;
		r->cgroup = bpf_get_current_cgroup_id();
		current_process(&r->process);
		r->address = *to;
		r->port = (__be16)ctx->user_port;
		r->family = ctx->family;
		r->type = ctx->type;
		r->protocol = ctx->protocol;
		bpf_ringbuf_submit(r, 0);
	}
	return REFUSE;
}

/*
 * Whether the daemon's own socket listens where the connection is about to
 * be sent. While the daemon is away anybody outside the ancestor could take its port
 * and be spoken to as if it were the target.
 */
static __always_inline bool daemon_listens(struct bpf_sock_addr *ctx, const struct config *c,
					   bool v6)
{
	struct bpf_sock_tuple at;
	struct bpf_sock *sk;
	bool ours;

	__builtin_memset(&at, 0, sizeof(at));
	if (v6) {
		at.ipv6.daddr[3] = LOOPBACK6;
		at.ipv6.dport = bpf_htons(c->port);
		sk = bpf_sk_lookup_tcp(ctx, &at, sizeof(at.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		at.ipv4.daddr = LOOPBACK4;
		at.ipv4.dport = bpf_htons(c->port);
		sk = bpf_sk_lookup_tcp(ctx, &at, sizeof(at.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return false;
	ours = bpf_sk_storage_get(&listeners, sk, NULL, 0);
	bpf_sk_release(sk);
	return ours;
}

/* Keeps the true destination with the socket. False when the kernel has no room. */
static __always_inline bool remember(struct bpf_sock_addr *ctx, const struct address *to,
				     const struct capture *capture, __u64 workload)
{
	struct bpf_sock *sk = ctx->sk; /* read once: a second read is not known to be checked */
	struct origin *o;

	if (!sk)
		return false;
	o = bpf_sk_storage_get(&dialled, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!o)
		return false;
	__builtin_memset(o, 0, sizeof(*o));
	o->cookie = bpf_get_socket_cookie(ctx);
	o->netns = bpf_get_netns_cookie(ctx);
	o->workload = workload;
	o->cgroup = bpf_get_current_cgroup_id();
	o->at = bpf_ktime_get_boot_ns();
	current_process(&o->process);
	o->destination = *to;
	o->port = (__be16)ctx->user_port;
	o->family = ctx->family;
	o->protocol = capture->protocol;
	o->target = capture->target;
	return true;
}

/*
 * What was kept of an earlier, diverted connection must not be found with a later
 * one of the same socket.
 */
static __always_inline int pass(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk)
		bpf_sk_storage_delete(&dialled, sk);
	return PASS;
}

/* Decides a connect(2). *divert is set when the caller must swap the address. */
static __always_inline int connecting(struct bpf_sock_addr *ctx, struct address *to, bool *divert)
{
	const struct config *c = configuration();
	__be16 port = (__be16)ctx->user_port;
	const struct capture *capture;
	struct member *planner;
	__u64 workload;

	if (c && bpf_ntohs(port) != c->port && !maybe_captured(c, port))
		return pass(ctx);
	if (is_daemon(bpf_get_current_cgroup_id()))
		return pass(ctx);
	planner = current_planner(&workload);
	if (!c)
		return refuse(ctx, HOOK_CONNECT, to, REFUSED_FAULT, planner, workload);
	normalise(to);
	if (bpf_ntohs(port) == c->port && is_loopback(to))
		return refuse(ctx, HOOK_CONNECT, to, REFUSED_LISTENER, planner, workload);
	capture = capture_of(c, to, port);
	if (!capture)
		return pass(ctx);
	if (!planner)
		return refuse(ctx, HOOK_CONNECT, to, REFUSED_STRANGER, planner, workload);
	if (capture->verdict != VERDICT_DIVERT)
		return refuse(ctx, HOOK_CONNECT, to, REFUSED_TARGET, planner, workload);
	if (ctx->protocol != IPPROTO_TCP || ctx->type != SOCK_STREAM)
		return refuse(ctx, HOOK_CONNECT, to, REFUSED_PROTOCOL, planner, workload);
	if (planner->pending >= MAX_PENDING)
		return refuse(ctx, HOOK_CONNECT, to, REFUSED_BUSY, planner, workload);
	if (!daemon_listens(ctx, c, ctx->family == AF_INET6 && !is_mapped(to))) {
		bpf_set_retval(-ECONNREFUSED);
		count(REFUSED_CLOSED);
		return REFUSE;
	}
	if (!remember(ctx, to, capture, workload))
		return refuse(ctx, HOOK_CONNECT, to, REFUSED_FAULT, planner, workload);
	ctx->user_port = bpf_htons(c->port);
	count(DIVERTED);
	*divert = true;
	return PASS;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct address to;
	bool divert = false;
	int ret;

	address_of_v4(&to, ctx->user_ip4);
	ret = connecting(ctx, &to, &divert);
	if (divert)
		ctx->user_ip4 = LOOPBACK4;
	return ret;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct address to;
	bool divert = false;
	int ret;

	address_of_v6(&to, ctx);
	ret = connecting(ctx, &to, &divert);
	if (divert) {
		bool mapped = is_mapped(&to);

		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = mapped ? MAPPED : 0;
		ctx->user_ip6[3] = mapped ? LOOPBACK4 : LOOPBACK6;
	}
	return ret;
}

/* A datagram with an address of its own. Only TCP can be diverted. */
static __always_inline int sending(struct bpf_sock_addr *ctx, struct address *to)
{
	const struct config *c = configuration();
	__be16 port = (__be16)ctx->user_port;
	struct member *planner;
	__u64 workload;

	if (c && !maybe_captured(c, port))
		return PASS;
	normalise(to);
	if (c && !capture_of(c, to, port))
		return PASS;
	if (is_daemon(bpf_get_current_cgroup_id()))
		return PASS;
	planner = current_planner(&workload);
	if (!c)
		return refuse(ctx, HOOK_SENDMSG, to, REFUSED_FAULT, planner, workload);
	return refuse(ctx, HOOK_SENDMSG, to, planner ? REFUSED_PROTOCOL : REFUSED_STRANGER, planner,
		      workload);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct address to;

	address_of_v4(&to, ctx->user_ip4);
	return sending(ctx, &to);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct address to;

	address_of_v6(&to, ctx);
	return sending(ctx, &to);
}

/* The listener's port is the daemon's, on every address and in every namespace. */
static __always_inline int binding(const struct bpf_sock_addr *ctx, const struct address *to)
{
	const struct config *c = configuration();
	struct member *planner;
	__u64 workload;

	if (!c || ctx->protocol != IPPROTO_TCP || bpf_ntohs((__be16)ctx->user_port) != c->port)
		return PASS;
	if (is_daemon(bpf_get_current_cgroup_id()))
		return PASS;
	planner = current_planner(&workload);
	return refuse(ctx, HOOK_BIND, to, REFUSED_BIND, planner, workload);
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	struct address to;

	address_of_v4(&to, ctx->user_ip4);
	return binding(ctx, &to);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	struct address to;

	address_of_v6(&to, ctx);
	return binding(ctx, &to);
}

/* The client sees the peer that it asked for. */
SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	const struct origin *o;

	if (!sk)
		return PASS;
	o = bpf_sk_storage_get(&dialled, sk, NULL, 0);
	if (o && o->family == AF_INET) {
		ctx->user_ip4 = o->destination.words[3];
		ctx->user_port = o->port;
	}
	return PASS;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	const struct origin *o;

	if (!sk)
		return PASS;
	o = bpf_sk_storage_get(&dialled, sk, NULL, 0);
	if (o && o->family == AF_INET6) {
		ctx->user_ip6[0] = o->destination.words[0];
		ctx->user_ip6[1] = o->destination.words[1];
		ctx->user_ip6[2] = o->destination.words[2];
		ctx->user_ip6[3] = o->destination.words[3];
		ctx->user_port = o->port;
	}
	return PASS;
}

/*
 * Planners have plain TCP and UDP sockets only. MPTCP opens subflows from kernel
 * threads, SCTP and DCCP connect past the hooks, raw sockets make packets of
 * their own. Clients that prefer MPTCP fall back to TCP.
 */
SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	struct member *planner;
	struct report *r;
	__u64 workload;

	if (ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP)
		return PASS;
	if (ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP)
		return PASS;
	planner = current_planner(&workload);
	if (!planner)
		return PASS;
	r = report(HOOK_SOCK_CREATE, REFUSED_SOCKET, planner);
	if (r) {
		r->workload = workload;
		r->cgroup = bpf_get_current_cgroup_id();
		current_process(&r->process);
		r->family = ctx->family;
		r->type = ctx->type;
		r->protocol = ctx->protocol;
		bpf_ringbuf_submit(r, 0);
	}
	return REFUSE;
}

#endif
