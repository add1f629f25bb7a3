/* The requests: what is asked, at which rate, and whether the answers are right. */
#include "pipeline.h"

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
static void compute_reference(Requests* requests) {
  float values[DIM], transformed[DIM];
  const Input* input = &requests->input;
  requests->expected = calloc(input->count, sizeof *requests->expected);
  REQUIRE(requests->expected != NULL);
  for (size_t i = 0; i < input->count; ++i) {
    model_embed(input->lines[i], values);
    model_transform(values, transformed);
    model_classify(transformed, requests->expected[i]);
  }
}

void requests_open(Requests* requests, const Options* options) {
  memset(requests, 0, sizeof *requests);
  requests->options = options;
  REQUIRE(input_load(&requests->input, options->input) == 0);
  compute_reference(requests);
}

void requests_close(Requests* requests) {
  free(requests->expected);
  free(requests->input.lines);
}

int requests_next(Requests* requests, Message* message) {
  const Options* options = requests->options;
  const uint64_t id = requests->next;
  if (requests->start == 0) requests->start = now_ns();
  if (id > options->requests || id >= requests->oldest + WINDOW) return 0;
  if (id == options->requests && requests->oldest < id) return 0;
  if (id < options->requests && options->rate != 0 &&
      (now_ns() - requests->start) * options->rate < id * 1000000000u) {
    return 0;
  }
  memset(message, 0, sizeof *message);
  message->id = id;
  message->completed = requests->oldest;
  message->kind = id == options->requests ? MESSAGE_STOP : MESSAGE_REQUEST;
  if (message->kind == MESSAGE_REQUEST) {
    memcpy(message->payload.text, requests->input.lines[id % requests->input.count], TEXT_BYTES);
  }
  ++requests->next;
  return 1;
}

void requests_answered(Requests* requests, const Message* answer) {
  const uint64_t id = answer->id;
  REQUIRE(id < requests->next);
  /* A request that was repeated after a failure can be answered twice. */
  if (id < requests->oldest || requests->answered[id % WINDOW]) {
    report(REPORT_DUPLICATE, id, answer->replica, answer->generation, 0);
    return;
  }
  const float* expected = requests->expected[id % requests->input.count];
  int right = memcmp(answer->payload.logits, expected, sizeof *requests->expected) == 0;
  report(REPORT_ANSWER, id, answer->replica, answer->generation, right);
  requests->answered[id % WINDOW] = 1;
  while (requests->oldest < requests->next && requests->answered[requests->oldest % WINDOW]) {
    requests->answered[requests->oldest % WINDOW] = 0;
    ++requests->oldest;
  }
}
