// A few threads that run one function together and meet at barriers.
//
// One forward pass is one job: between its phases the threads wait for one another by spinning, which at a millisecond
// a phase costs less than going to sleep. After a job they spin a little longer, then sleep until the next.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace sqb {

class Team;

// What a thread of a job knows: which it is, and how to share the work.
class Member {
 public:
  Member(Team* team, int index, int threads) : team_(team), index_(index), threads_(threads) {}
  int index() const { return index_; }
  int threads() const { return threads_; }
  // Calls work(i) for an equal share of `count` items, then for those that slower threads have not come to. So equal
  // counts give a thread the same share again, whose data its caches hold: what another core wrote costs more to read than
  // L3. Every thread must call this, in the same order; none leaves before all items are done (at once where there are none).
  template <class Work>
  void share(int count, Work&& work);

 private:
  template <class Work>
  void take_from(int thread, int count, Work& work);

  Team* team_;
  int index_;
  int threads_;
};

class Team {
 public:
  // The calling thread counts as one: threads - 1 are started. Throws InputError where the system refuses one.
  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;

  int threads() const { return threads_; }
  // Whether the threads are there: a process that was forked off has the memory, but not the threads. A team of more than
  // one can then neither run nor be destroyed, for what waits in it never wakes.
  bool here() const;
  // Runs job on every thread; one caller at a time (see busy()). What the job shares out may throw std::bad_alloc, which
  // comes out here when all have met; nothing else may be thrown.
  void run(const std::function<void(Member&)>& job);
  // To be held while running.
  std::mutex& busy() { return busy_; }

 private:
  friend class Member;
  void work(int index);
  void barrier();
  void end();

  int threads_;
  long process_;
  std::vector<std::thread> workers_;
  std::mutex busy_;
  std::mutex sleep_;
  std::condition_variable wake_;
  const std::function<void(Member&)>* job_ = nullptr;
  std::atomic<uint32_t> jobs_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> out_of_memory_{false};
  struct alignas(64) Taken {
    std::atomic<int> items{0};
  };
  std::vector<Taken> taken_;  // of each thread's share
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

template <class Work>
void Member::share(int count, Work&& work) {
  if (threads_ == 1 || count == 0) {
    for (int i = 0; i < count; ++i) work(i);
    return;
  }
  // Left by an exception, the others would wait for ever.
  try {
    for (int i = 0; i < threads_; ++i) take_from((index_ + i) % threads_, count, work);
  } catch (const std::bad_alloc&) {
    team_->out_of_memory_.store(true, std::memory_order_relaxed);
  }
  team_->barrier();
}

template <class Work>
void Member::take_from(int thread, int count, Work& work) {
  const auto start = [&](int t) { return static_cast<int>(static_cast<int64_t>(count) * t / threads_); };
  std::atomic<int>& taken = team_->taken_[static_cast<size_t>(thread)].items;
  // Most find nothing left, and looking alone does not take the counter from its owner.
  if (start(thread) + taken.load(std::memory_order_relaxed) >= start(thread + 1)) return;
  for (int i; (i = start(thread) + taken.fetch_add(1, std::memory_order_relaxed)) < start(thread + 1);) work(i);
}

}  // namespace sqb
