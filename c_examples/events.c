/* Events: learning of failures from an event loop, without any operation pending.
 *
 * The observer has two worlds, each with one worker. It hands mwEventFd to epoll beside whatever else it polls;
 * here that is a timer. When the worker of "doomed" dies, one event arrives that names the world, the rank and
 * the reason. A callback can be set for a world as well; it runs on a thread of the library.
 */
#define _DEFAULT_SOURCE
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "common.h"

enum { KILLED_AT };

/* What the callback leaves for the main thread. A callback should do little: it holds up later events. */
static volatile sig_atomic_t callback_rank = -1;
static volatile sig_atomic_t callback_calls;

static void on_event(const mwEvent_t* event, void* user) {
  REQUIRE(strcmp((const char*)user, "mine") == 0);
  if (event->kind != mwEventRankFailed) return;
  callback_rank = event->rank;
  ++callback_calls;
}

static void watch(int epoll, int fd) {
  struct epoll_event interest;
  memset(&interest, 0, sizeof interest);
  interest.events = EPOLLIN;
  interest.data.fd = fd;
  REQUIRE(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest) == 0);
}

static void observer(void) {
  mwWorld_t doomed, healthy;
  mwEvent_t event;
  int event_fd, ticks = 0, failures = 0;
  int32_t token = 1;
  MW_CHECK(mwWorldInit(&doomed, "doomed", 2, 0, NULL));
  MW_CHECK(mwWorldInit(&healthy, "healthy", 2, 0, NULL));
  MW_CHECK(mwWorldSetCallback(doomed, on_event, "mine"));
  MW_CHECK(mwEventFd(&event_fd));
  MW_EXPECT(mwInProgress, mwEventNext(&event, 0)); /* Nothing has happened yet. */

  int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct itimerspec every_20_ms = {{0, 20000000}, {0, 20000000}};
  REQUIRE(timer_fd >= 0 && timerfd_settime(timer_fd, 0, &every_20_ms, NULL) == 0);
  int epoll = epoll_create1(0);
  REQUIRE(epoll >= 0);
  watch(epoll, event_fd);
  watch(epoll, timer_fd);

  MW_CHECK(mwSend(&token, 1, mwInt32, 1, doomed, NULL)); /* The worker dies of this. */
  while (failures == 0 || ticks < 20) {
    struct epoll_event ready[2];
    int count = epoll_wait(epoll, ready, 2, 10000);
    REQUIRE(count > 0);
    for (int i = 0; i < count; ++i) {
      if (ready[i].data.fd == timer_fd) {
        uint64_t expirations;
        REQUIRE(read(timer_fd, &expirations, sizeof expirations) == (ssize_t)sizeof expirations);
        ++ticks;
        continue;
      }
      /* Readable means that there may be events; mwEventNext says when there are no more. */
      while (mwEventNext(&event, 0) == mwSuccess) {
        printf("event of world \"%s\", rank %d, %.2f ms after the kill: %s\n", event.name, event.rank,
               ((double)event.timestampNs - (double)shared_words[KILLED_AT]) / 1e6, event.reason);
        REQUIRE(event.kind == mwEventRankFailed);
        REQUIRE(event.result == mwRemoteError);
        REQUIRE(event.world == doomed);
        REQUIRE(strcmp(event.name, "doomed") == 0);
        REQUIRE(event.rank == 1);
        REQUIRE(event.timestampNs >= shared_words[KILLED_AT]);
        ++failures;
      }
    }
  }
  /* The timer ticked on for a while: there was one event for that rank, not several. */
  REQUIRE(failures == 1);
  REQUIRE(callback_calls == 1);
  REQUIRE(callback_rank == 1);
  expect_failed_rank(doomed, 1);
  MW_CHECK(mwWorldAbort(doomed));

  MW_CHECK(mwSend(&token, 1, mwInt32, 1, healthy, NULL));
  MW_CHECK(mwRecv(&token, 1, mwInt32, 1, healthy, NULL));
  REQUIRE(token == 2);
  MW_CHECK(mwWorldDestroy(healthy));
  close(epoll);
  close(timer_fd); /* event_fd belongs to the library. */
}

static void worker(const char* name, int dies) {
  mwWorld_t world;
  int32_t token = 0;
  MW_CHECK(mwWorldInit(&world, name, 2, 1, NULL));
  MW_CHECK(mwRecv(&token, 1, mwInt32, 0, world, NULL));
  if (dies) {
    shared_words[KILLED_AT] = now_ns();
    raise(SIGKILL);
  }
  ++token;
  MW_CHECK(mwSend(&token, 1, mwInt32, 0, world, NULL));
  MW_CHECK(mwWorldDestroy(world));
}

static void process(int number) {
  if (number == 0) observer();
  else if (number == 1) worker("doomed", 1);
  else worker("healthy", 0);
}

int main(void) { return run_ranks("events", 3, process, 1); }
