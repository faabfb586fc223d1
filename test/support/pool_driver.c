/* Checks of pool.h; `pool_driver CHECK` exits with 0 where it holds, else says what does not. */
#include "pool.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLERS 8
#define STEPS 64

static void fail(const char *what, int64_t got) {
  fprintf(stderr, "%s: %lld\n", what, (long long)got);
  _exit(1);
}

static void region(int threads, spu_body body, void *frame, int64_t count) {
  spu_pool_parallel()(spu_pool_get(threads), body, frame, count);
}

static int tasks(void) {
  DIR *folder = opendir("/proc/self/task");
  int count = 0;
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

static void add_one(void *frame, int64_t index) { ((int64_t *)frame)[index] += 1; }

static void add_eight(void *frame, int64_t index) {
  region(4, add_one, (int64_t *)frame + 8 * index, 8);
}

static void *caller(void *argument) {
  const int rounds = *(const int *)argument;
  int64_t flat[STEPS] = {0}, nested[STEPS] = {0};
  for (int i = 0; i < rounds; ++i) {
    const int64_t count = i % (STEPS + 1);
    region(1 + i % 4, add_one, flat, count);
    for (int64_t j = 0; j < STEPS; ++j) {
      if (flat[j] != (j < count)) fail("an index did not run exactly once", j);
      flat[j] = 0;
    }
    region(4, add_eight, nested, STEPS / 8);
  }
  for (int64_t j = 0; j < STEPS; ++j)
    if (nested[j] != rounds) fail("an index of a nested region did not run exactly once", j);
  return NULL;
}

/* Concurrent callers with regions of all sizes, and regions inside regions. */
static void check_callers(int rounds) {
  pthread_t threads[CALLERS];
  for (int i = 0; i < CALLERS; ++i)
    if (pthread_create(&threads[i], NULL, caller, &rounds) != 0) fail("no thread", i);
  for (int i = 0; i < CALLERS; ++i) pthread_join(threads[i], NULL);
}

/* Returns only when two threads are inside at once, or after ten seconds. */
static void meet(void *frame, int64_t index) {
  _Atomic int *arrived = frame;
  (void)index;
  atomic_fetch_add(arrived, 1);
  for (int64_t start = spu_pool_now(); atomic_load(arrived) < 2;)
    if (spu_pool_now() - start > 10000000000) return;
    else sched_yield();
  atomic_fetch_add(arrived, 1000);
}

static void check_helped(const char *when) {
  _Atomic int arrived = 0;
  region(2, meet, (void *)&arrived, 2);
  if (atomic_load(&arrived) != 2002) fail(when, atomic_load(&arrived));
}

static void sleep_ms(long ms) {
  struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&time, NULL);
}

static void check_idle(void) {
  check_helped("no worker helped at first");
  sleep_ms(50);
  struct timespec before, after;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  sleep_ms(500);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  int64_t used = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
  if (used > 50000000) fail("idle workers used nanoseconds", used);
  check_helped("no worker woke up");
}

static void check_fork(void) {
  check_helped("no worker helped the parent");
  pid_t child = fork();
  if (child == 0) {
    if (tasks() != 1) fail("the child started with threads", tasks());
    check_helped("no worker helped the child");
    check_callers(50);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) fail("the child failed", status);
  check_helped("no worker helped the parent after the fork");
}

static void check_count(void) {
  int64_t steps[STEPS] = {0};
  region(1, add_one, steps, STEPS);
  if (tasks() != 1) fail("one thread was asked for, threads now", tasks());
  region(3, add_one, steps, STEPS);
  region(2, add_one, steps, STEPS);
  if (tasks() != 3) fail("three threads were asked for, threads now", tasks());
  region(3, add_one, steps, 0);
  for (int i = 0; i < STEPS; ++i)
    if (steps[i] != 3) fail("an index did not run three times", i);
}

/* A region whose helper stays inside until it is released, while its caller waits for that. */
static _Thread_local int calling;
static _Atomic int held, released;

static void hold(void *frame, int64_t index) {
  (void)frame;
  (void)index;
  if (!calling) {
    atomic_store(&held, 1);
    while (!atomic_load(&released)) sched_yield();
  } else {
    while (!atomic_load(&held)) sched_yield();
  }
}

static void *holder(void *frame) {
  calling = 1;
  region(2, hold, frame, 2);
  if (!atomic_load(&released)) fail("a region returned before its helper", 0);
  return NULL;
}

/* With every worker held up in one caller's region, another caller's still runs. */
static void check_busy(void) {
  pthread_t other;
  if (pthread_create(&other, NULL, holder, NULL) != 0) fail("no thread", 0);
  while (!atomic_load(&held)) sched_yield();
  int64_t steps[STEPS] = {0};
  for (int i = 0; i < 100; ++i) region(2, add_one, steps, STEPS);
  for (int i = 0; i < STEPS; ++i)
    if (steps[i] != 100) fail("an index did not run", i);
  sleep_ms(20); /* longer than the holder's caller spins: it must be woken up */
  atomic_store(&released, 1);
  pthread_join(other, NULL);
}

typedef struct {
  _Atomic int arrived[4];
  pthread_t ran[8];
} pairs;

/* Index i and i + 4 meet: in whichever order a thread takes its share, the other does too. */
static void meet_as_pair(void *frame, int64_t index) {
  pairs *all = frame;
  all->ran[index] = pthread_self();
  meet((void *)&all->arrived[index % 4], index);
}

/* A thread begins with the same share of every region, and a caller with the first. */
static void check_shares(void) {
  pthread_t helper = pthread_self();
  for (int round = 0; round < 1000; ++round) {
    pairs all = {0};
    region(2, meet_as_pair, &all, 8);
    if (round == 0) helper = all.ran[4];
    for (int i = 0; i < 4; ++i) {
      if (atomic_load(&all.arrived[i]) != 2002) fail("two threads did not meet in round", round);
      if (!pthread_equal(all.ran[i], pthread_self())) fail("a caller's share in round", round);
      if (!pthread_equal(all.ran[4 + i], helper)) fail("a worker's share in round", round);
    }
  }
}

int main(int argc, char **argv) {
  const char *check = argc > 1 ? argv[1] : "";
  if (strcmp(check, "callers") == 0) check_callers(2000);
  else if (strcmp(check, "idle") == 0) check_idle();
  else if (strcmp(check, "fork") == 0) check_fork();
  else if (strcmp(check, "count") == 0) check_count();
  else if (strcmp(check, "busy") == 0) check_busy();
  else if (strcmp(check, "shares") == 0) check_shares();
  else fail("no such check", argc);
  return 0;
}
