/* faults.c - system calls that fail, stop short or are interrupted.
 *
 * Preloaded into a process.  Rules say which calls shall fail how, and how often;
 * without rules every call is the C library's own.  The choice is made with a
 * generator of its own, so that a seed gives the same run again as long as the
 * calls are the same.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_RULES 64
#define SHORT_IO -1 /* in place of an errno: less is moved than asked for */
#define MAX_PIECES 64

/* Groups of calls, by what they are to a program; names in faults.py. */
enum {
    CALL_ACCEPT,
    CALL_CONNECT,
    CALL_RECEIVE, /* of sockets and pipes */
    CALL_SEND,
    CALL_SENDFILE,
    CALL_WAIT,
    CALL_WATCH, /* epoll_ctl(ADD) */
    CALL_SOCKET,
    CALL_EVENTFD,
    CALL_EPOLL,
    CALL_PIPE,
    CALL_SOCKOPT,
    CALL_COUNT
};

typedef struct {
    int call;
    int error;    /* or SHORT_IO */
    int permille; /* of the calls that it may hit */
    long skip;    /* calls that pass before */
    long times;   /* that it hits; -1: for ever */
} rule;

static rule rules[MAX_RULES];
static int rule_count;
static long hits[CALL_COUNT];
static uint64_t state = 1;
static int64_t wall_offset; /* seconds that the wall clock is off by */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name)                                                         \
    ({                                                                     \
        static __typeof__(&name) found;                                    \
        if (found == NULL) {                                               \
            found = (__typeof__(&name))dlsym(RTLD_NEXT, #name);            \
        }                                                                  \
        found;                                                             \
    })

static uint64_t
next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

void
faults_clear(unsigned long seed)
{
    rule_count = 0;
    state = seed * 2654435761UL + 88172645463325252UL;
    wall_offset = 0;
    for (int i = 0; i < CALL_COUNT; i++) {
        hits[i] = 0;
    }
}

int
faults_add(int call, int error, int permille, long skip, long times)
{
    if (call < 0 || call >= CALL_COUNT || rule_count == MAX_RULES) {
        return -1;
    }
    rules[rule_count] = (rule){call, error, permille, skip, times};
    __atomic_store_n(&rule_count, rule_count + 1, __ATOMIC_RELEASE);
    return 0;
}

/* How often calls of this group were hit. */
long
faults_hits(int call)
{
    return hits[call];
}

void
faults_wall_clock(long seconds)
{
    wall_offset = seconds;
}

/* What happens to this call: 0, an errno or SHORT_IO. */
static int
fate(int call, int may_be_short)
{
    if (__atomic_load_n(&rule_count, __ATOMIC_ACQUIRE) == 0) {
        return 0;
    }
    int error = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < rule_count && error == 0; i++) {
        rule *one = &rules[i];
        if (one->call != call || one->times == 0 ||
            (one->error == SHORT_IO && !may_be_short)) {
            continue;
        }
        if (one->skip > 0) {
            one->skip--;
        }
        else if ((int)(next_random() % 1000) < one->permille) {
            one->times -= one->times > 0;
            error = one->error;
            hits[call]++;
        }
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* A size between 1 and what was asked for. */
static size_t
shorter(size_t size)
{
    pthread_mutex_lock(&lock);
    size_t less = size > 1 ? 1 + next_random() % (size - 1) : size;
    pthread_mutex_unlock(&lock);
    return less;
}

static int
is_stream(int fd)
{
    int type = 0;
    socklen_t size = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
           type == SOCK_STREAM;
}

/* The rules of reading and writing are for sockets, pipes and terminals that
 * do not block: not for files, nor for the channel a test reports on. */
static int
is_of_a_loop(int fd)
{
    struct stat info;
    int saved = errno;
    int flags = REAL(fcntl)(fd, F_GETFL);
    int found = flags >= 0 && (flags & O_NONBLOCK) && fstat(fd, &info) == 0 &&
                (S_ISSOCK(info.st_mode) || S_ISFIFO(info.st_mode));
    errno = saved;
    return found;
}

/* A single byte may be a wake-up, which nobody sends again. */
static int
may_fail(int fd, size_t size)
{
    return rule_count > 0 && size > 1 && is_of_a_loop(fd);
}

/* Fails the calling function, or sets `cut` if it shall move less. */
#define FAIL_OR_CUT(call, fd, size, cut)                                   \
    int cut = 0;                                                           \
    if (may_fail(fd, size)) {                                              \
        int error_ = fate(call, is_stream(fd));                            \
        if (error_ > 0) {                                                  \
            errno = error_;                                                \
            return -1;                                                     \
        }                                                                  \
        cut = error_ == SHORT_IO;                                          \
    }

#define FAIL(call)                                                         \
    {                                                                      \
        int error_ = fate(call, 0);                                        \
        if (error_ > 0) {                                                  \
            errno = error_;                                                \
            return -1;                                                     \
        }                                                                  \
    }

ssize_t
recv(int fd, void *data, size_t size, int flags)
{
    FAIL_OR_CUT(CALL_RECEIVE, fd, size, cut)
    return REAL(recv)(fd, data, cut ? shorter(size) : size, flags);
}

ssize_t
recvfrom(int fd, void *data, size_t size, int flags,
         struct sockaddr *restrict from, socklen_t *restrict length)
{
    FAIL_OR_CUT(CALL_RECEIVE, fd, size, cut)
    return REAL(recvfrom)(fd, data, cut ? shorter(size) : size, flags, from,
                          length);
}

ssize_t
read(int fd, void *data, size_t size)
{
    FAIL_OR_CUT(CALL_RECEIVE, fd, size, cut)
    return REAL(read)(fd, data, cut ? shorter(size) : size);
}

ssize_t
recvmsg(int fd, struct msghdr *message, int flags)
{
    FAIL_OR_CUT(CALL_RECEIVE, fd, 2, cut)
    (void)cut;
    return REAL(recvmsg)(fd, message, flags);
}

int
recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags,
         struct timespec *timeout)
{
    FAIL_OR_CUT(CALL_RECEIVE, fd, 2, cut)
    (void)cut;
    return REAL(recvmmsg)(fd, messages, count, flags, timeout);
}

ssize_t
send(int fd, const void *data, size_t size, int flags)
{
    FAIL_OR_CUT(CALL_SEND, fd, size, cut)
    return REAL(send)(fd, data, cut ? shorter(size) : size, flags);
}

ssize_t
sendto(int fd, const void *data, size_t size, int flags,
       const struct sockaddr *to, socklen_t length)
{
    FAIL_OR_CUT(CALL_SEND, fd, size, cut)
    return REAL(sendto)(fd, data, cut ? shorter(size) : size, flags, to,
                        length);
}

ssize_t
write(int fd, const void *data, size_t size)
{
    FAIL_OR_CUT(CALL_SEND, fd, size, cut)
    return REAL(write)(fd, data, cut ? shorter(size) : size);
}

/* The first part of some pieces. */
static int
cut_pieces(struct iovec *to, const struct iovec *from, int count)
{
    size_t total = 0;
    count = count < MAX_PIECES ? count : MAX_PIECES;
    for (int i = 0; i < count; i++) {
        total += from[i].iov_len;
    }
    size_t left = shorter(total);
    int used = 0;
    while (used < count && left > 0) {
        to[used] = from[used];
        to[used].iov_len = left < to[used].iov_len ? left : to[used].iov_len;
        left -= to[used++].iov_len;
    }
    return used;
}

ssize_t
writev(int fd, const struct iovec *pieces, int count)
{
    struct iovec fewer[MAX_PIECES];
    FAIL_OR_CUT(CALL_SEND, fd, 2, cut)
    if (cut && (count = cut_pieces(fewer, pieces, count)) > 0) {
        pieces = fewer;
    }
    return REAL(writev)(fd, pieces, count);
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec fewer[MAX_PIECES];
    struct msghdr part = *message;
    FAIL_OR_CUT(CALL_SEND, fd, 2, cut)
    if (cut && part.msg_iovlen > 0) {
        part.msg_iovlen = (size_t)cut_pieces(fewer, message->msg_iov,
                                             (int)message->msg_iovlen);
        part.msg_iov = fewer;
    }
    return REAL(sendmsg)(fd, &part, flags);
}

int
sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
    FAIL_OR_CUT(CALL_SEND, fd, 2, cut)
    (void)cut;
    return REAL(sendmmsg)(fd, messages, count, flags);
}

