// The C interface: exceptions become codes and lines.
#include "squeezebert.h"

#include <algorithm>
#include <cstdio>
#include <new>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "model.h"

struct sqb_engine {
  sqb::Model model;
};

namespace {

void write_error(char* error, size_t size, const char* message) {
  if (error != nullptr && size > 0) std::snprintf(error, size, "%s", message);
}

template <class Work>
int guarded(char* error, size_t error_size, Work&& work) {
  try {
    work();
    return SQB_OK;
  } catch (const sqb::InputError& problem) {
    write_error(error, error_size, problem.what());
    return SQB_INPUT;
  } catch (const std::bad_alloc&) {
    write_error(error, error_size, "not enough memory");
    return SQB_MEMORY;
  } catch (const std::exception& problem) {
    write_error(error, error_size, problem.what());
    return SQB_FAULT;
  }
}

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

sqb_engine* make(sqb::Artifact artifact, int32_t threads, const char* instruction_set) {
  const sqb::Kernels* kernels = instruction_set == nullptr ? &sqb::best_kernels() : sqb::find_kernels(instruction_set);
  if (kernels == nullptr)
    throw sqb::InputError(std::string("instruction set ") + instruction_set + " cannot run here; choose of " +
                          sqb_instruction_sets());
  if (threads < 0 || threads > 1024) throw sqb::InputError("threads must lie between 0 and 1024, not " + std::to_string(threads));
  return new sqb_engine{sqb::Model(std::move(artifact), *kernels, threads == 0 ? usable_cores() : threads)};
}

}  // namespace

int sqb_load(const char* folder, int32_t threads, const char* instruction_set, sqb_engine** engine, char* error,
             size_t error_size) {
  *engine = nullptr;
  return guarded(error, error_size, [&] { *engine = make(sqb::Artifact::open(folder), threads, instruction_set); });
}

int sqb_load_memory(const void* config, size_t config_size, const void* tensors, size_t tensors_size, int32_t threads,
                    const char* instruction_set, sqb_engine** engine, char* error, size_t error_size) {
  *engine = nullptr;
  return guarded(error, error_size, [&] {
    *engine = make(sqb::Artifact::parse(sqb::Bytes::borrow(config, config_size), sqb::Bytes::borrow(tensors, tensors_size), "model"),
                   threads, instruction_set);
  });
}

void sqb_free(sqb_engine* engine) { delete engine; }

void sqb_get_info(const sqb_engine* engine, sqb_info* info) {
  const sqb::Config& c = engine->model.config();
  const bool classifier = engine->model.has_classifier();
  *info = {c.vocab_size,
           c.hidden_size,
           c.layers,
           c.max_positions,
           classifier ? c.num_labels : 0,
           c.head == "token_classification",
           engine->model.has_pooler(),
           engine->model.threads(),
           engine->model.kernels().name};
}

int sqb_run(sqb_engine* engine, const int32_t* ids, const int32_t* types, const int32_t* lengths, int32_t sequences,
            const sqb_outputs* outputs, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    engine->model.run({ids, types, lengths, sequences},
                      sqb::Outputs{outputs->logits, outputs->pooled, outputs->mean, outputs->hidden});
  });
}

int sqb_run_masked(sqb_engine* engine, const int32_t* ids, const int32_t* types, const int32_t* lengths, int32_t sequences,
                   const int32_t* positions, int32_t count, float* logits, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    engine->model.run_masked({ids, types, lengths, sequences}, {positions, count, logits});
  });
}

const char* sqb_instruction_sets(void) {
  static const std::string names = [] {
    std::string all;
    for (const sqb::Kernels* kernels : sqb::available_kernels()) all += (all.empty() ? "" : " ") + std::string(kernels->name);
    return all;
  }();
  return names.c_str();
}
