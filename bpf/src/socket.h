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
#include "rules.h"

#define REFUSE 0
#define PASS 1

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define ECONNREFUSED 111

/* Else clang merges loads into one of a variable offset, or shares its address. */
#define ONCE(x) (*(const volatile __u32 *)&(x))

/*
 * Bridge entries of one planner at once. They live from SYN to established, on
 * loopback microseconds; a planner that holds more is flooding.
 */
#define MAX_PENDING 4096

/* What a call asks for, read from its context once: see ONCE. */
struct wish {
	struct address to;
	__be16 port;
	__u16 family; /* the socket's */
	__u16 type;
	__u16 protocol;
};

static __always_inline void read_wish(const struct bpf_sock_addr *ctx, struct wish *w)
{
	w->port = (__be16)ONCE(ctx->user_port);
	w->family = ONCE(ctx->family);
	w->type = ONCE(ctx->type);
	w->protocol = ONCE(ctx->protocol);
}

/* Whether loopback of IPv6 is where a diverted call of the socket goes. */
static __always_inline bool by_v6(const struct wish *w)
{
	return w->family == AF_INET6 && !is_mapped(&w->to);
}

static __always_inline void address_of_v6(struct address *a, const struct bpf_sock_addr *ctx)
{
	a->words[0] = ctx->user_ip6[0];
	a->words[1] = ctx->user_ip6[1];
	a->words[2] = ctx->user_ip6[2];
	a->words[3] = ctx->user_ip6[3];
}

static __always_inline int refuse(struct bpf_sock_addr *ctx, enum hook hook, const struct wish *w,
				  enum outcome outcome, const struct party *who)
{
	struct report *r = report(hook, outcome, who);

	if (r) {
		r->cgroup = bpf_get_current_cgroup_id();
		r->netns = bpf_get_netns_cookie(ctx);
		current_process(&r->process);
		r->address = w->to;
		r->port = w->port;
		r->family = w->family;
		r->type = w->type;
		r->protocol = w->protocol;
		bpf_ringbuf_submit(r, 0);
	}
	return REFUSE;
}

/* Refused since nobody is there to serve it, which a client may try again. */
static __always_inline int refuse_closed(struct bpf_sock_addr *ctx, enum hook hook,
					 const struct wish *w, const struct party *who)
{
	bpf_set_retval(-ECONNREFUSED);
	return refuse(ctx, hook, w, REFUSED_CLOSED, who);
}

/*
 * Whether the daemon's own socket is where the connection or datagram is about to
 * be sent. While the daemon is away anybody outside the ancestor could take its port
 * and be spoken to as if it were the target.
 */
