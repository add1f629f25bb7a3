/* What every example needs and none is about: starting ranks as processes, ending them, checking results.
 *
 * An example is one program. Its first process, the parent, forks one process per rank before anybody calls
 * the library (a process must not fork once it has used it), waits for all of them and says how it went. The
 * ranks find each other through the built-in store: the parent picks a free port of 127.0.0.1 and puts it
 * into MW_STORE; whichever rank 0 comes first hosts the store there.
 */
#ifndef MW_EXAMPLES_COMMON_H
#define MW_EXAMPLES_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <multiworld.h>

/* Ends this process with a message unless the call returns mwSuccess. */
#define MW_CHECK(call) MW_EXPECT(mwSuccess, call)

/* Ends this process with a message unless the call returns `expected`. */
#define MW_EXPECT(expected, call)                                                             \
  do {                                                                                        \
    mwResult_t mw_result_ = (call);                                                           \
    if (mw_result_ != (expected)) {                                                           \
      fprintf(stderr, "%s:%d: %s returned \"%s\", expected \"%s\": %s\n", __FILE__, __LINE__,  \
              #call, mwGetErrorString(mw_result_), mwGetErrorString(expected),                \
              mwGetLastError(NULL));                                                          \
      exit(1);                                                                                \
    }                                                                                         \
  } while (0)

/* Ends this process with a message unless `condition` holds. */
#define REQUIRE(condition)                                                                    \
  do {                                                                                        \
    if (!(condition)) {                                                                       \
      fprintf(stderr, "%s:%d: this does not hold: %s\n", __FILE__, __LINE__, #condition);     \
      exit(1);                                                                                \
    }                                                                                         \
  } while (0)

enum { MAX_RANKS = 16, WATCHDOG_SECONDS = 60 };

/* Memory that the parent and all ranks of an example share, for times and flags; set up by run_ranks. */
static volatile uint64_t* shared_words;

static pid_t rank_pids[MAX_RANKS];
static int rank_count;

/* CLOCK_MONOTONIC, the same clock in all processes of a machine and the one events are stamped with. */
static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void sleep_ms(int ms) {
  struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

/* Of the shared words, the one that counts processes which have joined. */
enum { JOINED = 511 };

/* Whoever has joined the world that is going to lose a member says so. */
static inline void have_joined(void) { __atomic_add_fetch(&shared_words[JOINED], 1, __ATOMIC_SEQ_CST); }

/* A victim waits for that before it dies: a member that is lost earlier makes mwWorldInit fail for those who are
 * still in it, which is right, and not what an example is about. */
static inline void wait_until_joined(int members) {
  while (__atomic_load_n(&shared_words[JOINED], __ATOMIC_SEQ_CST) < (uint64_t)members) sleep_ms(1);
}

/* Checks that the library names `rank`, and nobody else, as the failed member of a broken world. */
static inline void expect_failed_rank(mwWorld_t world, int rank) {
  int ranks[MAX_RANKS];
  int count = MAX_RANKS;
  mwWorldState_t state;
  mwResult_t error;
  MW_CHECK(mwWorldGetState(world, &state));
  REQUIRE(state == mwWorldBroken);
  MW_CHECK(mwWorldGetAsyncError(world, &error));
  REQUIRE(error == mwRemoteError);
  MW_CHECK(mwWorldGetFailedRanks(world, ranks, &count));
  REQUIRE(count == 1);
  REQUIRE(ranks[0] == rank);
}

static inline void kill_ranks(void) {
  for (int i = 0; i < rank_count; ++i) {
    if (rank_pids[i] > 0) kill(rank_pids[i], SIGKILL);
  }
}

/* Ctrl-C, termination or the watchdog: nothing is left running. Only calls what a signal handler may call. */
static inline void end_all(int signum) {
  static const char late[] = "the example did not finish in time\n";
  kill_ranks();
  if (signum == SIGALRM) {
    ssize_t written = write(STDERR_FILENO, late, sizeof late - 1);
    _exit(written < 0 ? 2 : 1);
  }
  /* Dies of the signal when this returns, so that the shell sees why. */
  signal(signum, SIG_DFL);
  raise(signum);
}

/* Finds a free port of 127.0.0.1 for the store and names it in MW_STORE. */
static inline void choose_store(void) {
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  char store[64];
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, (struct sockaddr*)&address, length) != 0 ||
      getsockname(fd, (struct sockaddr*)&address, &length) != 0) {
    perror("no free port on 127.0.0.1");
    exit(1);
  }
  close(fd);
  snprintf(store, sizeof store, "tcp://127.0.0.1:%d", (int)ntohs(address.sin_port));
  setenv("MW_STORE", store, 1);
  setenv("MW_IFNAME", "lo", 0);
}

/* Starts `nranks` processes that each call `rank_main(rank)`, and waits for them. Process `victim` (-1: none)
 * must die by SIGKILL, all others must return. Answers main's exit code. */
static inline int run_ranks(const char* name, int nranks, void (*rank_main)(int rank), int victim) {
  const pid_t parent = getpid();
  int failures = 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  choose_store();
  shared_words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared_words != MAP_FAILED);
  REQUIRE(nranks <= MAX_RANKS);
  signal(SIGINT, end_all);
  signal(SIGTERM, end_all);
  signal(SIGALRM, end_all);
  alarm(WATCHDOG_SECONDS);

  for (int rank = 0; rank < nranks; ++rank) {
    fflush(stdout);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      signal(SIGINT, SIG_DFL);
      signal(SIGTERM, SIG_DFL);
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1); /* The parent died before prctl. */
      rank_main(rank);
      exit(0);
    }
    rank_pids[rank] = pid;
    rank_count = rank + 1;
  }

  for (int left = nranks; left > 0; --left) {
    int status = 0;
    int rank = 0;
    pid_t pid = wait(&status);
    REQUIRE(pid > 0);
    while (rank < nranks - 1 && rank_pids[rank] != pid) ++rank;
    rank_pids[rank] = 0;
    int killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    int good = rank == victim ? killed : WIFEXITED(status) && WEXITSTATUS(status) == 0;
    /* Once one failed the rest is killed, which says nothing about them. */
    if (!good && failures++ == 0) {
      fprintf(stderr, "%s: process %d %s %d\n", name, rank,
              WIFSIGNALED(status) ? "died by signal" : "exited with",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
      kill_ranks();
    }
  }
  if (failures != 0) return 1;
  printf("%s: ok\n", name);
  return 0;
}

#endif
