/* The supervisor. It starts every process by executing its own program again, kills one in the middle, starts
 * the replacement, and reads what all of them report. It never uses the library itself. */
#include "supervisor.h"

#include <fcntl.h>
#include <poll.h>

enum { VICTIM = 0, BATCH = 256 };

static const char usage[] =
    "usage: elastic_pipeline [options] [INPUT]\n"
    "\n"
    "Serves requests through a pipeline of three stages, kills one of the two replicas of the\n"
    "middle one, and starts another. INPUT is a text file; every line is a request, again and\n"
    "again as often as needed. Default: $INPUT, or README.md.\n"
    "\n"
    "  --requests N   requests to serve, 100 or more (default 12000)\n"
    "  --rate R       requests per second, 0 for as fast as possible (default 1000)\n"
    "  --quiet        only the last line; QUIET=1 does the same\n"
    "  --help         this text\n"
    "\n"
    "The last line counts requests that got no answer (lost) and a wrong one, and says how long\n"
    "after SIGKILL stage 1 knew of it (detected), how far the throughput of the worst 100 ms fell\n"
    "below the mean before (dip), and when the replacement answered for the first time (recovered).\n"
    "Exit code: 0 if nothing was lost or wrong, 1 if not, 2 for a wrong argument.\n";

typedef struct {
  Role role;
  int replica;
  int generation;
} Identity;

/* Who rank_pids[i] of common.h is. */
static Identity identities[MAX_RANKS];

/* Starts one process; its arguments are read by child_main. */
static void spawn(const Options* options, Role role, int replica, int generation) {
  char numbers[6][24];
  const pid_t parent = getpid();
  REQUIRE(rank_count < MAX_RANKS);
  snprintf(numbers[0], sizeof numbers[0], "%d", (int)role);
  snprintf(numbers[1], sizeof numbers[1], "%d", replica);
  snprintf(numbers[2], sizeof numbers[2], "%d", generation);
  snprintf(numbers[3], sizeof numbers[3], "%d", options->report_fd);
  snprintf(numbers[4], sizeof numbers[4], "%llu", (unsigned long long)options->requests);
  snprintf(numbers[5], sizeof numbers[5], "%llu", (unsigned long long)options->rate);
  fflush(stdout);
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); /* The supervisor died before prctl. */
    execl("/proc/self/exe", "elastic_pipeline", "--child", numbers[0], numbers[1], numbers[2], numbers[3],
          numbers[4], numbers[5], options->input, (char*)NULL);
    perror("cannot execute this program again");
    _exit(1);
  }
  identities[rank_count].role = role;
  identities[rank_count].replica = replica;
  identities[rank_count].generation = generation;
  rank_pids[rank_count++] = pid;
}

static int child_main(char** arguments) {
  Options options;
  memset(&options, 0, sizeof options);
  options.role = (Role)atoi(arguments[0]);
  options.replica = atoi(arguments[1]);
  options.generation = atoi(arguments[2]);
  options.report_fd = atoi(arguments[3]);
  options.requests = strtoull(arguments[4], NULL, 10);
  options.rate = strtoull(arguments[5], NULL, 10);
  options.input = arguments[6];
  report_init(options.report_fd, options.role);
  model_init();
  switch (options.role) {
    case ROLE_LEADER: run_leader(&options); break;
    case ROLE_STAGE1: run_stage1(); break;
    case ROLE_STAGE2: run_stage2(&options); break;
    case ROLE_STAGE3: run_stage3(); break;
    case ROLE_COUNT: return 2;
  }
  return 0;
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
  for (int i = 0; i < rank_count; ++i) {
    if (identities[i].role != ROLE_STAGE2 || identities[i].replica != VICTIM) continue;
    tell(books, "kill -9 %d: stage2%c", (int)rank_pids[i], 'a' + VICTIM);
    books->killed_at = now_ns();
    REQUIRE(kill(rank_pids[i], SIGKILL) == 0);
  }
}

