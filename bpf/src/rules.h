/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who may go where: what is decided of a destination before anything is done about it. */
#ifndef CHAPERONE_RULES_H
#define CHAPERONE_RULES_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "maps.h"
#include "member.h"

/* Whether a planner's profile lists the destination. */
static __always_inline bool is_allowed(__u32 profile, const struct address *to, __be16 port)
{
	struct egress_key key;

	__builtin_memset(&key, 0, sizeof(key));
	key.bits = EGRESS_BITS;
	key.profile = profile;
	key.port = port;
	key.address = *to;
	return bpf_map_lookup_elem(&egress_rules, &key);
}

/* Whether somebody may go to what is not captured. */
static __always_inline bool may_leave(const struct config *c, const struct party *who,
				      const struct address *to, __be16 port)
{
	if (!(c->flags & (EGRESS_RULES | HOLD_UNKNOWN)) || is_loopback(to))
		return true;
	if (who->side == SIDE_UNKNOWN)
		return !(c->flags & HOLD_UNKNOWN);
	return !who->member || !who->member->profile || is_allowed(who->member->profile, to, port);
}

/*
 * Whether somebody who is no planner is kept from a captured destination. What
 * is not known yet may be a planner. For those who are known not to be one a port
 * on any address would be too much: what is kept from them, where the belt is the
 * node's, is the targets' addresses.
 */
static __always_inline bool is_kept_from(const struct config *c, const struct party *who,
					 const struct address *to)
{
	if (who->side == SIDE_UNKNOWN || who->side == SIDE_SHARED)
		return true;
	return who->side != SIDE_EXEMPT && c->flags & NODE_BELT && is_listed(to);
}

/* Whether nearly every connection and packet to the port needs no closer look. */
static __always_inline bool is_free(const struct config *c, __be16 port)
{
	return !(c->flags & (EGRESS_RULES | HOLD_UNKNOWN)) && !maybe_captured(c, port);
}

#endif
