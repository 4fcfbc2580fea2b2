#include "pool.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#    include <immintrin.h>
#endif

namespace fastllc::cpu {
namespace {

// Sets the default floating-point mode and restores the caller's.
class FloatMode {
public:
#if defined(__x86_64__)
    FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~FloatMode() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#elif defined(__aarch64__)
    FloatMode() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
    }
    ~FloatMode() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

private:
    std::uint64_t saved_;
#endif
};

struct Job {
    const std::int64_t n;
    const std::function<void(std::int64_t)>& task;
    std::atomic<std::int64_t> next{0};
    int helpers_wanted;
    int helpers_active = 0;

    void work() {
        const FloatMode mode;
        for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) task(i);
    }
};

class Pool {
public:
    void run(Job& job) {
        {
            const std::lock_guard lock(mutex_);
            while (size_ < job.helpers_wanted && grow()) {
            }
            job_ = &job;
        }
        work_.notify_all();
        job.work();
        // A helper that wakes up late finds no job; one at work still is waited for.
        std::unique_lock lock(mutex_);
        job_ = nullptr;
        done_.wait(lock, [&] { return job.helpers_active == 0; });
    }

private:
    // False where the system gives no more threads: those there are do the work.
    bool grow() {
        try {
            std::thread(&Pool::help, this).detach();
        } catch (const std::system_error&) {
            return false;
        }
        ++size_;
        return true;
    }

    void help() {
        std::unique_lock lock(mutex_);
        for (;;) {
            work_.wait(lock, [&] { return job_ && job_->helpers_wanted > 0; });
            Job& job = *job_;
            --job.helpers_wanted;
            ++job.helpers_active;
            lock.unlock();
            job.work();
            lock.lock();
            if (--job.helpers_active == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable work_, done_;
    Job* job_ = nullptr;
    int size_ = 0;
};

// A child has none of its parent's threads, and locks as they happened to be: it starts anew.
// Pools are never destroyed, so that threads may outlive main.
std::atomic<Pool*> pool{nullptr};
std::atomic<bool> busy{false};
std::atomic<bool> forked{false};

[[maybe_unused]] const int watching_forks = pthread_atfork(nullptr, nullptr, [] {
    pool = nullptr;
    busy = false;
    forked = true;
});

// The entry point of the OpenMP runtime that torch has brought into the process, if there is one.
// Its threads spin for some milliseconds after each of torch's operations: a step on threads of
// our own would share the cores with them (measured: 1.25x in a training loop of 8 M weights), on
// theirs it starts at once. Nothing is linked, and a forked child, in which OpenMP would hang,
// uses the pool.
using RunTeam = void (*)(void (*)(void*), void*, unsigned, unsigned);

RunTeam openmp() {
    static const auto run_team = reinterpret_cast<RunTeam>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return forked ? nullptr : run_team;
}

}  // namespace

void parallel_for(std::int64_t n, int threads, const std::function<void(std::int64_t)>& task) {
    const auto helpers = static_cast<int>(threads < n ? threads : n) - 1;
    Job job{n, task, {0}, helpers};
    if (helpers <= 0) {
        job.work();
        return;
    }
    if (const RunTeam run_team = openmp()) {
        run_team([](void* j) { static_cast<Job*>(j)->work(); }, &job,
                 static_cast<unsigned>(threads), 0);
    } else if (busy.exchange(true)) {
        job.work();
    } else {
        if (!pool) pool = new Pool;
        pool.load()->run(job);
        busy = false;
    }
}

}  // namespace fastllc::cpu
