/*
 * The process's thread pool.
 *
 * A caller publishes a region (body, frame, count) in one of a fixed number of slots and
 * works on it itself; workers that are free join in. The indices are cut into as many shares
 * as threads may take part; each claims the next index of its own share, then of the others',
 * until none is left. So a region never waits for a worker: with all workers busy elsewhere,
 * its caller runs it alone. Concurrent callers share the workers; a region inside a region
 * runs inline.
 *
 * Idle workers spin for a moment, since the next region of a program is microseconds away,
 * then sleep on a condition variable. A forked child starts with no workers and creates
 * its own at its first region.
 *
 * Include this in exactly one translation unit (host.c): it defines spu_pool_get and
 * spu_pool_parallel.
 */
#ifndef SPU_POOL_H
#define SPU_POOL_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "context.h"

#define SPU_POOL_THREADS 256       /* most threads of a region, its caller included */
#define SPU_POOL_REGIONS 64        /* regions open at once; further callers run alone */
#define SPU_POOL_SHARES 16         /* runs that a region's indices are cut into, at most */
#define SPU_POOL_SPIN_NS 100000    /* how long an idle worker looks for work before it sleeps */
#define SPU_POOL_YIELD_NS 10000    /* after which a spinning thread offers its core to others */
#define SPU_POOL_STACK (4u << 20)  /* bytes of a worker's stack; some C libraries' default is tiny */

/* A run of a region's indices: the next to claim, which is `end` or more when none is left. */
typedef struct {
  _Alignas(64) _Atomic int64_t next;
  _Atomic int64_t end;
} spu_share;

/*
 * `state` is SPU_REGION_OPEN | (helpers allowed << 12) | helpers inside. A worker enters by
 * adding 1 to an open state; the caller closes it and waits for 0 helpers. The fields below
 * are written only while the region is closed and empty, so whoever is inside may read them.
 */
typedef struct {
  _Alignas(64) _Atomic uint32_t state;
  _Atomic uint32_t taken;   /* 1 while a caller owns the slot */
  _Atomic uint32_t waiting; /* 1 while the caller sleeps until its last helper has left */
  _Atomic int32_t shares;
  spu_body body;
  void *frame;
  spu_share share[SPU_POOL_SHARES];
} spu_region;

#define SPU_REGION_OPEN (1u << 24)
#define SPU_REGION_HELPERS 0xfffu

/* What spu_pool_get hands out: the same workers under a limit of threads per region. */
typedef struct {
  _Atomic int32_t threads;
} spu_pool_view;

static struct {
  spu_region regions[SPU_POOL_REGIONS];
  _Alignas(64) _Atomic uint32_t epoch; /* counts the regions published */
  _Atomic int32_t used;                /* slots ever taken: workers look no further */
  _Alignas(64) _Atomic int32_t sleepers;
  _Atomic int32_t asked; /* workers that exist or could not be created */
  pthread_mutex_t lock;
  pthread_cond_t work; /* a region was published */
  pthread_cond_t left; /* the last helper of a region whose caller sleeps has left */
  spu_pool_view views[SPU_POOL_THREADS + 1];
} spu_pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
              .work = PTHREAD_COND_INITIALIZER,
              .left = PTHREAD_COND_INITIALIZER};

static _Thread_local int spu_pool_inside; /* set in workers, and in a caller during its region */
static pthread_once_t spu_pool_once = PTHREAD_ONCE_INIT;

static inline int64_t spu_pool_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void spu_pool_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* One turn of a spin that began at `start`; returns whether it has lasted long enough. */
static inline int spu_pool_spin(uint32_t turn, int64_t start) {
  spu_pool_pause();
  if (turn % 64 != 0) return 0;
  int64_t spent = spu_pool_now() - start;
  if (spent > SPU_POOL_YIELD_NS) sched_yield();
  return spent > SPU_POOL_SPIN_NS;
}

/*
 * Claims indices until none is left, of the share `first` at first. A thread begins with the same
 * share of every region, since what it computed of one layer lies in its caches for the next.
 */
static inline void spu_region_work(spu_region *region, int32_t first) {
  const spu_body body = region->body;
  void *const frame = region->frame;
  const int32_t shares = atomic_load_explicit(&region->shares, memory_order_relaxed);
  for (int32_t i = 0; i < shares; ++i) {
    spu_share *share = &region->share[(first + i) % shares];
    const int64_t end = atomic_load_explicit(&share->end, memory_order_relaxed);
    while (atomic_load_explicit(&share->next, memory_order_relaxed) < end) {
      int64_t index = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed);
      if (index >= end) break;
      body(frame, index);
    }
  }
}

