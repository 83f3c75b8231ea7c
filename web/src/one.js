// The panel of one text: its label as it is typed, then what each token adds.

import { bar, find, make, percent, showProblem, signed } from './show.js';

const TYPING_MS = 120; // a pause in typing that long asks for an answer
const SPEAKING_MS = 900; // and that long speaks it, so that a screen reader is not interrupted at each letter

let timer;
let speaking;
let asked = 0;

/** The answer's parts, filled. */
function showAnswer(about, answer) {
  const { label, score, scores, best, tokens, cut, times } = answer;
  const value = about.kind === 'regression';
  find('label').textContent = label === '' ? 'none' : label.replaceAll(';', ', ');
  find('score').textContent = value || label === '' ? '' : percent(score);
  find('scores').replaceChildren(
    ...(value ? [] : about.labels.map((name, i) => bar(name, scores[i], percent(scores[i]), i === best))),
  );
  const milliseconds = (times.tokenizing + times.model).toFixed(1);
  const limit = cut ? `; the text is longer, and only its first ${about.maxLength} tokens were read` : '';
  find('facts').textContent = `${tokens.length} tokens, ${milliseconds} ms${limit}`;
  find('answer').hidden = false;
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    find('answer-spoken').textContent = value ? `Value ${label}` : `Label ${label || 'none'}, ${percent(score)}`;
  }, SPEAKING_MS);
}

function showTokens(tokens, shares) {
  const top = shares === null ? 0 : Math.max(...shares.map((share) => Math.abs(share ?? 0)), 1e-9);
  find('tokens').replaceChildren(
    ...tokens.map((token, i) => {
      const share = shares?.[i] ?? null;
      const item = make('li', { className: /^\[(CLS|SEP)\]$/.test(token) ? 'frame' : '', text: token });
      if (share === null) return item;
      const hue = share >= 0 ? '--for' : '--against';
      const strength = Math.abs(share) / top;
      item.style.backgroundColor = `rgb(var(${hue}) / ${(0.35 * strength).toFixed(3)})`;
      item.style.borderBottomColor = `rgb(var(${hue}) / ${strength.toFixed(3)})`;
      item.classList.toggle('strong', strength > 0.5);
      item.append(make('small', { text: signed(share) }));
      return item;
    }),
  );
}

async function answerNow(client, about) {
  const mine = ++asked;
  const text = find('text').value;
  const pair = about.pair === true ? find('pair').value : null;
  if (text.trim() === '' || pair?.trim() === '') {
    clearTimeout(speaking);
    find('answer-spoken').textContent = '';
    find('answer').hidden = true;
    return;
  }
  try {
    const answer = await client.ask('classify', { row: [text, pair] });
    if (mine !== asked) return;
    showProblem(find('problem'), null);
    showAnswer(about, answer);
    showTokens(answer.tokens, null);
    const note = find('tokens-note');
    const tell = ({ done, of }) => {
      if (mine === asked) note.textContent = `Weighing tokens: ${done} of ${of}`;
    };
    note.textContent = 'Weighing tokens';
    const shares = await client.ask('explain', { row: [text, pair] }, tell);
    if (mine !== asked || shares === null) return;
    const odds = `the log-odds of “${about.labels[answer.best]}” fall`;
    note.textContent = `By how much ${about.kind === 'regression' ? 'the value falls' : odds} when the token is left out.`;
    showTokens(answer.tokens, shares);
  } catch (error) {
    if (mine === asked) showProblem(find('problem'), error.message);
  }
}

/** Listen to the panel's fields. */
export function startOne(client, aboutNow) {
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => answerNow(client, aboutNow()), TYPING_MS);
  };
  find('text').addEventListener('input', later);
  find('pair').addEventListener('input', later);
  return () => answerNow(client, aboutNow());
}
