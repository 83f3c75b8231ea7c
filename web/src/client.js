// The page's side of worker.js: questions with numbers, and their answers.

export class Client {
  #worker;
  #id = 0;
  #waiting = new Map();

  constructor() {
    this.#worker = new Worker('worker.js');
    this.#worker.onmessage = ({ data }) => {
      const question = this.#waiting.get(data.id);
      if (data.kind === 'progress') return question?.tell(data);
      this.#waiting.delete(data.id);
      if (data.kind === 'answer') question.resolve(data.value);
      else question.reject(new Error(data.message));
    };
    this.#worker.onerror = (event) => {
      const reason = new Error(event.message ? `a fault of this page: ${event.message}` : 'worker.js is missing from this site');
      for (const { reject } of this.#waiting.values()) reject(reason);
      this.#waiting.clear();
    };
  }

  /** Ask; work on an earlier question of the same panel stops. `tell` hears of progress. */
  ask(kind, fields = {}, tell = () => {}) {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, tell });
      this.#worker.postMessage({ id, kind, ...fields });
    });
  }
}