/* Whether an index may be left to claim. */
static inline int spu_region_has_work(spu_region *region) {
  const int32_t shares = atomic_load_explicit(&region->shares, memory_order_relaxed);
  for (int32_t i = 0; i < shares; ++i) {
    spu_share *share = &region->share[i];
    if (atomic_load_explicit(&share->next, memory_order_relaxed) <
        atomic_load_explicit(&share->end, memory_order_relaxed))
      return 1;
  }
  return 0;
}

/* A worker's visit to a region; returns whether it went in. */
static int spu_region_help(spu_region *region, int32_t self) {
  uint32_t state = atomic_load_explicit(&region->state, memory_order_relaxed);
  do {
    if (!(state & SPU_REGION_OPEN)) return 0;
    if ((state & SPU_REGION_HELPERS) >= ((state >> 12) & SPU_REGION_HELPERS)) return 0;
    if (!spu_region_has_work(region)) return 0;
  } while (!atomic_compare_exchange_weak_explicit(&region->state, &state, state + 1,
                                                  memory_order_acquire, memory_order_relaxed));
  spu_region_work(region, self + 1);
  /* From here on the slot may serve another region: only its flags may be touched. */
  uint32_t before = atomic_fetch_sub(&region->state, 1);
  if (!(before & SPU_REGION_OPEN) && (before & SPU_REGION_HELPERS) == 1 &&
      atomic_load(&region->waiting)) {
    pthread_mutex_lock(&spu_pool.lock);
    pthread_cond_broadcast(&spu_pool.left);
    pthread_mutex_unlock(&spu_pool.lock);
  }
  return 1;
}

static void spu_pool_idle(uint32_t seen) {
  const int64_t start = spu_pool_now();
  uint32_t turn = 0;
  do {
    if (atomic_load_explicit(&spu_pool.epoch, memory_order_acquire) != seen) return;
  } while (!spu_pool_spin(++turn, start));
  /* The publisher raises epoch, then reads sleepers; the order here is the mirror image. */
  pthread_mutex_lock(&spu_pool.lock);
  atomic_fetch_add(&spu_pool.sleepers, 1);
  while (atomic_load(&spu_pool.epoch) == seen) pthread_cond_wait(&spu_pool.work, &spu_pool.lock);
  atomic_fetch_sub(&spu_pool.sleepers, 1);
  pthread_mutex_unlock(&spu_pool.lock);
}

static void *spu_pool_worker(void *argument) {
  const int32_t self = (int32_t)(intptr_t)argument;
  spu_pool_inside = 1;
  for (;;) {
    const uint32_t seen = atomic_load(&spu_pool.epoch);
    const int32_t used = atomic_load(&spu_pool.used);
    int worked = 0;
    /* Workers start at different slots, so that they spread over concurrent callers. */
    for (int32_t i = 0; i < used; ++i)
      worked |= spu_region_help(&spu_pool.regions[(self + i) % used], self);
    if (!worked) spu_pool_idle(seen);
  }
  return NULL;
}

static void spu_pool_after_fork(void) {
  spu_pool.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  spu_pool.work = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
  spu_pool.left = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
  for (int32_t i = 0; i < SPU_POOL_REGIONS; ++i) {
    atomic_store(&spu_pool.regions[i].state, 0);
    atomic_store(&spu_pool.regions[i].taken, 0);
    atomic_store(&spu_pool.regions[i].waiting, 0);
  }
  atomic_store(&spu_pool.sleepers, 0);
  atomic_store(&spu_pool.asked, 0);
}

static void spu_pool_watch_fork(void) { pthread_atfork(NULL, NULL, spu_pool_after_fork); }

/* Sees to it that `wanted` workers exist, as far as the system allows. */
static void spu_pool_hire(int32_t wanted) {
  if (atomic_load_explicit(&spu_pool.asked, memory_order_relaxed) >= wanted) return;
  pthread_once(&spu_pool_once, spu_pool_watch_fork);
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, SPU_POOL_STACK);
  /* Signals belong to the host's threads. */
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_mutex_lock(&spu_pool.lock);
  for (int32_t i = atomic_load(&spu_pool.asked); i < wanted; ++i) {
    pthread_t thread;
    /* Without the thread, regions run on fewer; asking again at every one would cost more. */
    (void)pthread_create(&thread, &attributes, spu_pool_worker, (void *)(intptr_t)i);
    atomic_store(&spu_pool.asked, i + 1);
  }
  pthread_mutex_unlock(&spu_pool.lock);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attributes);
}

