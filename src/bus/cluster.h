/* cluster.h: what a cluster keeps in JetStream, and under which names. Numbers in names are 16
 * hexadecimal digits.
 *
 *      stream            subjects                              what
 *      TD_CALLS_<pool>   td.calls.<pool>.<lane>                JOB: calls that wait or run
 *      TD_RESULTS        td.res.<session>, td.res.<session>.<map>
 *                                                              STARTED, OUTPUT, OUTCOME
 *      TD_SPECS          td.spec.<session>.<n>                 MAP_OPEN: what calls have in common
 *      TD_MAPS           td.map.<map>                          MAP: the state of a map
 *                        td.beat.<session>                     when the caller was last seen
 *      TD_BLOBS          td.blob.<session>.<scope>.<blob>.<n>  chunks of large values
 *
 * Calls are deleted when they are acknowledged, which is when their outcomes are stored. Everything
 * else is kept until whoever made it has no more use for it, and at most for TD_KEPT_S. A lane is
 * what agents take turns at: a large map has its own, named by the map, and results of its own; all
 * others share one lane, and those of a session one subject of results.
 *
 * Nobody reads by a pattern of subjects: nats-server 2.9 passes over messages then when others
 * between them are deleted. Agents learn of lanes from TD_SUBJECT_LANE, and from the list of
 * subjects that the stream of calls has.
 *
 *      td.cancel, td.lane, td.ask                              to all agents, not stored
 *
 * Threads: any; names and configurations are pure. */
#ifndef TD_BUS_CLUSTER_H
#define TD_BUS_CLUSTER_H

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "wire/message.h"

struct td_buf;
struct td_jet;

enum {
    TD_SUBJECT_MAX = 128,
    TD_POOL_MAX = 32, /* letters, digits, - and _ */
    TD_KEPT_S = 7 * 24 * 3600,
};
#define TD_LANE_SHARED  "shared"
#define TD_POOL_DEFAULT "default"

#define TD_STREAM_RESULTS "TD_RESULTS"
#define TD_STREAM_SPECS   "TD_SPECS"
#define TD_STREAM_MAPS    "TD_MAPS"
#define TD_STREAM_BLOBS   "TD_BLOBS"
#define TD_STREAM_CALLS   "TD_CALLS_" /* and the pool's name */
#define TD_SUBJECT_CANCEL "td.cancel"
#define TD_SUBJECT_LANE   "td.lane"
#define TD_SUBJECT_ASK    "td.ask"

enum td_map_state { TD_MAP_OPEN = 1, TD_MAP_ENDED, TD_MAP_CANCELLED, TD_MAP_GONE };

/* A name of something; it always fits. */
struct td_name {
    char text[TD_SUBJECT_MAX];
};
struct td_name td_name_of(const char *format, ...) TD_PRINTF(1, 2);
struct td_name td_name_stream(const char *pool);
struct td_name td_name_lane(uint64_t map); /* 0: the shared one */
struct td_name td_name_consumer(uint64_t map,
                                const char *server); /* of its lane, see agent_lane.c */
struct td_name td_name_calls(const char *pool, const char *lane);
struct td_name td_name_results(uint64_t session, uint64_t map); /* map 0: those that share */
struct td_name td_name_spec(uint64_t session, uint32_t spec);
struct td_name td_name_specs_of(uint64_t session);
struct td_name td_name_map(uint64_t map);
struct td_name td_name_blob(uint64_t session, uint64_t scope, uint64_t blob, uint32_t chunk);
struct td_name td_name_blobs_of(uint64_t session, uint64_t scope);      /* scope 0: all */
struct td_name td_name_direct(const char *stream, const char *subject); /* of a question */

/* Whether a pool may have this name. */
int td_pool_name_check(const char *pool);

/* Makes the streams where they are not there yet. Tells once; TD_EEXISTS: one is there with another
 * configuration. The maker is gone then. TD_ENOMEM. */
typedef void td_cluster_made_fn(void *context, int status, const char *why);
int td_cluster_make(struct td_jet *jet, const char *pool, td_cluster_made_fn *made, void *context);

/* Messages one behind another, in one of the engine's. */

/* Appends one with its tail. TD_ENOMEM, TD_ELIMIT. */
int td_frames_add(struct td_buf *buf, const struct td_message *message);

/* Takes the next one off *frames, which it borrows from. TD_ENOTFOUND: there is none; TD_EPROTO. */
int td_frames_next(struct td_bytes *frames, struct td_message *ret_message);

#endif
