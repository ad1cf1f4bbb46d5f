/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the kernel programs and the daemon tell each other. Every pad is
 * written out and every size asserted: a hash key with a hole in it holds
 * whatever was on the stack, and a lookup that misses by chance would let a
 * connection through. Keys are cleared with memset all the same.
 */
#ifndef CHAPERONE_TYPES_H
#define CHAPERONE_TYPES_H

#include <linux/types.h>

#define AF_INET 2
#define AF_INET6 10

/* An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d, in network byte order. */
struct address {
	union {
		__u8 bytes[16];
		__be32 words[4];
		__u64 halves[2];
	};
};

#define ANY_ADDRESS 1  /* some capture holds for a port on all addresses */
#define ANY_PORT 2     /* some capture holds for all ports of an address */
#define EGRESS_RULES 4 /* some planner may go to listed destinations only */
#define HOLD_UNKNOWN 8 /* what is no known cgroup goes nowhere yet */
#define NODE_BELT 16   /* nobody but the daemon reaches a listed address */

/*
 * The one entry of map "config". A zero port means that the daemon has not
 * written it yet: everything is refused.
 */
struct config {
	__u16 port; /* the listener's, in host byte order */
	__u16 flags;
	__u32 pad;
	__u64 area; /* id of the cgroup below which planners live */
	/*
	 * Bit p is set when port p may be captured. A bit too many costs
	 * a lookup, a bit too few lets a connection through, so the daemon sets
	 * bits before it adds captures and clears them after it has removed some.
	 */
	__u64 ports[1024];
};

enum role {
	ROLE_PLANNER = 1,   /* the cgroup and all below it: captured connections are diverted */
	ROLE_DAEMON = 2,    /* this very cgroup: may reach what is captured */
	ROLE_BYSTANDER = 3, /* the cgroup and all below it: known to be no planner */
	ROLE_EXEMPT = 4,    /* likewise: not even the node's belt is for it */
};

/* How many attempts were reported in the current second. */
struct budget {
	__u64 since; /* boot-time clock, ns */
	__u32 spent;
	__u32 pad;
};

/* What a cgroup below the ancestor is; the key is its id. */
struct member {
	__u32 role;
	__s32 pending; /* bridge entries that its planners hold now */
	__u32 profile; /* of map "egress"; 0: it may go anywhere but to what is captured */
	__u32 pad;
	struct budget budget;
};

enum verdict {
	VERDICT_DIVERT = 1,
	VERDICT_DENY = 2,
};

/* A captured destination. The zero address is any address, port 0 any port. */
struct capture_key {
	struct address address;
	__be16 port;
	__u16 pad[3];
};

struct capture {
	__u8 verdict;
	__u8 protocol;	/* opaque here, handed over with the connection */
	__u8 datagrams; /* UDP is diverted too, to the planner's resolver socket */
	__u8 pad;
	__u32 target; /* likewise */
};

/* A destination that a profile allows, for a longest-prefix match. */
struct egress_key {
	__u32 bits; /* that count, of what follows */
	__u32 profile;
	__be16 port;
	__u16 pad;
	__u32 pad2;
	struct address address;
};

#define EGRESS_BITS (8 * (sizeof(struct egress_key) - sizeof(__u32)))

/* Names the socket that answers a planner's datagrams in one network namespace. */
struct resolver_key {
	__u64 workload;
	__u64 netns; /* cookie */
};

/* Its ports on 127.0.0.1 and on ::1; 0 where there is none. */
struct resolver {
	__be16 port4;
	__be16 port6;
	__u32 pad;
};

struct process {
	__u64 started; /* of the thread group's leader, boot-time clock, ns; 0 if unknown */
	__u32 tgid;
	__u32 tid;
	__u32 uid;
	__u32 gid;
	char comm[16];
};

#define SHARED (~0ULL) /* in map "interfaces": of several planners, and which one can't be told */

