#include "agent/agent.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/adapt.h"
#include "base/err.h"
#include "bus/bus.h"
#include "bus/bus_agent.h"
#include "bus/cluster.h"
#include "bus/nats.h"
#include "bus/token.h"
#include "node/node.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/loop.h"

enum { HOST_SIZE = 65 };

struct agent {
    struct td_loop *loop;
    struct td_bus *bus;
    struct td_node *node;
    struct td_adapt adapt;
    struct td_watch signals;
    struct td_timer deadline; /* of draining */
    int64_t drain_ns;
    bool draining;
    struct td_error failure; /* why it ends, if not because it was told to */
};

static int adapt(void *context, struct td_spec *spec, struct td_spec **ret_spec,
                 struct td_error *err)
{
    struct agent *agent = context;
    return td_adapt_spec(&agent->adapt, spec, ret_spec, err);
}

static void on_drained(void *context)
{
    struct agent *agent = context;
    td_loop_stop(agent->loop);
}

static void on_closed(void *context, const char *reason)
{
    struct agent *agent = context;
    (void)td_error_set(&agent->failure, TD_EREFUSED, "the hub will not have this agent: %s",
                       reason);
    td_loop_stop(agent->loop);
}

static void hand_back(void *context)
{
    struct agent *agent = context;
    td_bus_agent_hand_back(agent->bus);
}

static void on_signal(void *context, unsigned events)
{
    (void)events;
    struct agent *agent = context;
    struct signalfd_siginfo info;
    while (read(agent->signals.fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (agent->draining) {
            hand_back(agent);
            continue;
        }
        agent->draining = true;
        (void)td_loop_timer(agent->loop, &agent->deadline,
                            td_clock_now() + agent->drain_ns); /* its place is kept, see set_up */
        td_bus_agent_drain(agent->bus);
    }
}

static int watch_signals(struct agent *agent, struct td_error *err)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return td_error_sys(err, errno, "sigprocmask");
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return td_error_sys(err, errno, "signalfd");
    agent->signals = (struct td_watch){
        .fd = fd, .events = TD_LOOP_READ, .fn = on_signal, .context = agent};
    return td_loop_watch(agent->loop, &agent->signals, err);
}

static int set_up(struct agent *agent, const struct td_agent_options *options, struct td_error *err)
{
    char host[HOST_SIZE] = "";
    (void)gethostname(host, sizeof host - 1); /* without a name it has an empty one */
    const struct td_nats_options server = {.url = options->token->url,
                                           .user = options->token->user,
                                           .secret = options->token->secret,
                                           .name = "tendril agent"};
    const struct td_bus_agent_options bus = {.server = &server,
                                             .pool = options->pool ? options->pool
                                                                   : TD_POOL_DEFAULT,
                                             .host = host,
                                             .adapt = adapt,
                                             .drained = on_drained,
                                             .closed = on_closed,
                                             .context = agent};
    int r = td_loop_new(&agent->loop, err);
    if (r == 0)
        r = watch_signals(agent, err);
    if (r == 0)
        r = td_loop_timer(agent->loop, &agent->deadline, TD_NO_DEADLINE);
    if (r == 0)
        r = td_bus_agent_new(agent->loop, &bus, &agent->bus, err);
    if (r == 0)
        r = td_node_new(agent->loop, agent->bus,
                        &(struct td_node_options){.supervisor_path = options->supervisor_path,
                                                  .slots = options->slots},
                        &agent->node, err);
    return r;
}

static void tear_down(struct agent *agent)
{
    td_node_free(agent->node);
    td_bus_free(agent->bus);
    if (agent->signals.fn) {
        td_loop_unwatch(agent->loop, &agent->signals);
        td_fd_close(&agent->signals.fd);
    }
    if (agent->loop)
        td_loop_untimer(agent->loop, &agent->deadline);
    td_loop_free(agent->loop);
}

static void tell_ready(int fd)
{
    if (fd < 0)
        return;
    (void)!write(fd, "", 1); /* nobody listens any more: nobody is told */
    td_fd_close(&fd);
}

int td_agent_run(const struct td_agent_options *options, struct td_error *err)
{
    struct agent agent = {.adapt = {.python = options->python, .folder = options->folder},
                          .drain_ns = options->drain_ns};
    agent.deadline = (struct td_timer){.fn = hand_back, .context = &agent};
    int r = set_up(&agent, options, err);
    if (r == 0) {
        tell_ready(options->ready_fd);
        r = td_loop_run(agent.loop);
        if (r < 0)
            (void)td_error_set(err, r, "the event loop failed");
    }
    tear_down(&agent);
    if (r == 0 && agent.failure.status) {
        r = agent.failure.status;
        *err = agent.failure;
    }
    return r;
}
