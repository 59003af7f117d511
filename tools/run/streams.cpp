#include "tools/run/streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mimo {

void prepare_streams() {
  for (int fd = 0; fd <= 2; ++fd)  // open takes the lowest that is free
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) std::_Exit(1);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

int all_written(int status) {
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return status;
  std::fprintf(stderr, "error: [standard output] cannot write: %s\n", std::strerror(errno));
  return status != 0 ? status : 1;
}

}  // namespace mimo