ssize_t
sendfile(int to, int from, off_t *offset, size_t size)
{
    FAIL_OR_CUT(CALL_SENDFILE, to, size, cut)
    return REAL(sendfile)(to, from, offset, cut ? shorter(size) : size);
}

ssize_t
sendfile64(int to, int from, off64_t *offset, size_t size)
{
    FAIL_OR_CUT(CALL_SENDFILE, to, size, cut)
    return REAL(sendfile64)(to, from, offset, cut ? shorter(size) : size);
}

int
accept4(int fd, struct sockaddr *restrict from, socklen_t *restrict length,
        int flags)
{
    FAIL(CALL_ACCEPT)
    return REAL(accept4)(fd, from, length, flags);
}

int
accept(int fd, struct sockaddr *restrict from, socklen_t *restrict length)
{
    FAIL(CALL_ACCEPT)
    return REAL(accept)(fd, from, length);
}

/* An interrupted connect() goes on by itself: it is not undone. */
int
connect(int fd, const struct sockaddr *to, socklen_t length)
{
    int error = fate(CALL_CONNECT, 0);
    if (error == EINTR) {
        if (REAL(connect)(fd, to, length) < 0 && errno != EINPROGRESS) {
            return -1;
        }
    }
    if (error > 0) {
        errno = error;
        return -1;
    }
    return REAL(connect)(fd, to, length);
}

