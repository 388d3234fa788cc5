/* loop.h - the event loop: its structure and what the layers above may do.
 *
 * Threading: everything here is called with the GIL held, by the thread that
 * runs the loop, except where said otherwise.
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_LOOP_H
#define HL_LOOP_LOOP_H

#include "base/ring.h"
#include "base/timers.h"
#include "loop/counts.h"
#include "state/state.h"

/* Dead objects of one size kept for the next allocation. */
#define HL_FREELIST_MAX 1024
typedef struct {
    PyObject *items[HL_FREELIST_MAX];
    int count;
} hl_freelist;

/* A transport's request to be called once before the next poll. */
typedef struct {
    PyObject *obj; /* owned */
    hl_run_fn run;
} hl_flush_item;

typedef struct {
    hl_watcher *watcher;
    int events;
} hl_poll_event;

/* What one source may do before others have their turn; each at least 1. */
typedef struct {
    int accepts;    /* connections, of a listener in one turn */
    int datagrams;  /* handed over, of a transport in one turn */
    int operations; /* of sock_recv() and its like that did not have to wait,
                     * between two polls */
} hl_budget;

struct hl_loop {
    PyObject_HEAD
    hl_state *st;     /* of the module below */
    PyObject *module; /* owned until dealloc: st outlives the loop */
    uv_loop_t uv;
    uv_poll_t wake;   /* keeps uv_run() blocking, and ends the block */
    int wake_fds[2];  /* read and write end; on Linux one eventfd */
    uv_timer_t timer; /* ends a block at the next deadline */
    hl_ring ready;
    hl_ring urgent; /* of high priority: see below */
    hl_ring *into;  /* one of the two: where what is queued now goes */
    hl_timers timers;
    size_t timers_cancelled; /* cancelled ones still among them */
    hl_counts counts;

    bool uv_open; /* uv handles are initialised */
    bool closed;
    bool stopping;
    bool debug;
    bool observed;   /* entries are run by observe.c: hl_loop_observe() */
    bool running;    /* inside a run: a wake-up may be needed */
    bool parked;     /* blocked in the poller without the GIL */
    bool waking;     /* a wake-up is on its way; not sent twice */
    bool must_poll;  /* the next turn may not skip its poll */
    bool uv_changed; /* libuv has interest that the kernel does not know */
    bool call_soon_overridden; /* by a Python subclass or on the instance */
    bool call_at_overridden;
    bool time_overridden;
    bool connect_overridden; /* sock_connect() */
    unsigned replaced;       /* as the run found it: hl_loop_replaced() */
    bool handles_signals;    /* add_signal_handler() was called */
    bool poll_sees_signals;  /* block so that EINTR is noticed: signals do not
                             * reach the self-pipe */
    bool has_urgent;         /* somebody asked for a high priority: for good */
    bool time_held; /* waiting does not bring deadlines nearer: held_wait */

    struct hl_insight *insight; /* owned: insight.h; NULL: nobody asked */
    struct hl_watch *watch;     /* owned: watchdog.h; NULL: none */
    int64_t created;            /* clock at its making, ns */

    int fork_error; /* libuv status: this process has no poller of its own */
    unsigned turns_unpolled;
    hl_budget budget;
    int operations_left; /* of the budget, until the next poll */
    int64_t last_poll;   /* clock at the last poll, ns */
    int64_t next_exact;  /* clock before which no exact wait ends, ns */
    int64_t held_wait;   /* of an idle turn, ns as for hl_loop_poll() */

    PyObject *thread_id;    /* ident of the running thread, NULL if none */
    PyObject *task_factory; /* NULL is the default */
    PyObject *slow_callback_duration; /* seconds; any number */
    PyObject *entered_task;    /* owned, as by asyncio's register: the current
                             * task, left lazily; NULL if none is entered */
    PyObject *entered_context; /* owned: left lazily as well */
    PyObject *blank;           /* owned: the context of those that hold the
                                * marker, empty; NULL until needed */
    PyObject *blank_owner;     /* borrowed: the one that runs in it now */

    hl_watcher **watchers; /* by descriptor; NULL where none */
    int watchers_size;
    int watching;          /* how many of them want events */
    int watching_internal; /* the loop's own among those */
    bool stale; /* the poller holds a file that is closed here: remake it */
    hl_watcher **dirty; /* to be (re)armed before the next poll */
    int dirty_count;
    int dirty_size;
    hl_poll_event *events; /* gathered by one poll, no GIL needed */
    int events_count;
    int events_size;

