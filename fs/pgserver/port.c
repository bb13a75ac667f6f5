/* Ports that stay ours over restarts: outside the range from which the kernel takes ports for outgoing connections. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "pgserver_i.h"
#include "util/cleanup.h"

#define LOWEST 10240
#define HIGHEST 65535
#define RANDOM_TRIES 200

static void outgoing_range(int *low, int *high)
{
    *low = 32768;
    *high = 60999;
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    int a, b;
    if (f && fscanf(f, "%d %d", &a, &b) == 2) {
        *low = a;
        *high = b;
    }
    if (f)
        fclose(f);
}

static bool is_free(const char *address, int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    cleanup_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    /* As PostgreSQL does, so that a connection in TIME_WAIT is no obstacle. */
    return fd >= 0 && inet_pton(AF_INET, address, &sa.sin_addr) == 1 &&
           setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
           bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(fd, 1) == 0;
}

static bool listed(const int *taken, size_t n, int port)
{
    for (size_t i = 0; i < n; i++)
        if (taken[i] == port)
            return true;
    return false;
}

int pgserver_free_port(const char *address, const int *taken, size_t n, int *ret_port, struct err *err)
{
    int low, high;
    outgoing_range(&low, &high);
    bool all = low <= LOWEST && high >= HIGHEST; /* the range leaves nothing: any free port is the best there is */
    uint32_t random = 0;
    const int count = HIGHEST - LOWEST + 1;
    /* A fresh number each time at first: counting on from one would make the port after the range the likeliest by far. */
    for (int i = 0; i < count + RANDOM_TRIES; i++, random++) {
        if (i <= RANDOM_TRIES && getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
            return err_set(err, EIO, "no random numbers");
        int port = LOWEST + (int)(random % (uint32_t)count);
        if ((all || port < low || port > high) && !listed(taken, n, port) && is_free(address, port)) {
            *ret_port = port;
            return 0;
        }
    }
    return err_set(err, EADDRINUSE, "no free port on %s outside %d to %d", address, low, high);
}
