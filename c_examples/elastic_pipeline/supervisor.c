/* The supervisor starts every process by executing its own program again, kills replicas one after the other,
 * starts the replacements, and reads what all of them report. It never uses the library itself. */
#include "supervisor.h"

#include <fcntl.h>
#include <poll.h>

enum { BATCH = 256, SETTLE_NS = 100000000 };

typedef struct {
  Role role;
  int replica;
  int generation;
} Identity;

/* Who rank_pids[i] of common.h is. */
static Identity identities[MAX_RANKS];

/* Starts one process; its arguments are read by child_main. */
static void spawn(const Options* options, Role role, int replica, int generation) {
  char numbers[7][24];
  const pid_t parent = getpid();
  int place = 0;
  while (place < rank_count && rank_pids[place] != 0) ++place;
  REQUIRE(place < MAX_RANKS);
  snprintf(numbers[0], sizeof numbers[0], "%d", (int)role);
  snprintf(numbers[1], sizeof numbers[1], "%d", replica);
  snprintf(numbers[2], sizeof numbers[2], "%d", generation);
  snprintf(numbers[3], sizeof numbers[3], "%d", options->report_fd);
  snprintf(numbers[4], sizeof numbers[4], "%d", (int)options->recovery);
  snprintf(numbers[5], sizeof numbers[5], "%llu", (unsigned long long)options->requests);
  snprintf(numbers[6], sizeof numbers[6], "%llu", (unsigned long long)options->rate);
  fflush(stdout);
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); /* The supervisor died before prctl. */
    execl("/proc/self/exe", "elastic_pipeline", "--child", numbers[0], numbers[1], numbers[2], numbers[3],
          numbers[4], numbers[5], numbers[6], options->input, (char*)NULL);
    perror("cannot execute this program again");
    _exit(1);
  }
  identities[place].role = role;
  identities[place].replica = replica;
  identities[place].generation = generation;
  rank_pids[place] = pid;
  if (place == rank_count) ++rank_count;
}

static void spawn_all(const Plan* plan, Books* books) {
  const Options* options = &plan->options;
  const int is_pool = options->recovery == RECOVER_GROW;
  spawn(options, ROLE_LEADER, 0, 1);
  if (!is_pool) spawn(options, ROLE_STAGE1, 0, 1);
  for (int i = 0; i < books->replicas; ++i) spawn(options, ROLE_STAGE2, i, 1);
  if (!is_pool) spawn(options, ROLE_STAGE3, 0, 1);
  if (is_pool) tell(books, "started a leader and replicas stage2a to stage2%c", 'a' + books->replicas - 1);
  else tell(books, "started a leader, stage 1, stage2a, stage2b and stage 3");
}

static void read_reports(Books* books, int fd) {
  Report records[BATCH];
  struct pollfd readable = {fd, POLLIN, 0};
  while (poll(&readable, 1, 20) > 0) {
    ssize_t got = read(fd, records, sizeof records);
    REQUIRE(got > 0 && got % (ssize_t)sizeof records[0] == 0);
    for (ssize_t i = 0; i < got / (ssize_t)sizeof records[0]; ++i) books_enter(books, &records[i]);
    if (got < (ssize_t)sizeof records) break;
  }
}

static void kill_victim(Books* books) {
  Round* round = &books->rounds[books->round];
  for (int i = 0; i < rank_count; ++i) {
    if (rank_pids[i] == 0 || identities[i].role != ROLE_STAGE2 || identities[i].replica != round->replica ||
        identities[i].generation != round->generation - 1) {
      continue;
    }
    tell(books, "kill -9 %d: stage2%c", (int)rank_pids[i], 'a' + round->replica);
    round->killed_at = now_ns();
    REQUIRE(kill(rank_pids[i], SIGKILL) == 0);
  }
}

/* Whether it is time for the kill of this round: they spread over the first half of the requests, or come as
 * soon as the last replacement works. */