    hl_flush_item *flush;
    int flush_count;
    int flush_size;

    char *read_buffer; /* one for all transports; allocated at first use */
    char *buffers[4];  /* lent out and taken back: hl_loop_lend_buffer() */
    int buffers_count;

    hl_freelist free_handles;
    hl_freelist free_timers;
    hl_freelist free_threadsafe;
    hl_freelist free_futures;
    hl_freelist free_tasks;
};

#define HL_READ_BUFFER_SIZE (256 * 1024)

/* The whole of the buffer.  A batch of datagrams has room to lie side by side;
 * pages that nothing was ever received into are not real memory. */
#define HL_READ_BUFFER_ROOM (64 * (64 * 1024 + 2048))

static inline hl_state *
hl_loop_state(const hl_loop *loop)
{
    return loop->st;
}

/* Is op a loop of ours (or of a Python subclass)? */
static inline bool
hl_loop_check(hl_state *st, PyObject *op)
{
    /* Nothing but a loop inherits this function; a subclass that replaces it
     * is known by its bases. */
    return Py_TYPE(op)->tp_setattro == st->Loop_type->tp_setattro ||
           PyObject_TypeCheck(op, st->Loop_type);
}

/* Which classes has the program put where asyncio's loops look them up, as
 * asyncio.tasks.Task and asyncio.futures.Future?  create_task() and
 * create_future() then make these.  A run sees what was there at its start. */
#define HL_REPLACED_TASK 1u
#define HL_REPLACED_FUTURE 2u
#define HL_REPLACED_RUN 4u /* Handle._run(), as tools do that time callbacks */
unsigned hl_loop_find_replaced(hl_loop *loop);

static inline unsigned
hl_loop_replaced(hl_loop *loop)
{
    return loop->running ? loop->replaced : hl_loop_find_replaced(loop);
}

/* 0, or -1 with RuntimeError('Event loop is closed'). */
int hl_loop_check_closed(hl_loop *loop);

/* The loop's clock: CLOCK_MONOTONIC in ns; in seconds as time.monotonic()
 * gives it. */
int64_t hl_loop_now_ns(void);
double hl_loop_now(void);

/* Priority.  What is urgent has a queue of its own, which is looked at before
 * each entry of the ready queue.  Urgency is handed on: what an urgent entry
 * queues is urgent, and so is what waits in its name, which remembers it (a
 * timer by its mark, a watcher, a task, a WorkItem). */
static inline bool
hl_loop_is_urgent(const hl_loop *loop)
{
    return loop->into != &loop->ready;
}

static inline hl_ring *
hl_loop_ring(hl_loop *loop, bool urgent)
{
    return HL_UNLIKELY(urgent) ? &loop->urgent : &loop->ready;
}

/* Has what is queued go into the queue; returns where it went before. */
static inline hl_ring *
hl_loop_switch_ring(hl_loop *loop, hl_ring *ring)
{
    hl_ring *before = loop->into;
    loop->into = ring;
    return before;
}

/* How many entries have left the two queues, to run as a rule, and how many
 * are in them. */
static inline size_t
hl_loop_entries_run(const hl_loop *loop)
{
    return loop->ready.head + loop->urgent.head;
}

static inline size_t
hl_loop_entries_ready(const hl_loop *loop)
{
    return hl_ring_count(&loop->ready) + hl_ring_count(&loop->urgent);
}

/* Queues obj for the end of the queue.  Steals obj, also on failure.  0, or -1
 * with MemoryError. */
static inline int
hl_loop_push(hl_loop *loop, PyObject *obj, hl_run_fn run)
{
    return hl_ring_push(loop->into, obj, run, HL_ENTRY_OTHER);
}

/* The same for a task: its run function calls hl_loop_enter_owner() and
 * hl_loop_enter_task(). */
static inline int
hl_loop_push_task(hl_loop *loop, PyObject *task, hl_run_fn run, bool urgent)
{
    return hl_ring_push(hl_loop_ring(loop, urgent), task, run, HL_ENTRY_TASK);
}

/* The same for an instance of asyncio.Handle, run by hl_handle_run(). */
static inline int
hl_loop_push_handle(hl_loop *loop, PyObject *handle, hl_run_fn run)
{
    return hl_ring_push(loop->into, handle, run, HL_ENTRY_HANDLE);
}

/* The same from any thread, which interrupts an urgent callback perhaps. */
static inline int
hl_loop_push_from_thread(hl_loop *loop, PyObject *handle, hl_run_fn run,
                         bool urgent)
{
    return hl_ring_push(hl_loop_ring(loop, urgent), handle, run,
                        HL_ENTRY_HANDLE);
}

