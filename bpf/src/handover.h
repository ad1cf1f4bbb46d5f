/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * How an origin gets from the client's socket to the accepted one: into map
 * "bridge" as the SYN is about to leave, out of it as the other end is
 * established. So it is there before accept(2) can return, it is bound to the
 * socket and not to an address that is used again, and nothing is left behind.
 */
#ifndef CHAPERONE_HANDOVER_H
#define CHAPERONE_HANDOVER_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "maps.h"
#include "report.h"
#include "socket.h"

#define TCP_CLOSE 7

/* remote_port holds the port in network byte order in its upper half. */
static __always_inline __u16 remote_port(const struct bpf_sock_ops *ops)
{
	return bpf_ntohl(ops->remote_port);
}

static __always_inline void endpoints(const struct bpf_sock_ops *ops, struct address *local,
				      struct address *remote)
{
	__u32 family = ONCE(ops->family);
	__be32 local4 = ONCE(ops->local_ip4), remote4 = ONCE(ops->remote_ip4);

	if (family == AF_INET) {
		address_of_v4(local, local4);
		address_of_v4(remote, remote4);
		return;
	}
	local->words[0] = ONCE(ops->local_ip6[0]);
	local->words[1] = ONCE(ops->local_ip6[1]);
	local->words[2] = ONCE(ops->local_ip6[2]);
	local->words[3] = ONCE(ops->local_ip6[3]);
	remote->words[0] = ONCE(ops->remote_ip6[0]);
	remote->words[1] = ONCE(ops->remote_ip6[1]);
	remote->words[2] = ONCE(ops->remote_ip6[2]);
	remote->words[3] = ONCE(ops->remote_ip6[3]);
}

static __always_inline void tuple_of_client(struct bpf_sock_ops *ops, struct tuple *t)
{
	__builtin_memset(t, 0, sizeof(*t));
	t->netns = bpf_get_netns_cookie(ops);
	endpoints(ops, &t->client, &t->server);
	t->client_port = bpf_htons(ops->local_port);
	t->server_port = bpf_htons(remote_port(ops));
}

static __always_inline void tuple_of_server(struct bpf_sock_ops *ops, struct tuple *t)
{
	__builtin_memset(t, 0, sizeof(*t));
	t->netns = bpf_get_netns_cookie(ops);
	endpoints(ops, &t->server, &t->client);
	t->client_port = bpf_htons(remote_port(ops));
	t->server_port = bpf_htons(ops->local_port);
}

static __always_inline void pending(__u64 workload, __s32 change)
{
	struct member *m = bpf_map_lookup_elem(&members, &workload);

	if (m)
		__sync_fetch_and_add(&m->pending, change);
}

/* Whoever deletes the entry takes it off the planner's account, so that happens once. */
static __always_inline void leave_bridge(const struct tuple *t, __u64 workload)
{
	if (!bpf_map_delete_elem(&bridge, t))
		pending(workload, -1);
}

/* The client's SYN is about to leave; its port is known now. */
static __always_inline void client_connects(struct bpf_sock_ops *ops, const struct config *c)
{
	struct bpf_sock *sk = ops->sk;
	const struct origin *o;
	struct tuple t;

	if (!sk || remote_port(ops) != c->port)
		return;
	o = bpf_sk_storage_get(&dialled, sk, NULL, 0);
	if (!o)
		return;
	tuple_of_client(ops, &t);
	/* Without an entry the daemon finds no origin and refuses: closed. */
	if (bpf_map_update_elem(&bridge, &t, o, BPF_NOEXIST)) {
		count(REFUSED_FAULT);
		return;
	}
	pending(o->workload, 1);
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void server_establishes(struct bpf_sock_ops *ops, const struct config *c)
{
	struct bpf_sock *sk = ops->sk;
	const struct origin *from;
	struct origin *to;
	struct tuple t;

	if (!sk || ops->local_port != c->port)
		return;
	tuple_of_server(ops, &t);
	from = bpf_map_lookup_elem(&bridge, &t);
	if (!from)
		return;
	to = bpf_sk_storage_get(&accepted, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (to) {
		__builtin_memcpy(to, from, sizeof(*to));
		count(HANDED_OVER);
	} else {
		count(REFUSED_FAULT);
	}
	leave_bridge(&t, from->workload);
}

/* A client that closes before it was established takes its own entry with it. */
static __always_inline void client_closes(struct bpf_sock_ops *ops)
{
	const struct origin *o;
	struct tuple t;

	tuple_of_client(ops, &t);
	o = bpf_map_lookup_elem(&bridge, &t);
	if (o && o->cookie == bpf_get_socket_cookie(ops))
		leave_bridge(&t, o->workload);
}

SEC("sockops")
int sock_ops(struct bpf_sock_ops *ops)
{
	const struct config *c;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		c = configuration();
		if (c)
			client_connects(ops, c);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		c = configuration();
		if (c)
			server_establishes(ops, c);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == TCP_CLOSE)
			client_closes(ops);
		break;
	}
	return 1;
}

#endif
