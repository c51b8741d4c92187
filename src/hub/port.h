/* port.h: a TCP port that a program of ours is to listen on: is it free, and which one is?
 *
 * The answer may be old when it is there: whoever then listens there sees for itself. Hosts are
 * addresses in numbers. Threads: any. */
#ifndef TD_HUB_PORT_H
#define TD_HUB_PORT_H

#include <stdint.h>
#include <sys/socket.h>

struct td_error;

/* What connect() and bind() take. */
struct td_port_address {
    struct sockaddr_storage bytes;
    socklen_t len;
};

/* TD_EINVAL: the host is no address in numbers. */
int td_port_address(const char *host, uint16_t port, struct td_port_address *ret_address,
                    struct td_error *err);

/* TD_EEXISTS: another program has it; TD_EINVAL, TD_ESYS. */
int td_port_check(const char *host, uint16_t port, struct td_error *err);

/* One that is free. TD_EINVAL, TD_ESYS. */
int td_port_choose(const char *host, uint16_t *ret_port, struct td_error *err);

#endif