/* May tasks, futures and transports queue themselves without a Handle?  No in
 * debug mode (handles carry origins and are timed) and when a subclass
 * overrides call_soon(). */
static inline bool
hl_loop_is_direct(const hl_loop *loop)
{
    return !loop->debug && !loop->call_soon_overridden && !loop->closed &&
           !(loop->replaced & HL_REPLACED_RUN);
}

/* loop.call_soon(callback, *args, context=context) for any loop object, ours
 * or foreign, with debug checks and overrides honoured.  args is a tuple;
 * context may be NULL (copy of the current one).  New reference to the handle,
 * or NULL. */
PyObject *hl_call_soon(hl_state *st, PyObject *loop, PyObject *callback,
                       PyObject *args, PyObject *context);

/* loop.call_soon(callback, arg, context=context), result dropped.  0 or -1. */
int hl_call_soon_one(hl_state *st, PyObject *loop, PyObject *callback,
                     PyObject *arg, PyObject *context);

/* Has obj run (once per request) when this turn's callbacks are done, before
 * the next poll, and when the run ends.  Takes a new reference.  While the
 * loop is not running nothing would call it: then returns 1 without storing,
 * and the caller acts at once.  0 if stored, -1 with MemoryError. */
int hl_loop_defer_flush(hl_loop *loop, PyObject *obj, hl_run_fn run);

/* The shared read buffer, HL_READ_BUFFER_ROOM bytes; NULL with MemoryError.
 * Contents are anybody's as soon as Python code runs. */
char *hl_loop_read_buffer(hl_loop *loop);

/* Memory of HL_BUFFER_SIZE bytes that is the borrower's alone until it is
 * taken back, whatever runs in between; NULL with MemoryError.  buffer may be
 * NULL when it comes back. */
#define HL_BUFFER_SIZE (264 * 1024)
char *hl_loop_lend_buffer(hl_loop *loop);
void hl_loop_take_back_buffer(hl_loop *loop, char *buffer);
void hl_loop_free_buffers(hl_loop *loop);

/* current.c: the functions of asyncio's register of current tasks, for any
 * loop object.  swap (not on 3.11) makes task current (NULL: none) and hands
 * out the previous one as a new reference in *prev (NULL: none).  0 or -1. */
int hl_register_enter(hl_state *st, PyObject *loop, PyObject *task);
int hl_register_leave(hl_state *st, PyObject *loop, PyObject *task);
int hl_register_swap(hl_state *st, PyObject *loop, PyObject *task,
                     PyObject **prev);

/* The current task of a loop of ours.  enter replaces whatever task of this
 * loop is entered, and hands that one out as a new reference in *left (NULL:
 * none) for the caller to release when Python code may run (-1 with the
 * RuntimeError of asyncio if the task cannot be entered).  Leaving is lazy:
 * the loop calls leave_current before a handle runs in the blank context, and
 * leave_task, which leaves the entered context too, before anything else that
 * is not a task. */
int hl_loop_replace_task(hl_loop *loop, PyObject *task, PyObject **left);
static inline int
hl_loop_enter_task(hl_loop *loop, PyObject *task, PyObject **left)
{
    *left = NULL;
    return loop->entered_task == task ? 0
                                      : hl_loop_replace_task(loop, task, left);
}
int hl_loop_leave_current(hl_loop *loop);
int hl_loop_leave_task(hl_loop *loop);

/* An eager step between: swap_task makes its task the current one, swap_back
 * puts back what was before, which runs Python code perhaps.  0 or -1. */
typedef struct {
    PyObject *task;    /* owned: was current, NULL if none */
    PyObject *entered; /* owned: the loop was to leave this one */
} hl_swapped;
int hl_loop_swap_task(hl_loop *loop, PyObject *task, hl_swapped *before);
int hl_loop_swap_back(hl_loop *loop, hl_swapped *before);

/* context.c.  capture is contextvars.copy_context(), or the marker
 * st->blank_context in the place of an empty copy: new reference or NULL.
 * The marker is never entered nor shown; claim replaces it in *slot, which
 * belongs to owner, by a context.  loop, NULL if there is none of ours, is
 * where the owner runs.  0 or -1. */
PyObject *hl_context_capture(hl_state *st);
int hl_context_find_layout(hl_state *st); /* at import; 0 or -1 */
int hl_context_claim(hl_state *st, hl_loop *loop, PyObject *owner,
                     PyObject **slot);

