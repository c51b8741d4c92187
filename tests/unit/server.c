#include "server.h"

#include "support.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/clock.h"
#include "os/loop.h"

enum { READY_MS = 10000, TURN_S = 10 };

static int port_socket(unsigned port, bool connected)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    int r = connected ? connect(fd, (struct sockaddr *)&address, sizeof address)
                      : bind(fd, (struct sockaddr *)&address, sizeof address);
    if (r == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static unsigned free_port(void)
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int fd = port_socket(0, false);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

static void write_config(const struct support_server *server, const char *config)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/conf", server->folder);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    (void)fprintf(file,
                  "listen: \"127.0.0.1:%u\"\nlog_file: \"%s/log\"\n"
                  "jetstream { store_dir: \"%s/store\" }\n%s\n",
                  server->port, server->folder, server->folder, config ? config : "");
    assert_int_equal(fclose(file), 0);
}

void support_server_again(struct support_server *server)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/conf", server->folder);
    assert_int_equal(server->pid, 0);
    pid_t parent = getpid();
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            (void)execlp("nats-server", "nats-server", "-c", path, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < READY_MS; i++) {
        int fd = port_socket(server->port, true);
        if (fd >= 0) {
            (void)close(fd);
            return;
        }
        if (!support_alive(server->pid))
            break;
        (void)poll(NULL, 0, 1);
    }
    fail_msg("nats-server does not start; see %s/log", server->folder);
}

void support_server_start(struct support_server *server, const char *config)
{
    *server = (struct support_server){.folder = "/tmp/tendril-test-XXXXXX"};
    assert_non_null(mkdtemp(server->folder));
    server->port = free_port();
    (void)snprintf(server->url, sizeof server->url, "nats://127.0.0.1:%u", server->port);
    write_config(server, config);
    support_server_again(server);
}

void support_server_kill(struct support_server *server, int signal)
{
    assert_true(server->pid > 0);
    assert_int_equal(kill(server->pid, signal), 0);
    (void)support_reap(server->pid);
    server->pid = 0;
}

static int remove_entry(const char *path, const struct stat *stat, int flag, struct FTW *ftw)
{
    (void)stat, (void)flag, (void)ftw;
    return remove(path);
}

void support_server_stop(struct support_server *server)
{
    if (server->pid > 0)
        support_server_kill(server, SIGKILL);
    if (server->folder[0])
        (void)nftw(server->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    server->folder[0] = '\0';
}

void support_turn(struct td_loop *loop, bool (*done)(void *context), void *context)
{
    int64_t deadline = td_clock_now() + TURN_S * TD_NS_PER_S;
    assert_int_equal(td_loop_help(loop, done, context, false, deadline), 0);
}