/* Collects processes that ended. Answers how many are left; -1 if one ended that should not have. */
static int reap(Books* books, const Options* options) {
  int status;
  pid_t pid;
  int left = 0;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    int i = 0;
    while (i < rank_count - 1 && rank_pids[i] != pid) ++i;
    const Identity* who = &identities[i];
    rank_pids[i] = 0;
    if (books->killed_at != 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
        who->role == ROLE_STAGE2 && who->replica == VICTIM && who->generation == 1) {
      tell(books, "a new stage2%c is started", 'a' + VICTIM);
      spawn(options, ROLE_STAGE2, VICTIM, 2);
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      static const char* const names[ROLE_COUNT] = {"the leader", "stage 1", "a stage 2", "stage 3"};
      fprintf(stderr, "%s %s %d\n", names[who->role], WIFSIGNALED(status) ? "died by signal" : "exited with",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
      return -1;
    }
  }
  for (int i = 0; i < rank_count; ++i) left += rank_pids[i] != 0;
  return left;
}

static int supervise(Options* options, int quiet) {
  int fds[2], left;
  Books books;
  choose_store();
  REQUIRE(pipe(fds) == 0 && fcntl(fds[0], F_SETFD, FD_CLOEXEC) == 0);
  options->report_fd = fds[1];
  signal(SIGINT, end_all);
  signal(SIGTERM, end_all);
  signal(SIGALRM, end_all);
  alarm((unsigned)(60 + (options->rate == 0 ? 240 : 3 * options->requests / options->rate)));

  books_open(&books, options, quiet);
  spawn(options, ROLE_LEADER, 0, 1);
  spawn(options, ROLE_STAGE1, 0, 1);
  spawn(options, ROLE_STAGE2, 0, 1);
  spawn(options, ROLE_STAGE2, 1, 1);
  spawn(options, ROLE_STAGE3, 0, 1);
  tell(&books, "started a leader, stage 1, stage2a, stage2b and stage 3");
  do {
    read_reports(&books, fds[0]);
    books_show(&books);
    if (books.killed_at == 0 && books.answered >= options->requests / 3) kill_victim(&books);
    left = reap(&books, options);
  } while (left > 0);
  if (left < 0) {
    kill_ranks();
    return 1;
  }
  read_reports(&books, fds[0]);
  return books_close(&books);
}

/* Reads a number of at least `least`; ends the program with exit code 2 where there is none. */
static uint64_t number(const char* option, const char* text, uint64_t least) {
  char* end = NULL;
  errno = 0;
  unsigned long long value = text == NULL ? 0 : strtoull(text, &end, 10);
  if (text == NULL || *text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < least ||
      value > 100000000) {
    fprintf(stderr, "%s needs a number from %llu to 100000000, not \"%s\"; see --help\n", option,
            (unsigned long long)least, text == NULL ? "" : text);
    exit(2);
  }
  return value;
}

int main(int argc, char** argv) {
  Options options;
  Input input;
  const char* environment = getenv("QUIET");
  int quiet = environment != NULL && environment[0] != '\0' && strcmp(environment, "0") != 0;
  memset(&options, 0, sizeof options);
  if (argc == 9 && strcmp(argv[1], "--child") == 0) return child_main(argv + 2);
  options.requests = 12000;
  options.rate = 1000;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--help") == 0) {
      fputs(usage, stdout);
      return 0;
    } else if (strcmp(argv[i], "--quiet") == 0) {
      quiet = 1;
    } else if (strcmp(argv[i], "--requests") == 0) {
      options.requests = number("--requests", argv[++i], 100);
    } else if (strcmp(argv[i], "--rate") == 0) {
      options.rate = number("--rate", argv[++i], 0);
    } else if (argv[i][0] == '-' || options.input != NULL) {
      fprintf(stderr, "\"%s\" is not understood; see --help\n", argv[i]);
      return 2;
    } else {
      options.input = argv[i];
    }
  }
  if (options.input == NULL) options.input = getenv("INPUT");
  if (options.input == NULL || options.input[0] == '\0') options.input = "README.md";
  if (input_load(&input, options.input) != 0) return 2; /* Better now than in a child. */
  free(input.lines);
  return supervise(&options, quiet);
}
