/* Runs an exported classifier on token ids and prints its logits:
 *
 *     classify FOLDER 101 2023 2003 102
 *
 * Tokenizing is the caller's: any BERT WordPiece tokenizer with the folder's vocab.txt. */
#include <stdio.h>
#include <stdlib.h>

#include "squeezebert.h"

int main(int argc, char** argv) {
  char error[256];
  sqb_engine* engine = NULL;
  sqb_info info;
  int32_t length = argc - 2;
  int32_t* ids;
  float* logits;
  sqb_outputs outputs = {NULL, NULL, NULL, NULL};
  int i, code;
  if (argc < 3) {
    fprintf(stderr, "usage: classify FOLDER ID...\n");
    return 2;
  }
  if (sqb_load(argv[1], 0, NULL, &engine, error, sizeof error) != SQB_OK) {
    fprintf(stderr, "%s\n", error);
    return 2;
  }
  sqb_get_info(engine, &info);
  ids = (int32_t*)malloc(sizeof(int32_t) * (size_t)length);
  logits = (float*)malloc(sizeof(float) * (size_t)(info.per_token ? length * info.num_labels : info.num_labels));
  for (i = 0; i < length; ++i) ids[i] = atoi(argv[i + 2]);
  outputs.logits = logits;
  code = sqb_run(engine, ids, NULL, &length, 1, &outputs, error, sizeof error);
  if (code == SQB_OK)
    for (i = 0; i < info.num_labels; ++i) printf("%d %.6f\n", i, logits[i]);
  else
    fprintf(stderr, "%s\n", error);
  free(ids);
  free(logits);
  sqb_free(engine);
  return code == SQB_OK ? 0 : 2;
}
