/* Runs an exported classifier on texts of token ids, all in one batch, and prints the logits of each (of each token, where the
 * model labels tokens) on a line:
 *
 *     classify FOLDER 101 2023 2003 102 / 101 2204 102
 *
 * Tokenizing is the caller's: any BERT WordPiece tokenizer with the folder's vocab.txt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "squeezebert.h"

int main(int argc, char** argv) {
  char error[256];
  sqb_engine* engine = NULL;
  sqb_info info;
  int32_t *ids, *lengths;
  float* logits;
  sqb_outputs outputs = {NULL, NULL, NULL, NULL};
  int32_t tokens = 0, texts = 1, rows, i, label;
  int code;
  if (argc < 3) {
    fprintf(stderr, "usage: classify FOLDER ID... [/ ID...]\n");
    return 2;
  }
  ids = (int32_t*)malloc(sizeof(int32_t) * (size_t)argc);
  lengths = (int32_t*)calloc((size_t)argc, sizeof(int32_t));
  for (i = 2; i < argc; ++i) {
    if (strcmp(argv[i], "/") == 0) {
      ++texts;
    } else {
      ids[tokens++] = atoi(argv[i]);
      ++lengths[texts - 1];
    }
  }
  if (sqb_load(argv[1], 0, NULL, &engine, error, sizeof error) != SQB_OK) {
    fprintf(stderr, "%s\n", error);
    return 2;
  }
  sqb_get_info(engine, &info);
  rows = info.per_token ? tokens : texts;
  logits = (float*)malloc(sizeof(float) * (size_t)(rows * info.num_labels));
  outputs.logits = logits;
  code = sqb_run(engine, ids, NULL, lengths, texts, &outputs, error, sizeof error);
  if (code != SQB_OK) fprintf(stderr, "%s\n", error);
  for (i = 0; code == SQB_OK && i < rows; ++i)
    for (label = 0; label < info.num_labels; ++label) /* nine digits: no two floats look the same */
      printf("%.9g%c", logits[i * info.num_labels + label], label + 1 < info.num_labels ? ' ' : '\n');
  free(ids);
  free(lengths);
  free(logits);
  sqb_free(engine);
  return code == SQB_OK ? 0 : 2;
}