/* enter_context has context stay entered, in the place of what was; leave ends
 * that.  enter_owner enters the one that *slot stands for, a marker perhaps,
 * and settle_owner must follow when owner has run: it may fill *slot.  Neither
 * runs Python.  0 or -1. */
int hl_loop_enter_context(hl_loop *loop, PyObject *context);
int hl_loop_leave_context(hl_loop *loop);
int hl_loop_enter_owner(hl_loop *loop, PyObject *owner, PyObject **slot);
void hl_loop_settle_owner(hl_loop *loop, PyObject **slot);

/* A turn inside of a callback begins with nothing entered, and leaves the
 * callback as it found it. */
typedef struct {
    PyObject *task, *context, *blank, *blank_owner;
} hl_entered;
void hl_loop_set_aside(hl_loop *loop, hl_entered *entered);
void hl_loop_take_back(hl_loop *loop, const hl_entered *entered);

/* schedule.c: what call_soon(), call_at() and call_later() do once their
 * arguments are known.  args is a tuple, context may be NULL.  New reference
 * or NULL. */
PyObject *hl_loop_call_soon(hl_loop *loop, PyObject *callback, PyObject *args,
                            PyObject *context);
PyObject *hl_loop_call_at(hl_loop *loop, double when, PyObject *callback,
                          PyObject *args, PyObject *context);

/* loop.time() in seconds, an override honoured.  -1.0 with an exception set on
 * failure (PyErr_Occurred() tells). */
double hl_loop_time(hl_loop *loop);

/* A timer of this loop was cancelled. */
void hl_loop_timer_cancelled(hl_loop *loop, PyObject *timer);

/* In debug mode: the checks of BaseEventLoop._check_thread() (unless method is
 * the thread-safe one) and _check_callback().  0 or -1. */
int hl_loop_check_call(hl_loop *loop, PyObject *callback, const char *method,
                       bool same_thread);

/* run.c: turns until stopping, or one (once), perhaps inside of another's
 * callback; the deferred flushes.  0, or -1 with the exception that ended
 * it. */
int hl_loop_run(hl_loop *loop, bool once);

/* One turn of a loop whose clock is not the machine's: deadlines do not end
 * its wait, which is at most wait ns (as for hl_loop_poll()) if nothing is
 * ready.  *done says what happened. */
#define HL_TURN_RAN 1u   /* something was ready, and ran */
#define HL_TURN_MOVED 2u /* that may have made a descriptor ready */
int hl_loop_run_held(hl_loop *loop, int64_t wait, unsigned *done);
int hl_loop_run_flushes(hl_loop *loop);

/* Finds out anew whether entries are to be observed: after a change of debug
 * mode, profile or watchdog. */
void hl_loop_observe(hl_loop *loop);

/* Drops every queued callback, timer and flush (loop.close(), GC). */
void hl_loop_drop_queues(hl_loop *loop);

/* poll.c: opens and closes the uv side.  hl_loop_open_uv(): 0, or -1 with
 * OSError. */
int hl_loop_open_uv(hl_loop *loop);
void hl_loop_close_uv(hl_loop *loop);

/* Does this interpreter have threads that may want to run Python? */
bool hl_loop_has_other_threads(void);

/* Polls for at most timeout ns (-1: for ever; 0: no wait) and queues what is
 * ready.  May return early.  0 or -1. */
int hl_loop_poll(hl_loop *loop, int64_t timeout);

/* Around os.fork().  Before: if this thread runs the loop, written data that
 * waits for the end of the turn leaves now, and once; 0, or -1 with an
 * exception.  In the child: gives the loop a poller and a wake-up of its own,
 * so that the parent's are left alone whatever is done with the loop. */
int hl_loop_before_fork(hl_loop *loop);
void hl_loop_after_fork(hl_loop *loop);

/* Ends a block in the poller.  From any thread, GIL held. */
void hl_loop_wake(hl_loop *loop);

/* Free lists.  get returns a dead object (refcount 0, type unset) for
 * PyObject_Init(), or NULL; put takes one whose storage may be kept, and
 * returns false if the list is full or the loop closed: then free it. */
static inline PyObject *
hl_freelist_get(hl_freelist *list)
{
    return list->count > 0 ? list->items[--list->count] : NULL;
}

static inline bool
hl_freelist_put(hl_loop *loop, hl_freelist *list, PyObject *op)
{
    if (list->count == HL_FREELIST_MAX || loop->closed) {
        return false;
    }
    list->items[list->count++] = op;
    return true;
}

#endif
