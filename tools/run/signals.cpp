#include <csignal>
#include <cstdlib>
#include <thread>

#include "tools/run/commands.h"
#include "tools/run/trainer.h"

namespace mimo {

// A thread waits for the signals; no handler may run, as it could interrupt a library that is not made for it
// (one during a product of oneDNN 2.6.3, when products were its, corrupted the heap).
void stop_on_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  struct sigaction interrupt {};
  sigaction(SIGINT, nullptr, &interrupt);
  if (interrupt.sa_handler != SIG_IGN) sigaddset(&signals, SIGINT);  // a script's background job ignores it
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);                     // of all threads that this one starts
  std::thread([signals] {
    for (int signal = 0; sigwait(&signals, &signal) == 0;)
      if (signal == SIGINT && Trainer::stop_requested.exchange(true))
        std::_Exit(128 + SIGINT);  // a second Ctrl-C: at once
      else
        Trainer::stop_requested = true;
  }).detach();
}

}  // namespace mimo
