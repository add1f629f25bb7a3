/* The supervisor's books: who answered how much and when, told as a time line and summed up in one line. */
#include "pipeline.h"
#include "supervisor.h"

enum { WINDOW_NS = 100000000, STEP_NS = 10000000, SECOND_NS = 1000000000, FRAME_NS = 50000000, BAR = 30 };

void books_open(Books* books, const Plan* plan) {
  memset(books, 0, sizeof *books);
  books->requests = plan->options.requests;
  books->terminal = !plan->quiet && isatty(STDOUT_FILENO);
  books->quiet = plan->quiet;
  books->replicas = plan->options.recovery == RECOVER_GROW ? POOL : REPLICAS;
  books->answer_times = calloc((size_t)books->requests, sizeof *books->answer_times);
  books->round_count = plan->rounds;
  books->rounds = calloc((size_t)plan->rounds, sizeof *books->rounds);
  REQUIRE(books->answer_times != NULL && books->rounds != NULL);
  for (int i = 0; i < plan->rounds; ++i) {
    books->rounds[i].replica = i % books->replicas;
    books->rounds[i].generation = 2 + i / books->replicas;
  }
}

void tell(const Books* books, const char* format, ...) {
  va_list arguments;
  uint64_t time = books->telling != 0 ? books->telling : now_ns();
  if (books->quiet) return;
  if (books->terminal) printf("\r\033[K");
  printf("%7.3f s  ", books->ready_at == 0 ? 0.0 : (double)(time - books->ready_at) / 1e9);
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("\n");
  fflush(stdout);
}

/* The round that is under way, or else the last one. */
static Round* present(const Books* books) {
  return &books->rounds[books->round < books->round_count ? books->round : books->round_count - 1];
}

static double ms_between(uint64_t from, uint64_t to) { return to < from ? 0.0 : (double)(to - from) / 1e6; }

static double ms_since_kill(const Books* books, uint64_t time) {
  return ms_between(present(books)->killed_at, time);
}

static void answer_came(Books* books, const Report* record) {
  Tally* tally = &books->tally[record->replica];
  Round* round = present(books);
  if (books->answered < books->requests) books->answer_times[books->answered] = record->time_ns;
  ++books->answered;
  if (!record->value) {
    ++books->wrong;
    tell(books, "request %llu was answered wrongly", (unsigned long long)record->id);
  }
  ++tally->total;
  if (record->generation == 1) return;
  ++tally->replacement;
  if (round->recovered_at != 0 || record->replica != round->replica) return;
  if (record->generation != round->generation) return;
  round->recovered_at = record->time_ns;
  tell(books, "the new stage2%c answered for the first time, %.1f ms after the kill", 'a' + record->replica,
       ms_since_kill(books, record->time_ns));
  ++books->round;
}

/* The name of a process in the time line. */
static const char* who(int32_t role) {
  static const char* const names[ROLE_COUNT] = {"the leader", "stage 1", "stage 2", "stage 3"};
  REQUIRE(role >= 0 && role < ROLE_COUNT);
  return names[role];
}

void books_enter(Books* books, const Report* record) {
  const int name = 'a' + record->replica;
  books->telling = record->time_ns;
  switch ((ReportKind)record->kind) {
    case REPORT_READY:
      books->ready_at = record->time_ns;
      tell(books, "all worlds stand, requests begin");
      break;
    case REPORT_ANSWER:
      answer_came(books, record);
      break;
    case REPORT_DUPLICATE:
      ++books->duplicates;
      break;
    case REPORT_FAILURE:
      if (record->role != ROLE_STAGE3) present(books)->detected_at = record->time_ns;
      tell(books, "%s sees that stage2%c is dead, %.2f ms after the kill", who(record->role), name,
           ms_since_kill(books, record->time_ns));
      break;
    case REPORT_REROUTED:
      if (record->role == ROLE_LEADER) {
        tell(books, "the leader goes on with the others, %.2f ms after the kill; %lld requests once more",
             ms_since_kill(books, record->time_ns), (long long)record->value);
      } else {
        tell(books, "stage 1 sends %lld requests of stage2%c to the other replica", (long long)record->value,
             name);
      }
      break;
    case REPORT_JOINED:
      tell(books, "%s is connected to the new stage2%c", who(record->role), name);
      break;
    case REPORT_WAITING:
      present(books)->waiting_at = record->time_ns;
      break;
  }
  books->telling = 0;
}

