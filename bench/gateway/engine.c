// A fake engine for the gateway benchmark: one thread, epoll, HTTP/1.1 keep-alive.
//
// usage: engine PORT...
//        engine -         ports are read from standard input, one a line, for as long as it runs
//
// POST with `"stream":true` in the body answers server-sent events, one write each: `"chunks":N` of them,
// `"every_ms":M` apart (0: as fast as the socket takes them), each carrying the time it was written. Any
// other request is answered with one JSON object of about 500 bytes. GET /healthz answers at once.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INBOX = 65536 };

typedef struct Peer {
    int fd, used, left, every_ms, listed, blocked, listens;
    uint64_t due_ns;
    struct Peer *next;
    char inbox[INBOX];
} Peer;

static int poller;
static Peer *streams;  // those with chunks left to send, in no order
static char json[1024];
static int json_size;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void watch(Peer *p, uint32_t events, int op) {
    struct epoll_event e = {.events = events, .data.ptr = p};
    epoll_ctl(poller, op, p->fd, &e);
}

static void drop(Peer *p) {
    for (Peer **at = &streams; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    close(p->fd);
    free(p);
}

// Returns 1 when written, 0 when the socket is full, -1 when the peer is gone.
static int put(Peer *p, const char *data, int size) {
    int sent = send(p->fd, data, size, MSG_NOSIGNAL);
    if (sent == size) return 1;
    if (sent < 0) return errno == EAGAIN ? 0 : -1;
    while (sent < size) {  // a torn write: rare, finish it
        int more = send(p->fd, data + sent, size - sent, MSG_NOSIGNAL);
        if (more > 0) sent += more;
        else if (errno != EAGAIN) return -1;
        else usleep(100);
    }
    return 1;
}

static int put_chunk(Peer *p) {
    char data[512], framed[600];
    int size;
    if (p->left > 1)
        size = sprintf(data,
                       "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1,"
                       "\"model\":\"m1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"token\"},"
                       "\"finish_reason\":null}],\"at\":%020llu}\n\n",
                       (unsigned long long)now_ns());
    else
        size = sprintf(data,
                       "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1,"
                       "\"model\":\"m1\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,"
                       "\"completion_tokens\":20,\"total_tokens\":30}}\n\ndata: [DONE]\n\n");
    size = sprintf(framed, "%x\r\n%s\r\n%s", size, data, p->left > 1 ? "" : "0\r\n\r\n");
    int done = put(p, framed, size);
    if (done > 0) p->left--;
    return done;
}

// Send what is due; -1 when the peer is gone.
static int pump(Peer *p, uint64_t now) {
    while (p->left > 0 && p->due_ns <= now) {
        int done = put_chunk(p);
        if (done < 0) return -1;
        if (done == 0) {
            if (!p->blocked) watch(p, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            p->blocked = 1;
            return 0;
        }
        p->due_ns += (uint64_t)p->every_ms * 1000000u;
    }
    return 0;
}

static int number_after(const char *text, const char *key, int otherwise) {
    const char *at = strstr(text, key);
    return at ? atoi(at + strlen(key)) : otherwise;
}

static int answer(Peer *p, char *body) {
    if (!strstr(body, "\"stream\":true") && !strstr(body, "\"stream\": true"))
        return put(p, json, json_size) > 0 ? 0 : -1;
    static const char head[] =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    p->left = number_after(body, "\"chunks\":", 20);
    p->every_ms = number_after(body, "\"every_ms\":", 0);
    p->due_ns = now_ns();
    if (put(p, head, sizeof head - 1) < 0) return -1;
    if (!p->listed) {
        p->next = streams;
        streams = p;
        p->listed = 1;
    }
    return pump(p, p->due_ns);
}

static int receive(Peer *p) {
    int got = recv(p->fd, p->inbox + p->used, INBOX - 1 - p->used, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return -1;
    if (got > 0) p->used += got;
    for (;;) {
        p->inbox[p->used] = 0;
        char *end = strstr(p->inbox, "\r\n\r\n");
        if (!end) return p->used < INBOX - 1 ? 0 : -1;
        *end = 0;
        char *length = strcasestr(p->inbox, "content-length:");
        char *chunked = strcasestr(p->inbox, "transfer-encoding: chunked");
        *end = '\r';
        char *body = end + 4, *last;
        if (chunked) {
            last = strstr(body, "0\r\n\r\n");
            if (!last) return 0;
            last += 5;
        } else {
            last = body + (length ? atoi(length + 15) : 0);
            if (last > p->inbox + p->used) return 0;
        }
        char kept = *last;
        *last = 0;
        if (answer(p, body) < 0) return -1;
        *last = kept;
        p->used -= last - p->inbox;
        memmove(p->inbox, last, p->used);
    }
}

static void accept_all(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        Peer *p = malloc(sizeof *p);
        memset(p, 0, offsetof(Peer, inbox));
        p->fd = fd;
        watch(p, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void listen_on(int port) {
    Peer *p = calloc(1, sizeof *p);
    struct sockaddr_in where = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    p->listens = 1;
    setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(p->fd, (void *)&where, sizeof where) || listen(p->fd, 4096)) {
        perror("engine");
        exit(1);
    }
    watch(p, EPOLLIN, EPOLL_CTL_ADD);
}

static void read_ports(void) {
    char line[4096];
    int size = read(0, line, sizeof line - 1);
    line[size > 0 ? size : 0] = 0;
    for (char *at = strtok(line, "\n"); at; at = strtok(0, "\n")) listen_on(atoi(at));
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    char content[] =
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m1\",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"A short answer, about as long as people get when they ask a "
        "small model a small question, and padded a little so that the whole object has the size that a short chat "
        "completion usually has on the wire.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
        "\"prompt_tokens\":10,\"completion_tokens\":20,\"total_tokens\":30}}";
    json_size = sprintf(json, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                        strlen(content), content);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(0);
    for (int i = 1; i < argc; i++) {
        struct epoll_event asked = {.events = EPOLLIN, .data.ptr = 0};
        if (strcmp(argv[i], "-")) listen_on(atoi(argv[i]));
        else epoll_ctl(poller, EPOLL_CTL_ADD, 0, &asked);
    }
    static struct epoll_event events[512];
    uint64_t ticked = 0;
    for (;;) {
        int count = epoll_wait(poller, events, 512, streams ? 1 : -1);
        for (int i = 0; i < count; i++) {
            Peer *p = events[i].data.ptr;
            if (!p) {
                read_ports();
                continue;
            }
            if (p->listens) {
                accept_all(p->fd);
                continue;
            }
            int gone = 0;
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) gone = receive(p) < 0;
            if (!gone && (events[i].events & EPOLLOUT)) {
                p->blocked = 0;
                watch(p, EPOLLIN, EPOLL_CTL_MOD);
                gone = pump(p, now_ns()) < 0;
            }
            if (gone) drop(p);
        }
        uint64_t now = now_ns();
        if (!streams || now - ticked < 1000000u) continue;
        ticked = now;
        for (Peer **at = &streams; *at;) {
            Peer *p = *at;
            if (p->left > 0 && !p->blocked && pump(p, now) < 0) {
                *at = p->next;
                p->listed = 0;
                shutdown(p->fd, SHUT_RDWR);  // epoll reports it; drop() frees it
                p->left = 0;
            } else if (p->left <= 0) {
                *at = p->next;
                p->listed = 0;
            } else {
                at = &p->next;
            }
        }
    }
}
