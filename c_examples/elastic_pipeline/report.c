/* Reports are smaller than PIPE_BUF, so processes can share one pipe: no two of them ever mix. */
#include "pipeline.h"

static int report_fd = -1;
static Role report_role;

void report_init(int fd, Role role) {
  report_fd = fd;
  report_role = role;
}

void report(ReportKind kind, uint64_t id, int replica, int generation, int64_t value) {
  Report record;
  ssize_t written;
  memset(&record, 0, sizeof record);
  record.time_ns = now_ns();
  record.kind = kind;
  record.role = report_role;
  record.id = id;
  record.replica = replica;
  record.generation = generation;
  record.value = value;
  do {
    written = write(report_fd, &record, sizeof record);
  } while (written < 0 && errno == EINTR);
  REQUIRE(written == (ssize_t)sizeof record);
}
