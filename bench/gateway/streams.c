// Stream load for the gateway benchmark: many clients in one thread, epoll.
//
// usage: streams PORT CLIENTS EVERY_MS CHUNKS SECONDS   measure: prints one JSON line and ends
//        streams PORT CLIENTS MODEL                     hold open: prints `{"open":N}` when every client has
//                                                       had its first byte, or after 20 s; ends with stdin
//
// Each client asks for one stream after the other over its kept-alive connection. Latency is the time from
// the engine's write, which each chunk carries, to our read.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CARRY = 64, STAMP = 20, SAMPLES = 4000000 };

typedef struct {
    int fd, kept, begun;
    char carry[CARRY];
} Client;

static int poller;
static char request[1024];
static int request_size;
static struct sockaddr_in gateway;
static unsigned *latency_us, samples;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void build(int port, const char *model, int every_ms, int chunks) {
    char body[512];
    int size = sprintf(body,
                       "{\"model\":\"%s\",\"stream\":true,\"every_ms\":%d,\"chunks\":%d,\"messages\":[{\"role\":"
                       "\"user\",\"content\":\"Tell me a story that is about as long as this question is.\"}]}",
                       model, every_ms, chunks);
    request_size = sprintf(request,
                           "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: "
                           "application/json\r\nAuthorization: Bearer sk-bench\r\nContent-Length: %d\r\n\r\n%s",
                           port, size, body);
}

static int ask(Client *c) { return send(c->fd, request, request_size, MSG_NOSIGNAL) == request_size ? 0 : -1; }

static int dial(Client *c) {
    int yes = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&gateway, sizeof gateway)) return -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
    c->kept = 0;
    return ask(c);
}

// Count the chunks in what came; returns how many, and whether the stream has ended.
static int count(Client *c, char *data, int size, uint64_t now, int *ended) {
    static const char mark[] = "\"at\":";
    int found = 0;
    char *at = data, *end = data + size, *hit;
    while ((hit = memmem(at, end - at, mark, sizeof mark - 1))) {
        if (end - hit < (int)sizeof mark - 1 + STAMP) break;  // the stamp is cut off: next time
        uint64_t sent = strtoull(hit + sizeof mark - 1, 0, 10);
        if (samples < SAMPLES) latency_us[samples++] = (unsigned)((now - sent) / 1000);
        found++;
        at = hit + sizeof mark - 1 + STAMP;
    }
    *ended = size >= 5 && !memcmp(end - 5, "0\r\n\r\n", 5);
    c->kept = end - at < CARRY - 1 ? end - at : CARRY - 1;
    if (*ended) c->kept = 0;
    memcpy(c->carry, end - c->kept, c->kept);
    return found;
}

static int ascending(const void *a, const void *b) {
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 6) return 2;
    int port = atoi(argv[1]), clients = atoi(argv[2]), hold = argc == 4;
    double seconds = hold ? 20 : atof(argv[5]);
    build(port, hold ? argv[3] : "m1", hold ? 600000 : atoi(argv[3]), hold ? 100 : atoi(argv[4]));
    gateway = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    poller = epoll_create1(0);
    latency_us = malloc(SAMPLES * sizeof *latency_us);
    Client *all = calloc(clients, sizeof *all);
    static char data[1 << 18];
    static struct epoll_event events[512];
    long chunks = 0, reads = 0, failures = 0;
    int dialled = 0, open = 0;
    uint64_t began = now_ns(), measured = 0, until = began + (uint64_t)(seconds * 1e9);
    for (;;) {
        uint64_t now = now_ns();
        for (int burst = 0; dialled < clients && burst < 50; burst++) failures += dial(&all[dialled++]) != 0;
        if (dialled == clients && !measured) {
            if (hold) measured = now;
            else if (now - began > 1000000000u) {  // a second to settle
                measured = now, chunks = reads = samples = 0;
                until = now + (uint64_t)(seconds * 1e9);
            }
        }
        if ((hold && open >= clients) || (measured && now >= until)) break;
        int count_ready = epoll_wait(poller, events, 512, dialled < clients ? 0 : 10);
        for (int i = 0; i < count_ready; i++) {
            Client *c = events[i].data.ptr;
            memcpy(data, c->carry, c->kept);
            int got = recv(c->fd, data + c->kept, sizeof data - CARRY, MSG_DONTWAIT), ended = 0;
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN) continue;
                failures++;
                close(c->fd);
                if (failures > 10000 || dial(c)) return 1;
                continue;
            }
            if (!c->begun) c->begun = 1, open++;
            reads++;
            chunks += count(c, data, c->kept + got, now_ns(), &ended);
            if (ended && ask(c)) failures++;
        }
    }
    if (hold) {
        printf("{\"open\":%d,\"failures\":%ld}\n", open, failures);
        fflush(stdout);
        while (read(0, data, sizeof data) > 0) {}
        return 0;
    }
    double lasted = (now_ns() - measured) / 1e9;
    qsort(latency_us, samples, sizeof *latency_us, ascending);
    printf("{\"chunks_per_s\":%.0f,\"chunks_per_read\":%.2f,\"p50_us\":%u,\"p99_us\":%u,\"failures\":%ld}\n",
           chunks / lasted, reads ? (double)chunks / reads : 0, samples ? latency_us[samples / 2] : 0,
           samples ? latency_us[(unsigned)(samples * 0.99)] : 0, failures);
}
