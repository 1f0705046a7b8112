// What several threads that open images of one Context at once share: answers and temporary files.
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "block/context.h"

namespace cairn {
namespace {

constexpr unsigned kAskers = 8;

template <class F>
void on_threads(F work) {
  std::atomic<unsigned> waiting{kAskers};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kAskers; ++i)
    threads.emplace_back([&, i] {
      --waiting;
      while (waiting != 0) std::this_thread::yield();
      work(i);
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(Secrets, APersonIsAskedOnceForAnImage) {
  for (unsigned round = 0; round < 50; ++round) {
    Context context;
    unsigned asked = 0;
    context.secrets().ask = [&](const std::string& image, bool) {
      ++asked;
      return std::make_shared<Secret>(std::string(image));
    };
    std::vector<const Secret*> answers(kAskers);
    on_threads([&](unsigned i) {
      answers[i] = &context.secrets().for_image({}, "key-secret", "key-secret", "disk", false);
      context.secrets().same_answer("disk", "other");
    });
    EXPECT_EQ(asked, 1U);
    EXPECT_EQ(std::set<const Secret*>(answers.begin(), answers.end()).size(), 1U);
    context.secrets().for_image({}, "key-secret", "key-secret", "other", false);
    EXPECT_EQ(asked, 1U);
  }
}

TEST(Unpacking, EveryTemporaryFileHasOneUser) {
  for (unsigned round = 0; round < 50; ++round) {
    Context context;
    for (unsigned i = 0; i < 2 * kAskers; ++i)
      context.unpacking.spools.push_back("/spool/" + std::to_string(i));
    std::vector<std::string> taken(2 * kAskers);
    on_threads([&](unsigned i) {
      taken[2 * i] = context.unpacking.take_spool();
      taken[2 * i + 1] = context.unpacking.take_spool();
    });
    EXPECT_EQ(std::set<std::string>(taken.begin(), taken.end()).size(), taken.size());
    EXPECT_EQ(context.unpacking.take_spool(), "");
  }
}

}  // namespace
}  // namespace cairn
