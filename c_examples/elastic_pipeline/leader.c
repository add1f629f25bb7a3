/* The leader feeds requests at a fixed rate and checks every answer against a reference made beforehand. */
#include "pipeline.h"

typedef struct {
  uint64_t next;             /* the id to send next */
  uint64_t oldest;           /* every id below is answered */
  unsigned char answered[WINDOW];
  float (*expected)[LOGITS]; /* one per line of the input */
  const Options* options;
} Book;

static Input input;
static Message outgoing, incoming;

int input_load(Input* loaded, const char* path) {
  char line[4096];
  size_t capacity = 0;
  FILE* file = fopen(path, "r");
  loaded->lines = NULL;
  loaded->count = 0;
  if (file == NULL) {
    fprintf(stderr, "cannot read the input %s: %s\n", path, strerror(errno));
    return -1;
  }
  while (fgets(line, sizeof line, file) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '\0') continue;
    if (loaded->count == capacity) {
      capacity = capacity == 0 ? 256 : 2 * capacity;
      loaded->lines = realloc(loaded->lines, capacity * sizeof *loaded->lines);
      REQUIRE(loaded->lines != NULL);
    }
    memset(loaded->lines[loaded->count], 0, TEXT_BYTES);
    memcpy(loaded->lines[loaded->count], line, strnlen(line, TEXT_BYTES - 1)); /* What is longer is cut. */
    ++loaded->count;
  }
  if (ferror(file)) {
    fprintf(stderr, "cannot read the input %s: %s\n", path, strerror(errno));
    fclose(file);
    return -1;
  }
  fclose(file);
  if (loaded->count == 0) {
    fprintf(stderr, "the input %s has no line that is not empty\n", path);
    return -1;
  }
  return 0;
}

/* The whole pipeline in one process: the same functions in the same order, so equal bit for bit. */
static void compute_reference(Book* book) {
  float values[DIM], transformed[DIM];
  book->expected = calloc(input.count, sizeof *book->expected);
  REQUIRE(book->expected != NULL);
  for (size_t i = 0; i < input.count; ++i) {
    model_embed(input.lines[i], values);
    model_transform(values, transformed);
    model_classify(transformed, book->expected[i]);
  }
}

/* Puts the next message into `outgoing` if one may be sent by now. */
static int next_message(Book* book, uint64_t start) {
  const Options* options = book->options;
  memset(&outgoing, 0, sizeof outgoing);
  outgoing.id = book->next;
  outgoing.completed = book->oldest;
  if (book->next == options->requests) {
    outgoing.kind = MESSAGE_STOP;
    return book->oldest == options->requests;
  }
  if (book->next > options->requests || book->next >= book->oldest + WINDOW) return 0;
  if (options->rate != 0 && (now_ns() - start) * options->rate < book->next * 1000000000u) return 0;
  outgoing.kind = MESSAGE_REQUEST;
  memcpy(outgoing.payload.text, input.lines[book->next % input.count], TEXT_BYTES);
  return 1;
}

static void answer_came(Book* book) {
  uint64_t id = incoming.id;
  REQUIRE(id < book->next);
  /* A request that was repeated after a failure can be answered twice. */
  if (id < book->oldest || book->answered[id % WINDOW]) {
    report(REPORT_DUPLICATE, id, incoming.replica, incoming.generation, 0);
    return;
  }
  const float* expected = book->expected[id % input.count];
  int right = memcmp(incoming.payload.logits, expected, sizeof *book->expected) == 0;
  report(REPORT_ANSWER, id, incoming.replica, incoming.generation, right);
  book->answered[id % WINDOW] = 1;
  while (book->oldest < book->next && book->answered[book->oldest % WINDOW]) {
    book->answered[book->oldest % WINDOW] = 0;
    ++book->oldest;
  }
}

void run_leader(const Options* options) {
  Link stage1, stage3;
  Book book;
  memset(&book, 0, sizeof book);
  book.options = options;
  REQUIRE(input_load(&input, options->input) == 0);
  compute_reference(&book);
  /* Stage 3 joins this last world after all its others, so once it stands all of them do. */
  link_join(&stage1, "leader-stage1", 0);
  link_join(&stage3, "stage3-leader", 0);
  report(REPORT_READY, 0, 0, 0, 0);
  uint64_t start = now_ns();

  /* One send and one receive are on their way at the same time: the leader never waits for one of them alone,
   * so the pipeline cannot fill up and lock. */
  mwRequest_t requests[2] = {NULL, NULL};
  requests[1] = link_post_recv(&stage3, &incoming, sizeof incoming);
  for (;;) {
    int index = -1;
    if (requests[0] == NULL && next_message(&book, start)) {
      requests[0] = link_post_send(&stage1, &outgoing, sizeof outgoing);
      ++book.next;
    }
    if (mwRequestWaitAny(2, requests, &index, 1) == mwInProgress) continue;
    REQUIRE(index == 0 || index == 1);
    MW_CHECK(mwRequestWait(requests[index], -1));
    MW_CHECK(mwRequestFree(requests[index]));
    requests[index] = NULL;
    if (index == 0) continue;
    if (incoming.kind == MESSAGE_STOP) break;
    answer_came(&book);
    requests[1] = link_post_recv(&stage3, &incoming, sizeof incoming);
  }
  if (requests[0] != NULL) {
    MW_CHECK(mwRequestWait(requests[0], -1));
    MW_CHECK(mwRequestFree(requests[0]));
  }
  link_destroy(&stage3);
  link_destroy(&stage1);
  free(book.expected);
  free(input.lines);
}
