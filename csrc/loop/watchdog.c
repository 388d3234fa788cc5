/* watchdog.c - a thread that notices callbacks which block the loop.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/watchdog.h"

#include "state/errors.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#ifdef __linux__
#    include <sys/prctl.h>
#endif

#define NS_PER_S 1000000000LL

/* How often the pulse is looked at: so many times within the limit, but not
 * more often than that, nor less. */
#define LOOKS 4
#define LOOK_MIN_NS 1000000
#define LOOK_MAX_NS NS_PER_S

/* So long after the limit a report that still waits for the GIL is announced,
 * or as long as the limit again. */
#define ANNOUNCE_MIN_NS NS_PER_S

/* What the watchdog's threads have in common with those that have the GIL.
 * Freed by whoever lets go of it last. */
struct hl_watch_threads {
    hl_watch *watch; /* freed with this */
    atomic_int holders;
    PyInterpreterState *interp;
    int64_t limit;
    int errors;     /* owned descriptor or -1 */
    sigset_t mask;  /* of threads that run Python */
    uv_thread_t id; /* of the one that looks */
    uv_mutex_t lock;
    uv_cond_t changed;
    bool stop;         /* with the lock */
    int reporting;     /* reports that have begun and not ended: lock */
    atomic_bool waits; /* the last one for the GIL */
};

typedef struct hl_watch_threads watch_threads;

/* One report on its way. */
typedef struct {
    watch_threads *threads; /* held */
    uint64_t pulse;
} watch_report;

static void
let_go(watch_threads *threads)
{
    if (atomic_fetch_sub(&threads->holders, 1) == 1) {
        uv_cond_destroy(&threads->changed);
        uv_mutex_destroy(&threads->lock);
        if (threads->errors >= 0) {
            close(threads->errors);
        }
        PyMem_RawFree(threads->watch);
        PyMem_RawFree(threads);
    }
}

/* ---- reports, with the GIL ---- */

/* The Python frame of the thread that runs the loop: new reference, or NULL
 * without an exception. */
static PyObject *
loop_frame(hl_loop *loop)
{
    PyObject *current = PySys_GetObject("_current_frames");
    PyObject *frames = current == NULL || loop->thread_id == NULL
                           ? NULL
                           : PyObject_CallNoArgs(current);
    PyObject *frame = frames == NULL
                          ? NULL
                          : PyDict_GetItemWithError(frames, loop->thread_id);
    Py_XINCREF(frame);
    Py_XDECREF(frames);
    PyErr_Clear();
    return frame;
}

static int
call_reporter(hl_watch *watch, PyObject *frame, const hl_entry *entry,
              double gil_wait)
{
    int64_t since = atomic_load_explicit(&watch->since, memory_order_relaxed);
    double seconds = (double)(hl_loop_now_ns() - since) / 1e9;
    PyObject *reporter = Py_NewRef(watch->reporter);
    PyObject *obj = entry->obj == NULL ? Py_None : entry->obj;
    PyObject *is_handle = entry->obj != NULL && entry->kind == HL_ENTRY_HANDLE
                              ? Py_True
                              : Py_False;
    watch->loop->counts.blocked++;
    PyObject *res = PyObject_CallFunction(
        reporter, "OOOOddO", watch->loop, frame == NULL ? Py_None : frame, obj,
        is_handle, seconds, gil_wait, frame == NULL ? Py_True : Py_False);
    Py_XDECREF(res);
    Py_DECREF(reporter);
    return res == NULL ? -1 : 0;
}

int
hl_watch_report_ended(hl_watch *watch, uint64_t pulse, const hl_entry *entry)
{
    if (watch->reported == pulse || watch->loop == NULL) {
        return 0;
    }
    watch->reported = pulse;
    if (call_reporter(watch, NULL, entry, 0.0) == 0) {
        return 0;
    }
    if (hl_error_is_exit()) {
        return -1;
    }
    PyErr_WriteUnraisable(watch->reporter);
    return 0;
}

/* From the thread of a report. */
static void
report_blocked(hl_watch *watch, uint64_t pulse, double gil_wait)
{
    hl_loop *loop = watch->loop;
    if (loop == NULL || watch->reported == pulse) {
        return; /* stopped, or the loop's thread came first */
    }
    Py_INCREF(loop);
    hl_entry entry = {NULL, NULL, HL_ENTRY_OTHER};
    if (watch->entry != NULL) {
        entry = *watch->entry;
    }
    Py_XINCREF(entry.obj);
    PyObject *frame = loop_frame(loop);
    /* Nothing since then gave the GIL away, but for the collector. */
    if (frame != NULL && watch->loop != NULL && watch->reported != pulse &&
        atomic_load_explicit(&watch->pulse, memory_order_relaxed) == pulse) {
        watch->reported = pulse;
        if (call_reporter(watch, frame, &entry, gil_wait) < 0) {
            PyErr_WriteUnraisable(watch->reporter);
        }
    }
    Py_XDECREF(frame);
    Py_XDECREF(entry.obj);
    Py_DECREF(loop);
}

