// Text -> token ids, as src/squeezebert/tokenizer.py has it: BERT's uncased WordPiece, special tokens, truncation.

import { Tokenizer as Library } from '@huggingface/tokenizers';

// Chinese characters beyond the 16-bit range, which the library, reading 16 bits at a time, would not set apart.
const RARE_CHINESE = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;
const SIGMA = /\u03a3/g;

export class Tokenizer {
  #library;
  #lowercase;
  #cls;
  #sep;

  /** @param {object} json content of tokenizer.json */
  constructor(json) {
    this.#library = new Library(json, {});
    this.#lowercase = json.normalizer?.lowercase === true;
    [this.#cls, this.#sep] = ['[CLS]', '[SEP]'].map((token) => this.#library.token_to_id(token));
    if (this.#cls === undefined || this.#sep === undefined) throw new Error('no BERT vocabulary: it lacks [CLS] or [SEP]');
  }

  /** Ids and tokens of a text, without special tokens around it. */
  #pieces(text) {
    let prepared = text.replace(RARE_CHINESE, ' $& ');
    // JavaScript lowers a sigma at the end of a word to another letter than elsewhere; the model was trained without that.
    if (this.#lowercase) prepared = prepared.replace(SIGMA, '\u03c3');
    return this.#library.encode(prepared, { add_special_tokens: false });
  }

  /**
   * Encode a text, or a pair of them.
   * @returns {{ids: number[], types: number[], tokens: string[], cut: boolean}} cut: not all of it fits into maxLength
   */
  encode(text, pair, maxLength) {
    const first = this.#pieces(text);
    if (pair === null) {
      const kept = Math.min(first.ids.length, maxLength - 2);
      return {
        ids: [this.#cls, ...first.ids.slice(0, kept), this.#sep],
        types: new Array(kept + 2).fill(0),
        tokens: ['[CLS]', ...first.tokens.slice(0, kept), '[SEP]'],
        cut: kept < first.ids.length,
      };
    }
    const second = this.#pieces(pair);
    // The longer of both is cut first; of two equally long ones, the second keeps the odd token.
    const room = maxLength - 3;
    const shorter = Math.min(first.ids.length, second.ids.length, Math.floor(room / 2));
    const longer = room - shorter;
    const [a, b] = first.ids.length > second.ids.length ? [longer, shorter] : [shorter, longer];
    const [ids, pairIds] = [first.ids.slice(0, a), second.ids.slice(0, b)];
    return {
      ids: [this.#cls, ...ids, this.#sep, ...pairIds, this.#sep],
      types: [...new Array(ids.length + 2).fill(0), ...new Array(pairIds.length + 1).fill(1)],
      tokens: ['[CLS]', ...first.tokens.slice(0, a), '[SEP]', ...second.tokens.slice(0, b), '[SEP]'],
      cut: ids.length < first.ids.length || pairIds.length < second.ids.length,
    };
  }
}
