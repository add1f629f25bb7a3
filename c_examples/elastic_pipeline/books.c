/* The supervisor's books: who answered how much and when, told as a time line and summed up in one line. */
#include "pipeline.h"
#include "supervisor.h"

enum { WINDOW_NS = 100000000, STEP_NS = 10000000, SECOND_NS = 1000000000, FRAME_NS = 50000000, BAR = 30 };

void books_open(Books* books, const Options* options, int quiet) {
  memset(books, 0, sizeof *books);
  books->requests = options->requests;
  books->terminal = !quiet && isatty(STDOUT_FILENO);
  books->quiet = quiet;
  books->answer_times = calloc((size_t)options->requests, sizeof *books->answer_times);
  REQUIRE(books->answer_times != NULL);
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

static double ms_since_kill(const Books* books, uint64_t time) {
  return time < books->killed_at ? 0.0 : (double)(time - books->killed_at) / 1e6;
}

static void answer_came(Books* books, const Report* record) {
  Tally* tally = &books->tally[record->replica];
  if (books->answered < books->requests) books->answer_times[books->answered] = record->time_ns;
  ++books->answered;
  if (!record->value) {
    ++books->wrong;
    tell(books, "request %llu was answered wrongly", (unsigned long long)record->id);
  }
  ++tally->total;
  if (record->generation == 1) return;
  if (books->recovered_at == 0) {
    books->recovered_at = record->time_ns;
    tell(books, "the new stage2%c answered for the first time, %.1f ms after the kill", 'a' + record->replica,
         ms_since_kill(books, record->time_ns));
  }
  ++tally->replacement;
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
      if (record->role == ROLE_STAGE1) books->detected_at = record->time_ns;
      tell(books, "stage %d sees that stage2%c is dead, %.2f ms after the kill",
           record->role == ROLE_STAGE1 ? 1 : 3, name, ms_since_kill(books, record->time_ns));
      break;
    case REPORT_REROUTED:
      tell(books, "stage 1 sends %lld requests of stage2%c to the other replica", (long long)record->value,
           name);
      break;
    case REPORT_JOINED:
      tell(books, "stage %d is connected to the new stage2%c", record->role == ROLE_STAGE1 ? 1 : 3, name);
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
    double rates[REPLICAS];
    for (int i = 0; i < REPLICAS; ++i) {
      rates[i] = (double)(books->tally[i].total - books->tally[i].shown) / seconds;
      books->tally[i].shown = books->tally[i].total;
    }
    books->shown_at = now;
    tell(books, "%llu answered, %.0f/s: stage2a %.0f/s, stage2b %.0f/s", (unsigned long long)books->answered,
         rates[0] + rates[1], rates[0], rates[1]);
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
static double dip(const Books* books) {
  uint64_t before = 0;
  double worst, mean;
  while (before < books->answered && books->answer_times[before] < books->killed_at) ++before;
  mean = (double)before * WINDOW_NS / (double)(books->killed_at - books->ready_at);
  worst = mean;
  for (uint64_t from = books->killed_at; from <= books->recovered_at; from += STEP_NS) {
    double count = (double)answers_within(books, from);
    if (count < worst) worst = count;
  }
  return mean > 0 ? 100.0 * (mean - worst) / mean : 0.0;
}

int books_close(Books* books) {
  uint64_t right = books->answered - books->wrong;
  uint64_t lost = books->requests - books->answered;
  const Tally* tally = books->tally;
  tell(books, "answers: stage2a %llu (%llu of them the new one), stage2b %llu; dropped as repeated: %llu",
       (unsigned long long)tally[0].total, (unsigned long long)tally[0].replacement,
       (unsigned long long)tally[1].total, (unsigned long long)books->duplicates);
  if (books->killed_at == 0 || books->detected_at == 0 || books->recovered_at == 0) {
    fprintf(stderr, "the run ended before the replacement had answered anything; try more requests\n");
    free(books->answer_times);
    return 1;
  }
  printf("requests %llu ok %llu lost %llu wrong %llu, "
         "detected in %.2f ms, dip %.0f %%, recovered in %.0f ms\n",
         (unsigned long long)books->requests, (unsigned long long)right, (unsigned long long)lost,
         (unsigned long long)books->wrong, ms_since_kill(books, books->detected_at), dip(books),
         ms_since_kill(books, books->recovered_at));
  free(books->answer_times);
  return lost == 0 && books->wrong == 0 ? 0 : 1;
}