/* Once a second a line; on a terminal a bar as well. */
void books_show(Books* books) {
  uint64_t now = now_ns();
  double seconds = (double)(now - books->shown_at) / 1e9;
  if (books->quiet || books->ready_at == 0 || books->answered == books->requests) return;
  if (books->shown_at == 0) books->shown_at = books->ready_at;
  if (now - books->shown_at >= SECOND_NS) {
    char rates[POOL * 32] = "";
    double sum = 0;
    for (int i = 0; i < books->replicas; ++i) {
      const size_t used = strlen(rates);
      const double rate = (double)(books->tally[i].total - books->tally[i].shown) / seconds;
      books->tally[i].shown = books->tally[i].total;
      snprintf(rates + used, sizeof rates - used, "%s stage2%c %.0f/s", i == 0 ? "" : ",", 'a' + i, rate);
      sum += rate;
    }
    books->shown_at = now;
    tell(books, "%llu answered, %.0f/s:%s", (unsigned long long)books->answered, sum, rates);
  }
  if (books->terminal && now - books->drawn_at >= FRAME_NS) {
    books->drawn_at = now;
    int full = (int)(books->answered * BAR / books->requests);
    printf("\r\033[K[%.*s%.*s] %llu/%llu", full, "##############################", BAR - full,
           "..............................", (unsigned long long)books->answered,
           (unsigned long long)books->requests);
    fflush(stdout);
  }
}

/* How many answers came in [from, from + WINDOW_NS). */
static uint64_t answers_within(const Books* books, uint64_t from) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < books->answered && books->answer_times[i] < from + WINDOW_NS; ++i) {
    count += books->answer_times[i] >= from;
  }
  return count;
}

/* The worst 100 ms between kill and recovery, in percent below the mean before the kill. */
static double dip(const Books* books, const Round* round) {
  uint64_t before = 0;
  double worst, mean;
  while (before < books->answered && books->answer_times[before] < round->killed_at) ++before;
  mean = (double)before * WINDOW_NS / (double)(round->killed_at - books->ready_at);
  worst = mean;
  for (uint64_t from = round->killed_at; from <= round->recovered_at; from += STEP_NS) {
    double count = (double)answers_within(books, from);
    if (count < worst) worst = count;
  }
  return mean > 0 ? 100.0 * (mean - worst) / mean : 0.0;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

/* Sorts `times` and puts their median and maximum in words. */
static void sum_up(double* times, int count, char* text, size_t size) {
  qsort(times, (size_t)count, sizeof *times, ascending);
  const double median = (times[(count - 1) / 2] + times[count / 2]) / 2;
  snprintf(text, size, "p50 %.1f ms max %.1f ms", median, times[count - 1]);
}

static void print_times(const Books* books) {
  const Round* first = &books->rounds[0];
  const int count = books->round_count;
  char detected[64], recovered[64];
  double* times;
  if (count == 1) {
    printf("detected in %.2f ms, dip %.0f %%, recovered in %.0f ms\n",
           ms_between(first->killed_at, first->detected_at), dip(books, first),
           ms_between(first->killed_at, first->recovered_at));
    return;
  }
  times = calloc((size_t)count, sizeof *times);
  REQUIRE(times != NULL);
  for (int i = 0; i < count; ++i) times[i] = ms_between(first[i].killed_at, first[i].detected_at);
  sum_up(times, count, detected, sizeof detected);
  for (int i = 0; i < count; ++i) times[i] = ms_between(first[i].killed_at, first[i].recovered_at);
  sum_up(times, count, recovered, sizeof recovered);
  printf("%d rounds: detected in %s, recovered in %s\n", count, detected, recovered);
  free(times);
}

static void tell_answers(const Books* books) {
  char text[POOL * 64] = "";
  for (int i = 0; i < books->replicas; ++i) {
    const Tally* tally = &books->tally[i];
    const size_t used = strlen(text);
    snprintf(text + used, sizeof text - used, "%sstage2%c %llu", i == 0 ? "" : ", ", 'a' + i,
             (unsigned long long)tally->total);
    if (tally->replacement == 0) continue;
    const size_t end = strlen(text);
    snprintf(text + end, sizeof text - end, " (%llu of them the new one)",
             (unsigned long long)tally->replacement);
  }
  tell(books, "answers: %s; dropped as repeated: %llu", text, (unsigned long long)books->duplicates);
}

int books_close(Books* books) {
  uint64_t right = books->answered - books->wrong;
  uint64_t lost = books->requests - books->answered;
  int failed = lost != 0 || books->wrong != 0;
  tell_answers(books);
  if (books->round < books->round_count) {
    fprintf(stderr, "the run ended before the replacement had answered anything; try more requests\n");
    failed = 1;
  } else {
    printf("requests %llu ok %llu lost %llu wrong %llu, ", (unsigned long long)books->requests,
           (unsigned long long)right, (unsigned long long)lost, (unsigned long long)books->wrong);
    print_times(books);
  }
  free(books->rounds);
  free(books->answer_times);
  return failed;
}