/* ---- the thread of a report ---- */

/* A thread state, unless the interpreter may be gone: it waits for the lock
 * before it ends. */
static PyThreadState *
report_attach(watch_threads *threads)
{
    uv_mutex_lock(&threads->lock);
    PyThreadState *tstate =
        threads->stop ? NULL : PyThreadState_New(threads->interp);
    uv_mutex_unlock(&threads->lock);
    if (tstate != NULL) {
        PyEval_RestoreThread(tstate);
    }
    return tstate;
}

static void
report_run(void *arg)
{
    watch_report report = *(watch_report *)arg;
    watch_threads *threads = report.threads;
    PyMem_RawFree(arg);
    pthread_sigmask(SIG_SETMASK, &threads->mask, NULL);
    int64_t begun = hl_loop_now_ns();
    PyThreadState *tstate = report_attach(threads);
    atomic_store(&threads->waits, false);
    if (tstate != NULL) {
        double waited = (double)(hl_loop_now_ns() - begun) / 1e9;
        report_blocked(threads->watch, report.pulse, waited);
        PyThreadState_Clear(tstate);
        PyThreadState_DeleteCurrent();
    }
    uv_mutex_lock(&threads->lock);
    threads->reporting--;
    uv_cond_broadcast(&threads->changed);
    uv_mutex_unlock(&threads->lock);
    let_go(threads);
}

/* With the lock.  A report that cannot be started is one that is not made. */
static void
report_start(watch_threads *threads, uint64_t pulse)
{
    uv_thread_t id;
    watch_report *report = PyMem_RawMalloc(sizeof(*report));
    if (report == NULL) {
        return;
    }
    *report = (watch_report){threads, pulse};
    atomic_fetch_add(&threads->holders, 1);
    atomic_store(&threads->waits, true);
    threads->reporting++;
    if (uv_thread_create(&id, report_run, report) == 0) {
        pthread_detach(id);
        return;
    }
    threads->reporting--;
    atomic_store(&threads->waits, false);
    atomic_fetch_sub(&threads->holders, 1);
    PyMem_RawFree(report);
}

/* ---- the thread that looks ---- */

static void
announce(const watch_threads *threads, int64_t lasted)
{
    char text[160];
    int size = snprintf(text, sizeof(text),
                        "hotloop: a callback has blocked the loop for %.1f "
                        "seconds; its stack is reported when the GIL, which "
                        "is held all the time, is free\n",
                        (double)lasted / 1e9);
    if (threads->errors >= 0 && size > 0) {
        ssize_t written = write(threads->errors, text, (size_t)size);
        (void)written; /* there is nobody to tell */
    }
}

/* What the thread that looks knows of the present pulse. */
typedef struct {
    uint64_t pulse;
    int64_t lasted; /* since it was seen first, as far as we were awake */
    int64_t seen;   /* clock of the last look */
    bool reported;
    bool announced;
} watch_looks;

/* With the lock. */
static void
look(watch_threads *threads, watch_looks *looks, int64_t period)
{
    hl_watch *watch = threads->watch;
    uint64_t pulse = atomic_load_explicit(&watch->pulse, memory_order_relaxed);
    int64_t now = hl_loop_now_ns();
    int64_t passed = now - looks->seen;
    looks->seen = now;
    if (pulse != looks->pulse || !(pulse & 1)) {
        *looks = (watch_looks){.pulse = pulse, .seen = now};
        return;
    }
    /* A process that was stopped has not blocked its loop meanwhile. */
    looks->lasted += Py_MIN(passed, 2 * period);
    if (looks->lasted < threads->limit) {
        return;
    }
    if (!looks->reported) {
        looks->reported = true;
        atomic_store_explicit(&watch->since, now - looks->lasted,
                              memory_order_relaxed);
        atomic_store_explicit(&watch->suspect, pulse, memory_order_release);
        report_start(threads, pulse);
        return;
    }
    int64_t patience = Py_MAX(threads->limit, ANNOUNCE_MIN_NS);
    if (!looks->announced && looks->lasted >= threads->limit + patience) {
        looks->announced = true;
        if (atomic_load(&threads->waits)) {
            announce(threads, looks->lasted);
        }
    }
}

static void
watch_run(void *arg)
{
    watch_threads *threads = arg;
    watch_looks looks = {.seen = hl_loop_now_ns()};
    int64_t period = threads->limit / LOOKS;
    period = Py_MAX(LOOK_MIN_NS, Py_MIN(period, LOOK_MAX_NS));
#ifdef __linux__
    prctl(PR_SET_NAME, "hotloop-watch");
#endif
    uv_mutex_lock(&threads->lock);
    while (!threads->stop) {
        uv_cond_timedwait(&threads->changed, &threads->lock, (uint64_t)period);
        if (!threads->stop) {
            look(threads, &looks, period);
        }
    }
    uv_mutex_unlock(&threads->lock);
    let_go(threads);
}

