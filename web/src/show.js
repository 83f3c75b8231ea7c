// Small parts of the page that both panels use.

export const find = (id) => document.getElementById(id);

/** An element with a class, text and children. */
export function make(tag, { className = '', text = null, children = [] } = {}) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

/** A share as per cent. */
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** A difference with its sign, to a thousandth; what rounds to nothing has none. */
export function signed(value) {
  const size = Math.abs(value).toFixed(3);
  return Number(size) === 0 ? size : `${value > 0 ? '+' : '−'}${size}`;
}

/** A row of a list of bars. */
export function bar(name, share, value, best) {
  const fill = make('span');
  fill.style.width = `${100 * share}%`;
  const track = make('span', { className: 'bar', children: [fill] });
  track.setAttribute('aria-hidden', 'true');
  return make('li', {
    className: best ? 'best' : '',
    children: [make('span', { text: name }), track, make('span', { className: 'value', text: value })],
  });
}

/** Say what went wrong, or with null that nothing does. */
export function showProblem(element, message) {
  element.hidden = message === null;
  element.textContent = message ?? '';
}
