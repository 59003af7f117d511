#include "tools/bench/torch.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <optional>

#include "tools/bench/bench.h"
#include "tools/bench/options.h"

namespace mimo::bench {
namespace {

// Every function returns a call, which is timed as ours are: many between two events. It is asked again after
// each repetition of ours, so that the two alternate; the fastest counts.
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
try:
    import torch._functorch.config
    torch._functorch.config.donated_buffer = False  # a graph is differentiated many times
except Exception: pass
say('%s, CUDA %s, cuDNN %s' % (torch.__version__, torch.version.cuda, torch.backends.cudnn.version()))
f32, bf16 = torch.float32, torch.bfloat16

def seconds(call, n):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(n): call()
    end.record(); end.synchronize()
    return begin.elapsed_time(end) / n * 1e-3

def random(*shape, dtype=bf16): return torch.rand(*shape, device='cuda', dtype=dtype) * 2 - 1

def gradient(f, *inputs):  # of f, called once
    for x in inputs: x.requires_grad_()
    y = f()
    dy = random(*y.shape, dtype=y.dtype)
    return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)

def either(backward, f, *inputs): return gradient(f, *inputs) if backward else f

def sdpa(backend, backward, sequences, length, heads, kv_heads, dim, causal, dtype):
    from torch.nn.attention import sdpa_kernel, SDPBackend
    q, k, v = (random(sequences, length, h, dim, dtype=dtype).transpose(1, 2) for h in (heads, kv_heads, kv_heads))
    options = {} if heads == kv_heads else {'enable_gqa': True}
    def forward():
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, **options)
    return either(backward, forward, q, k, v)

def matmul(m, n, k, dtype):
    x, w = random(m, k, dtype=dtype), random(n, k, dtype=dtype)
    return lambda: F.linear(x, w)

def adamw(tensors, total):
    parameters = [torch.nn.Parameter(random(total // tensors, dtype=f32)) for _ in range(tensors)]
    for p in parameters: p.grad = random(p.numel(), dtype=f32)
    return torch.optim.AdamW(parameters, lr=1e-6, fused=True).step

def rms_norm(backward, rows, cols, dtype):
    x, w = random(rows, cols, dtype=dtype), random(cols, dtype=dtype)
    return either(backward, lambda: F.rms_norm(x, (cols,), w, 1e-5), x, w)

def layer_norm(backward, rows, cols, dtype):
    x, w, b = random(rows, cols, dtype=dtype), random(cols, dtype=dtype), random(cols, dtype=dtype)
    return either(backward, lambda: F.layer_norm(x, (cols,), w, b, 1e-5), x, w, b)

@torch.compile(dynamic=False)
def swiglu_of(x):
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up

def swiglu(backward, rows, cols, dtype):
    x = random(rows, 2 * cols, dtype=dtype)
    return either(backward, lambda: swiglu_of(x), x)

@torch.compile(dynamic=False)
def gated_norm_of(y, z, w, groups):
    u = (y.float() * F.silu(z.float())).unflatten(-1, (groups, -1))
    return ((u * torch.rsqrt(u.square().mean(-1, keepdim=True) + 1e-5)).flatten(-2) * w).to(y.dtype)

def gated_norm(backward, rows, cols, groups, dtype):
    y, z, w = random(rows, cols, dtype=dtype), random(rows, cols, dtype=dtype), random(cols, dtype=dtype)
    return either(backward, lambda: gated_norm_of(y, z, w, groups), y, z, w)

def cross_entropy(rows, vocab, dtype):  # forward and backward
    x, labels = random(rows, vocab, dtype=dtype).requires_grad_(), torch.arange(rows, device='cuda') * 7919 % vocab
    return lambda: torch.autograd.grad(F.cross_entropy(x, labels, reduction='sum'), x)

def conv1d(backward, sequences, length, channels, width, dtype):
    x, w, b = random(sequences, channels, length, dtype=dtype), random(channels, 1, width, dtype=dtype), random(channels, dtype=dtype)
    return either(backward, lambda: F.silu(F.conv1d(x, w, b, padding=width - 1, groups=channels)[..., :length]), x, w, b)

def ssd(backward, sequences, length, heads, head_dim, groups, state, dtype):
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    x, dt = random(sequences, length, heads, head_dim, dtype=dtype), random(sequences, length, heads, dtype=dtype)
    b, c = (random(sequences, length, groups, state, dtype=dtype) for _ in range(2))
    a, d, bias = -torch.rand(heads, device='cuda') - 0.5, random(heads, dtype=f32), random(heads, dtype=f32)
    return either(backward, lambda: mamba_chunk_scan_combined(x, dt, a, b, c, 256, D=d, dt_bias=bias, dt_softplus=True),
                  x, dt, a, b, c, d, bias)

known = {}  # the calls of the case in hand, and how many of each take 5 ms
for line in sys.stdin:
    try:
        if line not in known:
            if len(known) > 1: del known[next(iter(known))]
            torch.cuda.empty_cache()
            call = eval(line)
            seconds(call, 3)
            known[line] = call, max(1, min(1000, int(5e-3 / seconds(call, 1))))
        say('%.9f' % seconds(*known[line]))
    except Exception as e:
        known.clear()
        say('!', (str(e) or repr(e)).splitlines()[0])
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

  // The fastest so far; 0: not to be had, for a reason that is kept under the name.
  double seconds(const std::string& name, const std::string& expression) {
    double& best = answers_.try_emplace(expression, std::numeric_limits<double>::infinity()).first->second;
    if (best == 0 || !running_) return 0;
    const std::string line = expression + "\n";
    std::optional<std::string> answer;
    if (write(to_, line.data(), line.size()) == static_cast<ssize_t>(line.size())) answer = read_line();
    if (answer && !answer->starts_with("!")) return best = std::min(best, std::atof(answer->c_str()));
    absences_.try_emplace(name,
                          answer ? answer->substr(std::min<size_t>(2, answer->size())) : "python3 ended");
    if (!answer) stop();
    return best = 0;
  }
  const std::map<std::string, std::string>& absences() const { return absences_; }

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
  std::map<std::string, double> answers_;        // by expression
  std::map<std::string, std::string> absences_;  // by name: why, the first time
};

Child& child() {
  static Child c;
  return c;
}

}  // namespace

std::string torch_state() { return child().state(); }

std::map<std::string, std::string> torch_absences() { return child().absences(); }

void compare_with_torch(benchmark::State& state, const std::string& name, const std::string& expression) {
  if (!on_gpu() || options().check) return;
  if (const double seconds = child().seconds(name, expression); seconds > 0)
    state.counters["baseline " + name] = seconds;
}

const char* python(bool b) { return b ? "True" : "False"; }

}  // namespace mimo::bench