/* ---- start and stop ---- */

/* Without the thread that looks; NULL with an exception. */
static hl_watch *
watch_new(hl_loop *loop, double limit, PyObject *reporter, int errors)
{
    hl_watch *watch = PyMem_RawCalloc(1, sizeof(*watch));
    watch_threads *threads = PyMem_RawCalloc(1, sizeof(*threads));
    if (watch == NULL || threads == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    if (uv_mutex_init(&threads->lock) < 0) {
        PyErr_NoMemory();
        goto failed;
    }
    if (uv_cond_init(&threads->changed) < 0) {
        uv_mutex_destroy(&threads->lock);
        PyErr_NoMemory();
        goto failed;
    }
    threads->watch = watch;
    threads->interp = PyInterpreterState_Get();
    threads->limit = (int64_t)(limit * 1e9);
    threads->errors = errors < 0 ? -1 : fcntl(errors, F_DUPFD_CLOEXEC, 3);
    atomic_init(&threads->holders, 1);
    watch->threads = threads;
    watch->loop = loop;
    watch->reporter = Py_NewRef(reporter);
    /* What runs now is not known, only that something does. */
    atomic_init(&watch->pulse, loop->running && !loop->parked ? 3 : 2);
    return watch;
failed:
    PyMem_RawFree(threads);
    PyMem_RawFree(watch);
    return NULL;
}

/* Starts the thread that looks, with no signals: they are for threads of
 * Python.  A libuv status. */
static int
watch_thread_start(watch_threads *threads)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &threads->mask);
    atomic_fetch_add(&threads->holders, 1);
    int err = uv_thread_create(&threads->id, watch_run, threads);
    pthread_sigmask(SIG_SETMASK, &threads->mask, NULL);
    if (err < 0) {
        atomic_fetch_sub(&threads->holders, 1);
    }
    return err;
}

int
hl_watch_start(hl_loop *loop, double limit, PyObject *reporter, int errors)
{
    hl_watch_stop(loop, false);
    hl_watch *watch = watch_new(loop, limit, reporter, errors);
    if (watch == NULL) {
        return -1;
    }
    int err = watch_thread_start(watch->threads);
    if (err < 0) {
        Py_CLEAR(watch->reporter);
        let_go(watch->threads);
        return hl_raise_uv(err);
    }
    loop->watch = watch;
    hl_loop_observe(loop);
    return 0;
}

/* Waits for reports on their way, which need the GIL. */
static void
await_reports(watch_threads *threads)
{
    int64_t until = hl_loop_now_ns() + NS_PER_S, now;
    PyThreadState *tstate = PyEval_SaveThread();
    uv_mutex_lock(&threads->lock);
    while (threads->reporting > 0 && (now = hl_loop_now_ns()) < until) {
        uv_cond_timedwait(&threads->changed, &threads->lock,
                          (uint64_t)(until - now));
    }
    uv_mutex_unlock(&threads->lock);
    PyEval_RestoreThread(tstate);
}

void
hl_watch_stop(hl_loop *loop, bool wait)
{
    hl_watch *watch = loop->watch;
    if (watch == NULL) {
        return;
    }
    watch_threads *threads = watch->threads;
    loop->watch = NULL;
    watch->loop = NULL;
    hl_loop_observe(loop);
    uv_mutex_lock(&threads->lock);
    threads->stop = true;
    uv_cond_broadcast(&threads->changed);
    uv_mutex_unlock(&threads->lock);
    uv_thread_join(&threads->id); /* it never waits for the GIL */
    if (wait) {
        await_reports(threads);
    }
    PyObject *reporter = watch->reporter;
    watch->reporter = NULL;
    let_go(threads);
    Py_XDECREF(reporter);
}

void
hl_watch_after_fork(hl_loop *loop)
{
    hl_watch *watch = loop->watch;
    if (watch == NULL) {
        return;
    }
    /* Its lock may be held by a thread that is not here: what it is in is
     * never freed. */
    PyObject *reporter = watch->reporter;
    loop->watch = NULL;
    watch->loop = NULL;
    watch->reporter = NULL;
    hl_loop_observe(loop);
    if (watch->threads->errors >= 0) {
        close(watch->threads->errors);
    }
    Py_XDECREF(reporter);
}

int
hl_watch_traverse(hl_loop *loop, visitproc visit, void *arg)
{
    if (loop->watch != NULL) {
        Py_VISIT(loop->watch->reporter);
    }
    return 0;
}