/* Where a diverted connection was going, and who opened it. */
struct origin {
	__u64 cookie;	/* of the client's socket */
	__u64 netns;	/* cookie of its network namespace */
	__u64 workload; /* id of the enrolled cgroup */
	__u64 cgroup;	/* id of the process's own cgroup: that one or one below it */
	__u64 at;	/* boot-time clock, ns */
	struct process process;
	struct address destination;
	__be16 port;
	__u16 family; /* the socket's: AF_INET or AF_INET6 */
	__u8 protocol;
	__u8 pad;
	__be16 via; /* the port on loopback that it was diverted to */
	__u32 target;
	__u32 pad2;
};

/*
 * Names a connection to the listener between its SYN and its being established.
 * Client and listener share a network namespace, so the four-tuple is the
 * same seen from both.
 */
struct tuple {
	__u64 netns;
	struct address client;
	struct address server;
	__be16 client_port;
	__be16 server_port;
	__u32 pad;
};

/*
 * What happened: the index of its counter in map "stats" and the reason in a
 * report. The daemon holds the same list; append only.
 */
enum outcome {
	DIVERTED = 0,
	HANDED_OVER = 1,	 /* the origin moved to the accepted socket */
	REFUSED_TARGET = 2,	 /* captured, and to be denied */
	REFUSED_STRANGER = 3,	 /* a captured destination, from a cgroup that is no planner */
	REFUSED_PROTOCOL = 4,	 /* a captured destination, by something else than TCP */
	REFUSED_LISTENER = 5,	 /* straight to the listener */
	REFUSED_SOCKET = 6,	 /* a planner may not have a socket of this kind */
	REFUSED_BIND = 7,	 /* the listener's port */
	REFUSED_CLOSED = 8,	 /* nobody but the daemon may listen, and it doesn't */
	REFUSED_BUSY = 9,	 /* too many connections of this planner are being set up */
	REFUSED_FAULT = 10,	 /* a helper failed, or there is no configuration */
	DROPPED_TARGET = 11,	 /* a packet to a captured destination */
	DROPPED_UNREADABLE = 12, /* a packet whose port can't be told */
	UNREPORTED = 13,	 /* attempts that were counted and not reported */
	REFUSED_EGRESS = 14,	 /* not among what the planner's profile allows */
	DROPPED_EGRESS = 15,	 /* a packet to such a destination */
	REFUSED_UNIX = 16,	 /* the unix socket of a protected service */
	DIVERTED_DATAGRAM = 17,
	OUTCOMES = 18,
};

enum hook {
	HOOK_CONNECT = 1,
	HOOK_SENDMSG = 2,
	HOOK_BIND = 3,
	HOOK_SOCK_CREATE = 4,
	HOOK_EGRESS = 5,
	HOOK_INTERFACE = 6,
	HOOK_CONNECT_UNIX = 7,
	HOOK_SOCKET = 8,
};

/*
 * One refused attempt. Of a packet the process is known only when it was sent
 * at once by a process of the socket's own cgroup.
 */
struct report {
	__u64 at;	/* boot-time clock, ns */
	__u64 workload; /* 0: no planner */
	__u64 cgroup;
	__u64 netns; /* cookie; 0 if unknown */
	struct process process;
	struct address address;
	__be16 port;
	__u16 family;
	__u8 outcome;
	__u8 hook;
	__u8 type; /* SOCK_…, 0 if unknown */
	__u8 pad;
	__u16 protocol; /* IPPROTO_…, 0 if unknown */
	__u16 pad2[3];
};

_Static_assert(sizeof(struct address) == 16, "address");
_Static_assert(sizeof(struct config) == 8208, "config");
_Static_assert(sizeof(struct member) == 32, "member");
_Static_assert(sizeof(struct capture_key) == 24, "capture_key");
_Static_assert(sizeof(struct capture) == 8, "capture");
_Static_assert(sizeof(struct egress_key) == 32, "egress_key");
_Static_assert(sizeof(struct resolver_key) == 16, "resolver_key");
_Static_assert(sizeof(struct resolver) == 8, "resolver");
_Static_assert(sizeof(struct process) == 40, "process");
_Static_assert(sizeof(struct origin) == 112, "origin");
_Static_assert(sizeof(struct tuple) == 48, "tuple");
_Static_assert(sizeof(struct report) == 104, "report");

#endif
