/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* One form for every spelling of an address, and the lookup of captures. */
#ifndef CHAPERONE_ADDRESS_H
#define CHAPERONE_ADDRESS_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

#define MAPPED bpf_htonl(0xffff) /* third word of ::ffff:0:0/96 */
#define LOOPBACK4 bpf_htonl(0x7f000001)
#define LOOPBACK6 bpf_htonl(1) /* fourth word of ::1 */

static __always_inline void address_of_v4(struct address *a, __be32 v4)
{
	a->halves[0] = 0;
	a->words[2] = MAPPED;
	a->words[3] = v4;
}

static __always_inline bool is_mapped(const struct address *a)
{
	return a->halves[0] == 0 && a->words[2] == MAPPED;
}

/* To connect to the unspecified address is to connect to this host. */
static __always_inline void normalise(struct address *a)
{
	if (a->halves[0] || a->words[3])
		return;
	if (a->words[2] == 0)
		a->words[3] = LOOPBACK6;
	else if (a->words[2] == MAPPED)
		a->words[3] = LOOPBACK4;
}

static __always_inline bool is_loopback(const struct address *a)
{
	if (is_mapped(a))
		return bpf_ntohl(a->words[3]) >> 24 == 127;
	return a->halves[0] == 0 && a->words[2] == 0 && a->words[3] == LOOPBACK6;
}

/* The configuration, or NULL as long as the daemon has written none. */
static __always_inline const struct config *configuration(void)
{
	const __u32 zero = 0;
	const struct config *c = bpf_map_lookup_elem(&config, &zero);

	return c && c->port ? c : NULL;
}

/*
 * The quick answer, which nearly every connection and packet ends with: false
 * when no capture holds for the port, whatever the address.
 */
static __always_inline bool maybe_captured(const struct config *c, __be16 port)
{
	__u32 p = bpf_ntohs(port);

	/*
	 * A byte swap is any number to the verifier of older kernels, and clang, which
	 * knows better, would leave the mask out.
	 */
	barrier_var(p);
	return c->flags & ANY_PORT || c->ports[p >> 6 & 1023] & 1ULL << (p & 63);
}

/* The capture for a normalised destination: the most specific, or NULL. */
static __always_inline const struct capture *capture_of(const struct config *c,
							const struct address *a, __be16 port)
{
	const struct capture *found;
	struct capture_key key;

	__builtin_memset(&key, 0, sizeof(key));
	key.address = *a;
	key.port = port;
	found = bpf_map_lookup_elem(&captures, &key);
	if (!found && c->flags & ANY_PORT) {
		key.port = 0;
		found = bpf_map_lookup_elem(&captures, &key);
	}
	if (!found && c->flags & ANY_ADDRESS) {
		__builtin_memset(&key, 0, sizeof(key));
		key.port = port;
		found = bpf_map_lookup_elem(&captures, &key);
	}
	return found;
}

/* Whether the address is known to be a target's. */
static __always_inline bool is_listed(const struct address *a)
{
	return bpf_map_lookup_elem(&addresses, a);
}

#endif
