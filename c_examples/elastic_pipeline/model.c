/* A model that is small but real enough: every output depends on every input, bit for bit. */
#include "pipeline.h"

enum { VOCABULARY = 4096 };

static float embedding[VOCABULARY][DIM];
static float hidden[2][DIM][DIM];
static float head[DIM][LOGITS];

/* Fills with numbers between -scale and scale that are the same in every process (xorshift64). */
static void fill(float* values, size_t count, uint64_t seed, float scale) {
  for (size_t i = 0; i < count; ++i) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    values[i] = ((float)(seed >> 40) / (float)(1 << 23) - 1.0f) * scale;
  }
}

void model_init(void) {
  fill(&embedding[0][0], sizeof embedding / sizeof(float), 1, 1.0f);
  fill(&hidden[0][0][0], sizeof hidden / sizeof(float), 2, 0.15f);
  fill(&head[0][0], sizeof head / sizeof(float), 3, 0.1f);
}

/* out = in * matrix. Row by row, so that the compiler can vectorize and keep the order of additions. */
static void multiply(const float* in, const float* matrix, float* out, int columns) {
  for (int j = 0; j < columns; ++j) out[j] = 0.0f;
  for (int i = 0; i < DIM; ++i) {
    for (int j = 0; j < columns; ++j) out[j] += in[i] * matrix[i * columns + j];
  }
}

/* The mean of the embeddings of the line's words. */
void model_embed(const char* text, float* values) {
  int words = 0;
  for (int j = 0; j < DIM; ++j) values[j] = 0.0f;
  for (int i = 0; i < TEXT_BYTES && text[i] != '\0';) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    while (i < TEXT_BYTES && text[i] == ' ') ++i;
    if (i == TEXT_BYTES || text[i] == '\0') break;
    for (; i < TEXT_BYTES && text[i] != ' ' && text[i] != '\0'; ++i) {
      hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    }
    for (int j = 0; j < DIM; ++j) values[j] += embedding[hash % VOCABULARY][j];
    ++words;
  }
  if (words == 0) return;
  for (int j = 0; j < DIM; ++j) values[j] /= (float)words;
}

/* Two dense layers with ReLU. */
void model_transform(const float* values, float* result) {
  float between[DIM];
  multiply(values, &hidden[0][0][0], between, DIM);
  for (int j = 0; j < DIM; ++j) between[j] = between[j] > 0.0f ? between[j] : 0.0f;
  multiply(between, &hidden[1][0][0], result, DIM);
  for (int j = 0; j < DIM; ++j) result[j] = result[j] > 0.0f ? result[j] : 0.0f;
}

void model_classify(const float* values, float* logits) { multiply(values, &head[0][0], logits, LOGITS); }
