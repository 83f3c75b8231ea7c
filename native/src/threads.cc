#include "threads.h"

#include <algorithm>
#include <string>
#include <system_error>

#include "json.h"

#if !defined(_WIN32) && !defined(__wasm__)
#include <unistd.h>
#define SQB_FORK 1
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace sqb {

namespace {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins that long before letting others run: about 50 microseconds.
constexpr int kSpins = 2000;

template <class Done>
void spin_until(Done done) {
  for (int i = 0; !done(); ++i) {
    if (i < kSpins)
      relax();
    else
      std::this_thread::yield();
  }
}

long this_process() {
#if SQB_FORK
  return ::getpid();
#else
  return 0;
#endif
}

}  // namespace

Team::Team(int threads) : threads_(std::max(1, threads)), process_(this_process()), taken_(static_cast<size_t>(threads_)) {
  workers_.reserve(static_cast<size_t>(threads_));
  // A thread that is dropped without being joined ends the program.
  try {
    for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
    end();
    throw InputError("the system refuses to start " + std::to_string(threads_) + " threads; ask for fewer");
  } catch (const std::bad_alloc&) {
    end();
    throw;
  }
}

Team::~Team() { end(); }

bool Team::here() const { return threads_ == 1 || process_ == this_process(); }

void Team::end() {
  {
    const std::lock_guard<std::mutex> lock(sleep_);
    stop_.store(true);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Team::run(const std::function<void(Member&)>& job) {
  if (threads_ > 1) {
    {
      const std::lock_guard<std::mutex> lock(sleep_);
      job_ = &job;
      jobs_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
  }
  Member self(this, 0, threads_);
  job(self);
  if (threads_ == 1) return;
  barrier();
  if (out_of_memory_.exchange(false, std::memory_order_relaxed)) throw std::bad_alloc();
}

void Team::work(int index) {
  uint32_t seen = 0;
  for (;;) {
    const auto called = [&] { return jobs_.load(std::memory_order_acquire) != seen || stop_.load(std::memory_order_relaxed); };
    for (int i = 0; i < kSpins && !called(); ++i) relax();
    if (!called()) {
      std::unique_lock<std::mutex> lock(sleep_);
      wake_.wait(lock, called);
    }
    if (stop_.load(std::memory_order_relaxed)) return;
    ++seen;
    Member self(this, index, threads_);
    (*job_)(self);
    barrier();
  }
}

void Team::barrier() {
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    for (Taken& each : taken_) each.items.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
  } else {
    spin_until([&] { return phase_.load(std::memory_order_acquire) != phase; });
  }
}

}  // namespace sqb