static int is_due(const Books* books) {
  const uint64_t round = (uint64_t)books->round, count = (uint64_t)books->round_count;
  return books->answered >= books->requests * (round + 1) / (2 * count + 1);
}

/* Does what has to be done next in this round. Nothing any more when the end is near: a replica might be killed
 * that has been told to stop. */
static void direct(Books* books, const Plan* plan) {
  Round* round = &books->rounds[books->round];
  if (books->round == books->round_count || books->ready_at == 0 || round->killed_at != 0) return;
  if (books->answered > books->requests - books->requests / 10) return;
  if (plan->spare && !round->has_spare) {
    tell(books, "a spare for stage2%c is started", 'a' + round->replica);
    spawn(&plan->options, ROLE_STAGE2, round->replica, round->generation);
    round->has_spare = 1;
  }
  if (plan->spare && (round->waiting_at == 0 || now_ns() < round->waiting_at + SETTLE_NS)) return;
  if (is_due(books)) kill_victim(books);
}

/* Whether this process was killed in one of the rounds. */
static int was_killed(const Books* books, const Identity* who, int status) {
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL || who->role != ROLE_STAGE2) return 0;
  for (int i = 0; i < books->round_count; ++i) {
    const Round* round = &books->rounds[i];
    if (round->killed_at == 0 || round->replica != who->replica) continue;
    if (round->generation == who->generation + 1) return 1;
  }
  return 0;
}

/* A spare that nobody needed, because the requests came to their end before: it would wait for ever. */
static int is_left_over(const Books* books, const Identity* who) {
  const Round* round = &books->rounds[books->round];
  return books->round < books->round_count && round->has_spare && round->killed_at == 0 &&
         who->role == ROLE_STAGE2 && who->replica == round->replica && who->generation == round->generation;
}

static void dismiss_spare(const Books* books) {
  for (int i = 0; i < rank_count; ++i) {
    if (rank_pids[i] != 0 && is_left_over(books, &identities[i])) kill(rank_pids[i], SIGKILL);
  }
}

/* Collects processes that ended. Answers how many are left; -1 if one ended that should not have. */
static int reap(Books* books, const Plan* plan) {
  int status;
  pid_t pid;
  int left = 0;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    int i = 0;
    while (i < rank_count - 1 && rank_pids[i] != pid) ++i;
    const Identity who = identities[i];
    rank_pids[i] = 0;
    if (who.role == ROLE_LEADER) dismiss_spare(books);
    if (is_left_over(books, &who) && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) continue;
    if (was_killed(books, &who, status)) {
      if (plan->spare) continue;
      tell(books, "a new stage2%c is started", 'a' + who.replica);
      spawn(&plan->options, ROLE_STAGE2, who.replica, who.generation + 1);
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      static const char* const names[ROLE_COUNT] = {"the leader", "stage 1", "a stage 2", "stage 3"};
      fprintf(stderr, "%s %s %d\n", names[who.role], WIFSIGNALED(status) ? "died by signal" : "exited with",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
      return -1;
    }
  }
  for (int i = 0; i < rank_count; ++i) left += rank_pids[i] != 0;
  return left;
}

int supervise(const Plan* wanted) {
  int fds[2], left;
  Plan plan = *wanted;
  Options* options = &plan.options;
  Books books;
  choose_store();
  REQUIRE(pipe(fds) == 0 && fcntl(fds[0], F_SETFD, FD_CLOEXEC) == 0);
  options->report_fd = fds[1];
  signal(SIGINT, end_all);
  signal(SIGTERM, end_all);
  signal(SIGALRM, end_all);
  alarm((unsigned)(60 + 2 * plan.rounds + (options->rate == 0 ? 240 : 3 * options->requests / options->rate)));

  books_open(&books, &plan);
  spawn_all(&plan, &books);
  do {
    read_reports(&books, fds[0]);
    books_show(&books);
    direct(&books, &plan);
    left = reap(&books, &plan);
  } while (left > 0);
  if (left < 0) {
    kill_ranks();
    return 1;
  }
  read_reports(&books, fds[0]);
  return books_close(&books);
}
