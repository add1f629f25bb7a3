/* What the user wants, and what each process does that the supervisor starts. */
#include "supervisor.h"

enum { MOST_REQUESTS = 100000000, MOST_ROUNDS = 1000 };

static const char usage[] =
    "usage: elastic_pipeline [options] [INPUT]\n"
    "\n"
    "Serves requests through a pipeline of three stages, kills one of the two replicas of the\n"
    "middle one, and starts another. INPUT is a text file; every line is a request, again and\n"
    "again as often as needed. Default: $INPUT, or README.md.\n"
    "\n"
    "  --recover HOW  how the replacement gets into the dead one's place:\n"
    "                   rejoin  by new worlds with its two neighbours (default)\n"
    "                   reform  by the next epoch of the world that these three have in common\n"
    "                   grow    the leader and four replicas are one world, which is shrunk\n"
    "                           after the death, goes on, and is grown again\n"
    "  --rounds N     kill and replace N times, the replicas in turn (default 1)\n"
    "  --spare        the replacement is there before the kill and waits for it\n"
    "  --requests N   requests to serve, 100 or more (default 12000)\n"
    "  --rate R       requests per second, 0 for as fast as possible (default 1000)\n"
    "  --quiet        only the last line; QUIET=1 does the same\n"
    "  --help         this text\n"
    "\n"
    "The last line counts requests that got no answer (lost) and a wrong one, and says how long\n"
    "after SIGKILL stage 1 knew of it (detected), how far the throughput of the worst 100 ms fell\n"
    "below the mean before (dip), and when the replacement answered for the first time (recovered).\n"
    "With several rounds these times are medians (p50) and maxima, and there is no dip.\n"
    "Exit code: 0 if nothing was lost or wrong, 1 if not, 2 for a wrong argument.\n";

static int child_main(char** arguments) {
  Options options;
  memset(&options, 0, sizeof options);
  options.role = (Role)atoi(arguments[0]);
  options.replica = atoi(arguments[1]);
  options.generation = atoi(arguments[2]);
  options.report_fd = atoi(arguments[3]);
  options.recovery = (Recovery)atoi(arguments[4]);
  options.requests = strtoull(arguments[5], NULL, 10);
  options.rate = strtoull(arguments[6], NULL, 10);
  options.input = arguments[7];
  report_init(options.report_fd, options.role);
  replicas_init(options.recovery);
  model_init();
  if (options.recovery == RECOVER_GROW) {
    if (options.role == ROLE_LEADER) run_pool_leader(&options);
    else run_pool_replica(&options);
    return 0;
  }
  switch (options.role) {
    case ROLE_LEADER: run_leader(&options); break;
    case ROLE_STAGE1: run_stage1(); break;
    case ROLE_STAGE2: run_stage2(&options); break;
    case ROLE_STAGE3: run_stage3(); break;
    case ROLE_COUNT: return 2;
  }
  return 0;
}

/* Reads a number from `least` to `most`; ends the program with exit code 2 where there is none. */
static uint64_t number(const char* option, const char* text, uint64_t least, uint64_t most) {
  char* end = NULL;
  errno = 0;
  unsigned long long value = text == NULL ? 0 : strtoull(text, &end, 10);
  if (text == NULL || *text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < least ||
      value > most) {
    fprintf(stderr, "%s needs a number from %llu to %llu, not \"%s\"; see --help\n", option,
            (unsigned long long)least, (unsigned long long)most, text == NULL ? "" : text);
    exit(2);
  }
  return value;
}

static Recovery recovery(const char* text) {
  static const char* const names[RECOVER_COUNT] = {"rejoin", "reform", "grow"};
  for (int i = 0; text != NULL && i < RECOVER_COUNT; ++i) {
    if (strcmp(text, names[i]) == 0) return (Recovery)i;
  }
  fprintf(stderr, "--recover needs rejoin, reform or grow, not \"%s\"; see --help\n",
          text == NULL ? "" : text);
  exit(2);
}

int main(int argc, char** argv) {
  Plan plan;
  Options* options = &plan.options;
  Input input;
  const char* environment = getenv("QUIET");
  const int quiet = environment != NULL && environment[0] != '\0' && strcmp(environment, "0") != 0;
  memset(&plan, 0, sizeof plan);
  plan.quiet = quiet;
  plan.rounds = 1;
  if (argc == 10 && strcmp(argv[1], "--child") == 0) return child_main(argv + 2);
  options->requests = 12000;
  options->rate = 1000;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--help") == 0) {
      fputs(usage, stdout);
      return 0;
    } else if (strcmp(argv[i], "--quiet") == 0) {
      plan.quiet = 1;
    } else if (strcmp(argv[i], "--spare") == 0) {
      plan.spare = 1;
    } else if (strcmp(argv[i], "--recover") == 0) {
      options->recovery = recovery(argv[++i]);
    } else if (strcmp(argv[i], "--rounds") == 0) {
      plan.rounds = (int)number("--rounds", argv[++i], 1, MOST_ROUNDS);
    } else if (strcmp(argv[i], "--requests") == 0) {
      options->requests = number("--requests", argv[++i], 100, MOST_REQUESTS);
    } else if (strcmp(argv[i], "--rate") == 0) {
      options->rate = number("--rate", argv[++i], 0, MOST_REQUESTS);
    } else if (argv[i][0] == '-' || options->input != NULL) {
      fprintf(stderr, "\"%s\" is not understood; see --help\n", argv[i]);
      return 2;
    } else {
      options->input = argv[i];
    }
  }
  if (options->input == NULL) options->input = getenv("INPUT");
  if (options->input == NULL || options->input[0] == '\0') options->input = "README.md";
  if (input_load(&input, options->input) != 0) return 2; /* Better now than in a child. */
  free(input.lines);
  return supervise(&plan);
}