static spu_region *spu_region_take(void) {
  for (int32_t i = 0; i < SPU_POOL_REGIONS; ++i) {
    spu_region *region = &spu_pool.regions[i];
    uint32_t free_slot = 0;
    if (atomic_load_explicit(&region->taken, memory_order_relaxed) != 0) continue;
    if (!atomic_compare_exchange_strong_explicit(&region->taken, &free_slot, 1,
                                                 memory_order_acquire, memory_order_relaxed))
      continue;
    int32_t used = atomic_load(&spu_pool.used);
    while (used <= i && !atomic_compare_exchange_weak(&spu_pool.used, &used, i + 1)) continue;
    return region;
  }
  return NULL;
}

static void spu_region_publish(spu_region *region, int32_t helpers) {
  atomic_store(&region->state, SPU_REGION_OPEN | ((uint32_t)helpers << 12));
  atomic_fetch_add(&spu_pool.epoch, 1);
  const int32_t sleepers = atomic_load(&spu_pool.sleepers);
  if (sleepers == 0) return;
  pthread_mutex_lock(&spu_pool.lock);
  if (sleepers <= helpers) {
    pthread_cond_broadcast(&spu_pool.work);
  } else {
    for (int32_t i = 0; i < helpers; ++i) pthread_cond_signal(&spu_pool.work);
  }
  pthread_mutex_unlock(&spu_pool.lock);
}

static void spu_region_close(spu_region *region) {
  uint32_t inside = atomic_fetch_and(&region->state, SPU_REGION_HELPERS) & SPU_REGION_HELPERS;
  if (inside != 0) {
    const int64_t start = spu_pool_now();
    uint32_t turn = 0;
    int late = 0;
    while (atomic_load_explicit(&region->state, memory_order_acquire) != 0 && !late)
      late = spu_pool_spin(++turn, start);
    if (late) {
      pthread_mutex_lock(&spu_pool.lock);
      atomic_store(&region->waiting, 1);
      while (atomic_load(&region->state) != 0) pthread_cond_wait(&spu_pool.left, &spu_pool.lock);
      atomic_store(&region->waiting, 0);
      pthread_mutex_unlock(&spu_pool.lock);
    }
  }
  atomic_store_explicit(&region->taken, 0, memory_order_release);
}

static void spu_pool_run(void *pool, spu_body body, void *frame, int64_t count) {
  spu_pool_view *view = pool;
  int64_t helpers = atomic_load_explicit(&view->threads, memory_order_relaxed) - 1;
  if (helpers > count - 1) helpers = count - 1;
  spu_region *region = helpers > 0 && !spu_pool_inside ? spu_region_take() : NULL;
  if (region == NULL) {
    for (int64_t index = 0; index < count; ++index) body(frame, index);
    return;
  }
  spu_pool_hire((int32_t)helpers);
  region->body = body;
  region->frame = frame;
  const int32_t shares = helpers < SPU_POOL_SHARES ? (int32_t)helpers + 1 : SPU_POOL_SHARES;
  atomic_store_explicit(&region->shares, shares, memory_order_relaxed);
  for (int64_t i = 0; i < shares; ++i) {
    atomic_store_explicit(&region->share[i].next, count * i / shares, memory_order_relaxed);
    atomic_store_explicit(&region->share[i].end, count * (i + 1) / shares, memory_order_relaxed);
  }
  spu_pool_inside = 1;
  spu_region_publish(region, (int32_t)helpers);
  spu_region_work(region, 0);
  spu_region_close(region);
  spu_pool_inside = 0;
}

/* A handle whose regions use at most `threads` threads (1 .. SPU_POOL_THREADS), callers included. */
void *spu_pool_get(int32_t threads) {
  if (threads < 1) threads = 1;
  if (threads > SPU_POOL_THREADS) threads = SPU_POOL_THREADS;
  atomic_store_explicit(&spu_pool.views[threads].threads, threads, memory_order_relaxed);
  return &spu_pool.views[threads];
}

/* The function that goes with spu_pool_get's handles. */
spu_parallel_fn spu_pool_parallel(void) { return spu_pool_run; }

#endif