int
socket(int family, int type, int protocol)
{
    FAIL(CALL_SOCKET)
    return REAL(socket)(family, type, protocol);
}

int
socketpair(int family, int type, int protocol, int fds[2])
{
    FAIL(CALL_SOCKET)
    return REAL(socketpair)(family, type, protocol, fds);
}

int
eventfd(unsigned int value, int flags)
{
    FAIL(CALL_EVENTFD)
    return REAL(eventfd)(value, flags);
}

int
epoll_create1(int flags)
{
    FAIL(CALL_EPOLL)
    return REAL(epoll_create1)(flags);
}

int
pipe2(int fds[2], int flags)
{
    FAIL(CALL_PIPE)
    return REAL(pipe2)(fds, flags);
}

int
epoll_ctl(int poller, int operation, int fd, struct epoll_event *event)
{
    if (operation == EPOLL_CTL_ADD) {
        FAIL(CALL_WATCH)
    }
    return REAL(epoll_ctl)(poller, operation, fd, event);
}

int
setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    FAIL(CALL_SOCKOPT)
    return REAL(setsockopt)(fd, level, name, value, length);
}

int
epoll_pwait(int poller, struct epoll_event *events, int count, int timeout,
            const sigset_t *mask)
{
    FAIL(CALL_WAIT)
    return REAL(epoll_pwait)(poller, events, count, timeout, mask);
}

int
epoll_wait(int poller, struct epoll_event *events, int count, int timeout)
{
    FAIL(CALL_WAIT)
    return REAL(epoll_wait)(poller, events, count, timeout);
}

int
ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
      const sigset_t *mask)
{
    FAIL(CALL_WAIT)
    return REAL(ppoll)(fds, count, timeout, mask);
}

int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
    FAIL(CALL_WAIT)
    return REAL(poll)(fds, count, timeout);
}

int
clock_gettime(clockid_t which, struct timespec *now)
{
    int rv = REAL(clock_gettime)(which, now);
    if (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) {
        now->tv_sec += wall_offset;
    }
    return rv;
}
