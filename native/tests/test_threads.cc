// The team of threads: every item once, and what is thrown comes out without stopping the others.
#include <memory>
#include <new>

#include "check.h"
#include "threads.h"

using namespace sqb;

namespace {

void test_every_item_once() {
  for (const int threads : {1, 2, 3, 7}) {
    Team team(threads);
    CHECK(team.threads() == threads && team.here(), "%d threads", threads);
    std::vector<int> first(100), second(7);
    for (int round = 1; round <= 50; ++round) {
      team.run([&](Member& member) {
        member.share(100, [&](int item) { ++first[static_cast<size_t>(item)]; });
        // All of the first are done before any of the second.
        member.share(7, [&](int item) { second[static_cast<size_t>(item)] += first[static_cast<size_t>(99 - item)] == round; });
      });
    }
    for (const int count : first) CHECK(count == 50, "%d threads: an item ran %d times of 50", threads, count);
    for (const int count : second) CHECK(count == 50, "%d threads: an item of the second share, %d of 50", threads, count);
  }
}

// Items are taken from a thread that has not come to them: the first of the first thread's waits for all others.
void test_slow_thread() {
  for (const int threads : {2, 3, 7}) {
    Team team(threads);
    std::atomic<int> others{0};
    team.run([&](Member& member) {
      member.share(20, [&](int item) {
        if (item > 0) ++others;
        while (item == 0 && others < 19) std::this_thread::yield();
      });
    });
    CHECK(others == 19, "%d threads: %d of 19", threads, others.load());
  }
}

void test_no_memory() {
  for (const int threads : {1, 2, 3})
    for (int bad = 0; bad < 3; ++bad) {  // where there are as many threads as items, each has its turn at throwing
      Team team(threads);
      std::atomic<int> later{0};
      bool thrown = false;
      try {
        team.run([&](Member& member) {
          member.share(3, [&](int item) {
            if (item == bad) throw std::bad_alloc();
          });
          member.share(3, [&](int) { ++later; });
        });
      } catch (const std::bad_alloc&) {
        thrown = true;
      }
      CHECK(thrown, "%d threads, item %d: nothing came out", threads, bad);
      later = 0;
      team.run([&](Member& member) { member.share(3, [&](int) { ++later; }); });
      CHECK(later == 3, "%d threads, item %d: %d of 3 afterwards", threads, bad, later.load());
    }
}

}  // namespace

int main() {
  test_every_item_once();
  test_slow_thread();
  test_no_memory();
  return finish();
}
