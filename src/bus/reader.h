/* reader.h: what a stream has under a subject, in order, each message once, from a place on and
 * whatever else comes: an ordered consumer that is made anew, behind the last message that was
 * read, when the server was restarted, messages were lost on the way or the server forgot it.
 *
 * Threads: the loop thread. Lifetime: td_reader_new .. td_reader_free, which may be called inside
 * fn. */
#ifndef TD_BUS_READER_H
#define TD_BUS_READER_H

#include <stdbool.h>
#include <stdint.h>

struct td_jet;
struct td_js_numbers;
struct td_loop;
struct td_nats_message;
struct td_reader;

struct td_reader_options {
    const char *stream;
    const char *subject; /* copied, as the stream's name is; no pattern, see cluster.h */
    uint64_t start;      /* the first message to read; 0: the first that there is */
};

/* Both are borrowed; numbers->pending is 0 with the last that is there now. */
typedef void td_reader_fn(void *context, const struct td_nats_message *message,
                          const struct td_js_numbers *numbers);

/* All was read that is there now; NULL: of no interest. We may be freed inside. */
typedef void td_reader_idle_fn(void *context);

/* TD_ENOMEM. */
int td_reader_new(struct td_loop *loop, struct td_jet *jet, const struct td_reader_options *options,
                  td_reader_fn *fn, td_reader_idle_fn *idle, void *context,
                  struct td_reader **ret_reader);
struct td_reader *td_reader_free(struct td_reader *reader); /* accepts NULL, returns NULL */

/* The connection was made anew: to be called from td_jet_events.connected. */
void td_reader_connected(struct td_reader *reader);

/* Back-pressure: what is asked for already still comes. */
void td_reader_pause(struct td_reader *reader, bool paused);

#endif
