#include "parallel/heartbeat.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <random>
#include <sstream>

#include "parallel/buffers.h"
#include "tensor/clock.h"

namespace mimo {
namespace {

constexpr int kConnectMs = 2000;        // for one address
constexpr double kConnectSeconds = 10;  // for all ranks

std::atomic<int64_t> steps{0};
std::atomic<int> waiting{0};

// What a rank says when it connects, and rank 0 answers: that both are of this job.
struct Hello {
  uint64_t token;
  int64_t rank;
};

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& s) noexcept : fd_(std::exchange(s.fd_, -1)) {}
  Socket& operator=(Socket&& s) noexcept {
    std::swap(fd_, s.fd_);
    return *this;
  }
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool valid() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

  bool ready(short events, int milliseconds) const {
    pollfd p{fd_, events, 0};
    int n;
    do n = ::poll(&p, 1, milliseconds);
    while (n < 0 && errno == EINTR);
    return n > 0;
  }
  bool send(const Hello& h) const { return ::send(fd_, &h, sizeof h, MSG_NOSIGNAL) == sizeof h; }
  bool receive(Hello& h) const {
    size_t done = 0;
    while (done < sizeof h) {
      if (!ready(POLLIN, kConnectMs)) return false;
      const ssize_t n = ::recv(fd_, reinterpret_cast<char*>(&h) + done, sizeof h - done, 0);
      if (n <= 0) return false;
      done += static_cast<size_t>(n);
    }
    return true;
  }

 private:
  int fd_;
};

Socket open_socket() { return Socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

// This machine's addresses, the loopback's first: another rank is most often beside this one, and where it is
// not, that address is refused at once or does not know the token.
std::string own_addresses() {
  std::string all = "127.0.0.1";
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return all;
  for (const ifaddrs* a = list; a; a = a->ifa_next) {
    if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || !(a->ifa_flags & IFF_UP)) continue;
    if (a->ifa_flags & IFF_LOOPBACK) continue;
    char text[INET_ADDRSTRLEN];
    all += std::string(" ") + inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(a->ifa_addr)->sin_addr,
                                        text, sizeof text);
  }
  freeifaddrs(list);
  return all;
}

std::optional<Socket> connect_to(const std::string& address, uint16_t port, const Hello& hello) {
  Socket s = open_socket();
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  if (!s.valid() || inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) return {};
  if (::connect(s.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
    int error = 0;
    socklen_t length = sizeof error;
    if (errno != EINPROGRESS || !s.ready(POLLOUT, kConnectMs) ||
        getsockopt(s.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0)
      return {};
  }
  Hello answer{};
  if (!s.send(hello) || !s.receive(answer) || answer.token != hello.token) return {};
  return s;
}

}  // namespace

void advance() { steps.fetch_add(1, std::memory_order_relaxed); }
int64_t progress() { return steps.load(std::memory_order_relaxed); }

WaitsForOthers::WaitsForOthers() { waiting.fetch_add(1, std::memory_order_relaxed); }
WaitsForOthers::~WaitsForOthers() { waiting.fetch_sub(1, std::memory_order_relaxed); }
bool WaitsForOthers::any() { return waiting.load(std::memory_order_relaxed) > 0; }

Heartbeat::Heartbeat(Communicator& world) {
  const int size = world.size(), rank = world.rank();
  if (size == 1) return;
  // Rank 0 listens and says where.
  Socket listener(-1);
  std::string where;
  uint64_t token = 0;
  if (rank == 0) {
    std::random_device random;
    token = uint64_t{random()} << 32 | random();
    listener = open_socket();
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_ANY);
    socklen_t length = sizeof at;
    if (listener.valid() && ::bind(listener.get(), reinterpret_cast<sockaddr*>(&at), length) == 0 &&
        ::listen(listener.get(), SOMAXCONN) == 0 &&
        ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&at), &length) == 0)
      where = std::to_string(token) + ' ' + std::to_string(ntohs(at.sin_port)) + ' ' + own_addresses();
  }
  where = broadcast(world, where, 0);
  std::istringstream words(where);
  uint16_t port = 0;
  words >> token >> port;

  std::vector<Link> links;
  const auto add = [&](int peer, Socket s) {
    Link& link = links.emplace_back();
    link.peer.rank = peer;
    link.fd = s.release();
  };
  if (rank > 0) {
    for (std::string address; links.empty() && words >> address;)
      if (auto s = connect_to(address, port, {token, rank})) add(0, std::move(*s));
  } else if (!where.empty()) {
    std::vector<bool> have(static_cast<size_t>(size), false);
    const double end = now() + kConnectSeconds;
    while (static_cast<int>(links.size()) < size - 1 && now() < end) {
      if (!listener.ready(POLLIN, 100)) continue;
      Socket s(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      Hello hello{};
      if (!s.valid() || !s.receive(hello) || hello.token != token || hello.rank < 1 || hello.rank >= size ||
          have[static_cast<size_t>(hello.rank)] || !s.send({token, 0}))
        continue;
      have[static_cast<size_t>(hello.rank)] = true;
      add(static_cast<int>(hello.rank), std::move(s));
    }
  }
  std::ranges::sort(links, {}, [](const Link& link) { return link.peer.rank; });  // they came as they came
  links_ = std::move(links);
  int32_t all = static_cast<int>(links_.size()) == (rank == 0 ? size - 1 : 1);
  world.all_reduce({&all, 1, DType::i32}, ReduceOp::min, current_stream()).wait();
  if (all) return;
  for (Link& link : links_) ::close(link.fd);
  links_.clear();
}

Heartbeat::~Heartbeat() {
  for (const Link& link : links_)
    if (link.fd >= 0) ::close(link.fd);
}

void Heartbeat::exchange(const Beat& mine, double seconds) {
  for (Link& link : links_) {
    Peer& peer = link.peer;
    peer.silent += seconds;
    if (link.fd < 0) continue;
    // One that does not read, as it is stopped, gets no more than the rest of a message.
    if (link.out.empty()) link.out.assign(reinterpret_cast<const char*>(&mine), sizeof mine);
    const ssize_t sent = ::send(link.fd, link.out.data(), link.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) link.out.erase(0, static_cast<size_t>(sent));
    char buffer[16 * sizeof(Beat)];
    ssize_t got;
    while ((got = ::recv(link.fd, buffer, sizeof buffer, MSG_DONTWAIT)) > 0)
      link.in.append(buffer, static_cast<size_t>(got));
    const size_t whole = link.in.size() / sizeof(Beat);
    if (whole > 0) {
      std::memcpy(&peer.last, link.in.data() + (whole - 1) * sizeof(Beat), sizeof(Beat));
      peer.last.what[sizeof peer.last.what - 1] = '\0';
      link.in.erase(0, whole * sizeof(Beat));
      peer.silent = 0;
    }
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
      peer.left = true;
      ::close(std::exchange(link.fd, -1));
    }
  }
}

std::vector<Heartbeat::Peer> Heartbeat::peers() const {
  std::vector<Peer> all;
  for (const Link& link : links_) all.push_back(link.peer);
  return all;
}

}  // namespace mimo