static __always_inline bool daemon_serves(struct bpf_sock_addr *ctx, __be16 port, bool v6, bool udp)
{
	struct bpf_sock_tuple at;
	struct bpf_sock *sk;
	__u32 size;
	bool ours;

	__builtin_memset(&at, 0, sizeof(at));
	if (v6) {
		at.ipv6.daddr[3] = LOOPBACK6;
		at.ipv6.dport = port;
		size = sizeof(at.ipv6);
	} else {
		at.ipv4.daddr = LOOPBACK4;
		at.ipv4.dport = port;
		size = sizeof(at.ipv4);
	}
	if (udp)
		sk = bpf_sk_lookup_udp(ctx, &at, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(ctx, &at, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	ours = bpf_sk_storage_get(&listeners, sk, NULL, 0);
	bpf_sk_release(sk);
	return ours;
}

/* Keeps the true destination with the socket. False when the kernel has no room. */
static __always_inline bool remember(struct bpf_sock_addr *ctx, const struct wish *w,
				     const struct capture *capture, __u64 workload, __be16 via)
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
	o->destination = w->to;
	o->port = w->port;
	o->family = w->family;
	o->protocol = capture->protocol;
	o->target = capture->target;
	o->via = via;
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

/* Sends a datagram, or a socket for datagrams, to the planner's resolver in its namespace. */
static __always_inline int divert_datagrams(struct bpf_sock_addr *ctx, enum hook hook,
					    const struct wish *w, const struct capture *capture,
					    const struct party *who, bool *divert)
{
	const struct resolver *r;
	struct resolver_key key;
	__be16 port;

	__builtin_memset(&key, 0, sizeof(key));
	key.workload = who->id;
	key.netns = bpf_get_netns_cookie(ctx);
	r = bpf_map_lookup_elem(&resolvers, &key);
	if (!r)
		return refuse_closed(ctx, hook, w, who);
	port = by_v6(w) ? r->port6 : r->port4;
	if (!port || !daemon_serves(ctx, port, by_v6(w), true))
		return refuse_closed(ctx, hook, w, who);
	if (!remember(ctx, w, capture, who->id, port))
		return refuse(ctx, hook, w, REFUSED_FAULT, who);
	ctx->user_port = port;
	count(DIVERTED_DATAGRAM);
	*divert = true;
	return PASS;
}

static __always_inline int divert_connection(struct bpf_sock_addr *ctx, const struct config *c,
					     const struct wish *w, const struct capture *capture,
					     const struct party *who, bool *divert)
{
	const __be16 port = bpf_htons(c->port);

	if (w->protocol != IPPROTO_TCP || w->type != SOCK_STREAM)
		return refuse(ctx, HOOK_CONNECT, w, REFUSED_PROTOCOL, who);
	if (who->member->pending >= MAX_PENDING)
		return refuse(ctx, HOOK_CONNECT, w, REFUSED_BUSY, who);
	if (!daemon_serves(ctx, port, by_v6(w), false))
		return refuse_closed(ctx, HOOK_CONNECT, w, who);
	if (!remember(ctx, w, capture, who->id, port))
		return refuse(ctx, HOOK_CONNECT, w, REFUSED_FAULT, who);
	ctx->user_port = port;
	count(DIVERTED);
	*divert = true;
	return PASS;
}

/* The resolver sockets answer in a planner's name, so nobody but it is sent there, and only by us.
 */
static __always_inline bool is_resolver(struct bpf_sock_addr *ctx, const struct wish *w)
{
	return w->protocol == IPPROTO_UDP && is_loopback(&w->to) &&
	       daemon_serves(ctx, w->port, !is_mapped(&w->to), true);
}

/* Decides a connect(2). *divert is set when the caller must swap the address. */
static __always_inline int connecting(struct bpf_sock_addr *ctx, struct wish *w, bool *divert)
{
	const struct config *c = configuration();
	const struct capture *capture;
	struct party who;
	bool resolver, known, daemon;

	read_wish(ctx, w);
	normalise(&w->to);
	resolver = is_resolver(ctx, w);
	if (c && bpf_ntohs(w->port) != c->port && is_free(c, w->port) && !resolver)
		return pass(ctx);
	known = is_known(bpf_get_current_cgroup_id(), &who, &daemon);
	if (daemon)
		return pass(ctx);
	if (!known)
		current_party(c, &who);
	if (!c)
		return refuse(ctx, HOOK_CONNECT, w, REFUSED_FAULT, &who);
	if ((bpf_ntohs(w->port) == c->port && is_loopback(&w->to)) || resolver)
		return refuse(ctx, HOOK_CONNECT, w, REFUSED_LISTENER, &who);
	capture = maybe_captured(c, w->port) ? capture_of(c, &w->to, w->port) : NULL;
	if (!capture) {
		if (!may_leave(c, &who, &w->to, w->port))
			return refuse(ctx, HOOK_CONNECT, w, REFUSED_EGRESS, &who);
		return pass(ctx);
	}
	if (!who.member) {
		if (is_kept_from(c, &who, &w->to))
			return refuse(ctx, HOOK_CONNECT, w, REFUSED_STRANGER, &who);
		return pass(ctx);
	}
	if (capture->verdict != VERDICT_DIVERT)
		return refuse(ctx, HOOK_CONNECT, w, REFUSED_TARGET, &who);
	if (capture->datagrams && w->protocol == IPPROTO_UDP)
		return divert_datagrams(ctx, HOOK_CONNECT, w, capture, &who, divert);
	return divert_connection(ctx, c, w, capture, &who, divert);
}

static __always_inline void to_loopback4(struct bpf_sock_addr *ctx)
{
	ctx->user_ip4 = LOOPBACK4;
}

static __always_inline void to_loopback6(struct bpf_sock_addr *ctx, bool mapped)
{
	ctx->user_ip6[0] = 0;
	ctx->user_ip6[1] = 0;
	ctx->user_ip6[2] = mapped ? MAPPED : 0;
	ctx->user_ip6[3] = mapped ? LOOPBACK4 : LOOPBACK6;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	bool divert = false;
	struct wish w;
	int ret;

	address_of_v4(&w.to, ctx->user_ip4);
	ret = connecting(ctx, &w, &divert);
	if (divert)
		to_loopback4(ctx);
	return ret;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	bool divert = false;
	struct wish w;
	int ret;

	address_of_v6(&w.to, ctx);
	ret = connecting(ctx, &w, &divert);
	if (divert)
		to_loopback6(ctx, is_mapped(&w.to));
	return ret;
}

/* The listener's port is the daemon's, on every address and in every namespace. */
static __always_inline int binding(struct bpf_sock_addr *ctx, struct wish *w)
{
	const struct config *c = configuration();
	struct party who;

	read_wish(ctx, w);
	if (!c || w->protocol != IPPROTO_TCP || bpf_ntohs(w->port) != c->port)
		return PASS;
	if (is_daemon(bpf_get_current_cgroup_id()))
		return PASS;
	current_party(c, &who);
	if (who.side == SIDE_OUTSIDE)
		return PASS;
	return refuse(ctx, HOOK_BIND, w, REFUSED_BIND, &who);
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	struct wish w;

	address_of_v4(&w.to, ctx->user_ip4);
	return binding(ctx, &w);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	struct wish w;

	address_of_v6(&w.to, ctx);
	return binding(ctx, &w);
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
	struct party who;
	struct report *r;

	if (ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP)
		return PASS;
	if (ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP)
		return PASS;
	current_party(configuration(), &who);
	if (!who.member)
		return PASS;
	r = report(HOOK_SOCK_CREATE, REFUSED_SOCKET, &who);
	if (r) {
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
