#include "tools/bench/torch.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <optional>

#include "tools/bench/bench.h"
#include "tools/bench/options.h"

namespace mimo::bench {
namespace {

// Every function is timed as ours are: many calls between two events, the fastest of five.
constexpr const char* script = R"(
import sys
def say(*words): print(*words, flush=True)
try:
    import torch
    import torch.nn.functional as F
    torch.zeros(1, device='cuda')
except Exception as e:
    say('!', 'not measured:', (str(e) or repr(e)).splitlines()[0]); sys.exit()
torch.backends.cuda.matmul.allow_tf32 = False
torch.manual_seed(1)
say('%s, CUDA %s, cuDNN %s' % (torch.__version__, torch.version.cuda, torch.backends.cudnn.version()))

def timed(call):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    def seconds(n):
        begin.record()
        for _ in range(n): call()
        end.record(); end.synchronize()
        return begin.elapsed_time(end) / n * 1e-3
    seconds(3)
    n = max(1, min(1000, int(5e-3 / seconds(1))))
    return min(seconds(n) for _ in range(5))

def random(*shape, dtype=torch.bfloat16): return torch.rand(*shape, device='cuda', dtype=dtype) * 2 - 1

def sdpa(backend, backward, sequences, length, heads, kv_heads, dim, causal, dtype):
    from torch.nn.attention import sdpa_kernel, SDPBackend
    q, k, v = (random(sequences, length, h, dim, dtype=dtype).transpose(1, 2).requires_grad_(backward)
               for h in (heads, kv_heads, kv_heads))
    options = {} if heads == kv_heads else {'enable_gqa': True}
    with sdpa_kernel(getattr(SDPBackend, backend)):
        forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, **options)
        if not backward: return timed(forward)
        o = forward()
        do = torch.ones_like(o)
        return timed(lambda: torch.autograd.grad(o, (q, k, v), do, retain_graph=True))

def matmul(m, n, k, dtype):
    x, w = random(m, k, dtype=dtype), random(n, k, dtype=dtype)
    return timed(lambda: F.linear(x, w))

def adamw(tensors, total):
    parameters = [torch.nn.Parameter(random(total // tensors, dtype=torch.float32)) for _ in range(tensors)]
    for p in parameters: p.grad = random(p.numel(), dtype=torch.float32)
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    return timed(optimizer.step)

f32, bf16 = torch.float32, torch.bfloat16
for line in sys.stdin:
    try:
        say('%.9f' % eval(line))
    except Exception as e:
        say('!', (str(e) or repr(e)).splitlines()[0])
    torch.cuda.empty_cache()
)";

class Child {
 public:
  Child() {
    if (!options().torch) {
      state_ = "not measured: --torch=no";
      return;
    }
    int in[2], out[2];
    signal(SIGPIPE, SIG_IGN);
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
      execlp("python3", "python3", "-u", "-c", script, nullptr);
      _exit(127);
    }
    close(in[0]), close(out[1]);
    to_ = in[1], from_ = out[0];
    const std::optional<std::string> answer = read_line();
    running_ = answer && !answer->starts_with("!");
    if (answer) state_ = answer->substr(running_ ? 0 : std::min<size_t>(2, answer->size()));
    if (!running_) stop();
  }
  ~Child() { stop(); }

  const std::string& state() const { return state_; }

  // 0: not to be had.
  double seconds(const std::string& expression) {
    const auto known = answers_.find(expression);
    if (known != answers_.end()) return known->second;
    double result = 0;
    const std::string line = expression + "\n";
    if (running_ && write(to_, line.data(), line.size()) == static_cast<ssize_t>(line.size())) {
      const std::optional<std::string> answer = read_line();
      if (!answer) stop();
      if (answer && !answer->starts_with("!")) result = std::atof(answer->c_str());
    }
    return answers_[expression] = result;
  }

 private:
  // Nothing where it ended, or says nothing for two minutes.
  std::optional<std::string> read_line() {
    std::string line;
    for (char c;;) {
      pollfd waiting{from_, POLLIN, 0};
      if (poll(&waiting, 1, 120000) <= 0 || read(from_, &c, 1) != 1) return std::nullopt;
      if (c == '\n') return line;
      line += c;
    }
  }
  void stop() {
    running_ = false;
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(to_), close(from_);
    pid_ = -1;
  }

  std::string state_ = "not measured: no python3";
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
  bool running_ = false;
  std::map<std::string, double> answers_;
};

Child& child() {
  static Child c;
  return c;
}

}  // namespace

std::string torch_state() { return child().state(); }

void compare_with_torch(benchmark::State& state, const std::string& name, const std::string& expression) {
  if (!on_gpu()) return;
  if (const double seconds = child().seconds(expression); seconds > 0)
    state.counters["baseline " + name] = seconds;
}

}  // namespace mimo::bench
