// Logits -> what the model says, as src/squeezebert/runtime/predictor.py has it.

const KINDS = {
  single_label_classification: 'single_label',
  multi_label_classification: 'multi_label',
  regression: 'regression',
};

/** What a classifier predicts: "single_label", "multi_label" or "regression". */
export function kindOf(config) {
  const guess = config.labels.length === 1 ? 'regression' : 'single_label_classification';
  return KINDS[config.problem_type ?? guess];
}

/** Probability of each label; for a regression, the value itself. */
export function probabilities(kind, logits) {
  if (kind === 'regression') return [...logits];
  if (kind === 'multi_label') return Array.from(logits, (x) => 1 / (1 + Math.exp(-x)));
  const top = Math.max(...logits);
  const powers = Array.from(logits, (x) => Math.exp(x - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

/** Log-odds of a label, which do not level off where the probability nears 1; of a regression, the value. */
export function logOdds(kind, logits, label) {
  if (kind !== 'single_label') return logits[label];
  const others = Array.from(logits).filter((_, i) => i !== label);
  if (others.length === 0) return 0; // it was the only choice
  const top = Math.max(...others);
  return logits[label] - top - Math.log(others.reduce((sum, x) => sum + Math.exp(x - top), 0));
}

/**
 * Name and weigh the logits of one text.
 * @returns {{label: string, score: number, scores: number[], best: number}} label: several, of a multi-label model, are
 *   joined by semicolons; best: index of the likeliest
 */
export function decide(kind, labels, logits) {
  const scores = probabilities(kind, logits);
  if (kind === 'regression') return { label: scores[0].toFixed(3), score: scores[0], scores, best: 0 };
  const best = scores.indexOf(Math.max(...scores));
  const chosen = kind === 'multi_label' ? labels.filter((_, i) => logits[i] >= 0) : [labels[best]];
  return { label: chosen.join(';'), score: scores[best], scores, best };
}
