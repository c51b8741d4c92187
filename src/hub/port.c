#include "hub/port.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/err.h"
#include "os/fd.h"

enum { HOST_MAX = 64 };

int td_port_address(const char *host, uint16_t port, struct td_port_address *ret_address,
                    struct td_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return td_error_set(err, TD_EINVAL, "%s is not an address in numbers", host);
    ret_address->len = found->ai_addrlen;
    memcpy(&ret_address->bytes, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (ret_address->bytes.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&ret_address->bytes)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)&ret_address->bytes)->sin_port = htons(port);
    return 0;
}

/* Binds a socket as the server will; *address then says where. */
static int try_port(struct td_port_address *address)
{
    int one = 1;
    int type = SOCK_STREAM | SOCK_CLOEXEC;
    TD_CLEANUP(td_fd_close) int fd = socket(address->bytes.ss_family, type, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(fd, (struct sockaddr *)&address->bytes, address->len) < 0 || listen(fd, 1) < 0 ||
        getsockname(fd, (struct sockaddr *)&address->bytes, &address->len) < 0)
        return -1;
    return 0;
}

int td_port_check(const char *host, uint16_t port, struct td_error *err)
{
    char where[HOST_MAX + 16];
    struct td_port_address address = {0};
    int r = td_port_address(host, port, &address, err);
    if (r < 0 || try_port(&address) == 0)
        return r;
    if (errno == EADDRINUSE)
        return td_error_set(err, TD_EEXISTS,
                            "port %u of %s is taken by another program; choose another port", port,
                            host);
    (void)snprintf(where, sizeof where, "port %u of %s", port, host); /* a cut text is one, too */
    return td_error_sys(err, errno, where);
}

int td_port_choose(const char *host, uint16_t *ret_port, struct td_error *err)
{
    struct td_port_address address = {0};
    int r = td_port_address(host, 0, &address, err);
    if (r < 0)
        return r;
    if (try_port(&address) < 0)
        return td_error_sys(err, errno, host);
    *ret_port = ntohs(address.bytes.ss_family == AF_INET6
                          ? ((struct sockaddr_in6 *)&address.bytes)->sin6_port
                          : ((struct sockaddr_in *)&address.bytes)->sin_port);
    return 0;
}
