/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Datagrams that are sent to an address of their own, and their answers. Those of
 * a connected socket are decided by its connect(2).
 */
#ifndef CHAPERONE_DATAGRAM_H
#define CHAPERONE_DATAGRAM_H

#include "socket.h"

/* Whether the planner's socket was sent to its resolver before. */
static __always_inline bool is_diverted(struct bpf_sock_addr *ctx, const struct wish *w,
					const struct party *who)
{
	struct bpf_sock *sk = ctx->sk;
	const struct origin *o;

	if (!sk || !who->member)
		return false;
	o = bpf_sk_storage_get(&dialled, sk, NULL, 0);
	return o && o->via == w->port && o->workload == who->id;
}

/* Decides a datagram with an address of its own. *divert as above. */
static __always_inline int sending(struct bpf_sock_addr *ctx, struct wish *w, bool *divert)
{
	const struct config *c = configuration();
	const struct capture *capture;
	struct party who;
	bool resolver, known, daemon;

	read_wish(ctx, w);
	normalise(&w->to);
	resolver = is_resolver(ctx, w);
	if (c && is_free(c, w->port) && !resolver)
		return PASS;
	known = is_known(bpf_get_current_cgroup_id(), &who, &daemon);
	if (daemon)
		return PASS;
	if (!known)
		current_party(c, &who);
	if (!c)
		return refuse(ctx, HOOK_SENDMSG, w, REFUSED_FAULT, &who);
	/* A connected socket's datagram to an IPv4 address in IPv6 comes here too. */
	if (resolver && is_diverted(ctx, w, &who))
		return PASS;
	if (resolver)
		return refuse(ctx, HOOK_SENDMSG, w, REFUSED_LISTENER, &who);
	capture = maybe_captured(c, w->port) ? capture_of(c, &w->to, w->port) : NULL;
	if (!capture) {
		if (!may_leave(c, &who, &w->to, w->port))
			return refuse(ctx, HOOK_SENDMSG, w, REFUSED_EGRESS, &who);
		return PASS;
	}
	if (!who.member) {
		if (is_kept_from(c, &who, &w->to))
			return refuse(ctx, HOOK_SENDMSG, w, REFUSED_STRANGER, &who);
		return PASS;
	}
	if (capture->verdict == VERDICT_DIVERT && capture->datagrams && w->protocol == IPPROTO_UDP)
		return divert_datagrams(ctx, HOOK_SENDMSG, w, capture, &who, divert);
	return refuse(ctx, HOOK_SENDMSG, w, REFUSED_PROTOCOL, &who);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	bool divert = false;
	struct wish w;
	int ret;

	address_of_v4(&w.to, ctx->user_ip4);
	ret = sending(ctx, &w, &divert);
	if (divert)
		to_loopback4(ctx);
	return ret;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	bool divert = false;
	struct wish w;
	int ret;

	address_of_v6(&w.to, ctx);
	ret = sending(ctx, &w, &divert);
	if (divert)
		to_loopback6(ctx, is_mapped(&w.to));
	return ret;
}

/*
 * What a diverted datagram is answered by looks like what was asked: clients drop
 * answers of others. A socket that asked several is shown the one it asked last.
 */
static __always_inline const struct origin *asked(struct bpf_sock_addr *ctx,
						  const struct address *from)
{
	struct bpf_sock *sk = ctx->sk;
	const struct origin *o;

	if (!sk || !is_loopback(from))
		return NULL;
	o = bpf_sk_storage_get(&dialled, sk, NULL, 0);
	return o && o->via == (__be16)ctx->user_port ? o : NULL;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	const struct origin *o;
	struct address from;

	address_of_v4(&from, ctx->user_ip4);
	o = asked(ctx, &from);
	if (o) {
		ctx->user_ip4 = o->destination.words[3];
		ctx->user_port = o->port;
	}
	return PASS;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	const struct origin *o;
	struct address from;

	address_of_v6(&from, ctx);
	o = asked(ctx, &from);
	if (o) {
		ctx->user_ip6[0] = o->destination.words[0];
		ctx->user_ip6[1] = o->destination.words[1];
		ctx->user_ip6[2] = o->destination.words[2];
		ctx->user_ip6[3] = o->destination.words[3];
		ctx->user_port = o->port;
	}
	return PASS;
}

#endif
