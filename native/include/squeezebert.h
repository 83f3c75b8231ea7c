/* The SqueezeBERT engine: an exported model and token ids -> logits, pooled vectors, hidden states.
 *
 * Thread-safe: any number of threads may run one engine at once. A sequence's result has the same bits alone, in any batch and with
 * any number of threads. A process that was forked off may go on using an engine, on one thread. Every function that can fail
 * returns an SQB_... code and writes one line for the user; error may be NULL.
 */
#ifndef SQUEEZEBERT_H
#define SQUEEZEBERT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SQB_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define SQB_EXPORT __attribute__((visibility("default")))
#else
#define SQB_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sqb_engine sqb_engine;

enum {
  SQB_OK = 0,
  SQB_INPUT = 1,  /* a bad file or argument: the message says which, and what to do */
  SQB_MEMORY = 2, /* not enough memory */
  SQB_FAULT = 3   /* a fault of the engine */
};

typedef struct {
  int32_t vocab_size;
  int32_t hidden_size;
  int32_t layers;
  int32_t max_positions;
  int32_t num_labels; /* 0: no classifier */
  int32_t per_token;  /* 1: logits are per token */
  int32_t has_pooler;
  int32_t threads;
  const char* instruction_set; /* lives as long as the program */
} sqb_info;

/* Where results go; NULL: not wanted. Sizes in floats. */
typedef struct {
  float* logits; /* sequences * num_labels, or tokens * num_labels where per_token */
  float* pooled; /* sequences * hidden_size */
  float* mean;   /* sequences * hidden_size: mean over the tokens of a sequence */
  float* hidden; /* tokens * hidden_size */
} sqb_outputs;

/* Load an exported folder (config.json, model.safetensors). threads: 0 for one per usable core. instruction_set: NULL
 * for the best of this machine, or a name of sqb_instruction_sets(). engine: NULL after a failure. The files stay mapped:
 * replace a folder in use by renaming, never write into its files. On Linux, "amx" asks for the process's right to AMX
 * tiles, after which sigaltstack refuses stacks that are too small to hold them (8 KB); name another set to keep from it. */
SQB_EXPORT int sqb_load(const char* folder, int32_t threads, const char* instruction_set, sqb_engine** engine, char* error,
                        size_t error_size);

/* The same from memory. config may be freed after the call. tensors, which must begin on a 4-byte border, are read as long
 * as the engine lives. */
SQB_EXPORT int sqb_load_memory(const void* config, size_t config_size, const void* tensors, size_t tensors_size,
                               int32_t threads, const char* instruction_set, sqb_engine** engine, char* error,
                               size_t error_size);

/* NULL is allowed. No other thread may be using the engine. */
SQB_EXPORT void sqb_free(sqb_engine* engine);

SQB_EXPORT void sqb_get_info(const sqb_engine* engine, sqb_info* info);

/* Run a ragged batch. ids, types: the tokens of all sequences in a row (types NULL: all 0). lengths: tokens of each. */
SQB_EXPORT int sqb_run(sqb_engine* engine, const int32_t* ids, const int32_t* types, const int32_t* lengths,
                       int32_t sequences, const sqb_outputs* outputs, char* error, size_t error_size);

/* Score the vocabulary at some places of a ragged batch, for a model whose head is a masked language model. positions: places
 * in the row of tokens. logits: count * vocab_size floats; minus infinity for rows that only pad the vocabulary. */
SQB_EXPORT int sqb_run_masked(sqb_engine* engine, const int32_t* ids, const int32_t* types, const int32_t* lengths,
                              int32_t sequences, const int32_t* positions, int32_t count, float* logits, char* error,
                              size_t error_size);

/* Names of the instruction sets that can run here, best first, separated by spaces. */
SQB_EXPORT const char* sqb_instruction_sets(void);

#ifdef __cplusplus
}
#endif

#endif
