// Tables and scores of the page, checked in node.

import assert from 'node:assert/strict';

import { csvLine, guessColumn, linesOf, parseCsv, readTable } from '../../web/src/csv.js';
import { features } from '../../web/src/features.js';
import { decide, kindOf, logOdds } from '../../web/src/scores.js';

assert.deepEqual(parseCsv('a,b\r\n"x ""y"", z","two\nlines"\r\n\r\n,\n'), [['a', 'b'], ['x "y", z', 'two\nlines'], ['', '']]);
assert.deepEqual(parseCsv('a\nlast'), [['a'], ['last']]);
assert.deepEqual(parseCsv('in "the" middle,x'), [['in "the" middle', 'x']]);
for (const cells of [['plain', ''], ['a,b', 'say "no"', 'two\nlines', 'cr\r']]) assert.deepEqual(parseCsv(csvLine(cells)), [cells]);
assert.deepEqual(readTable('T.CSV', '\ufeffid,text\n1,a\n'), { columns: ['id', 'text'], rows: [['1', 'a']] });
assert.deepEqual(readTable('t.tsv', 'id\ttext\r\n1\t"a'), { columns: ['id', 'text'], rows: [['1', '"a']] });
assert.deepEqual(readTable('t.txt', 'a, b\n\n \nc\n'), { columns: [], rows: [['a, b'], ['c']] });
assert.throws(() => readTable('t.csv', 'a,b\n1,2\n1\n'), /t\.csv: row 2 has 1 cells, but there are 2 columns/);
assert.throws(() => readTable('t.csv', 'a,b\n'), /no rows/);
assert.throws(() => readTable('t.txt', ' \n'), /no text/);
assert.deepEqual(linesOf('a\r\nb\rc\n'), ['a', 'b', 'c']);
assert.equal(guessColumn(['id', 'Sentence '], ['text', 'sentence']), 1);
assert.equal(guessColumn(['id'], ['text']), -1);

const close = (got, want) => got.forEach((x, i) => assert.ok(Math.abs(x - want[i]) < 1e-12, `${got} for ${want}`));
const single = decide('single_label', ['a', 'b', 'c'], [1000, 1000, 0]);
assert.deepEqual([single.label, single.best], ['a', 0]); // the first of equals, and no overflow
close(single.scores, [0.5, 0.5, 0]);
const multi = decide('multi_label', ['a', 'b', 'c'], [0, -1, 2]);
assert.deepEqual([multi.label, multi.best], ['a;c', 2]);
close(multi.scores, [0.5, 1 / (1 + Math.E), 1 / (1 + Math.exp(-2))]);
assert.equal(decide('multi_label', ['a', 'b'], [-1, -2]).label, '');
assert.equal(decide('regression', ['value'], [2.5]).score, 2.5);
close(
  [
    logOdds('single_label', [1000, -1000], 0), // no overflow where the probability is 1
    logOdds('single_label', [1, 2, 3], 1),
    logOdds('single_label', [7], 0),
    logOdds('multi_label', [0.5, -3], 1),
    logOdds('regression', [2.5], 0),
  ],
  [2000, 2 - Math.log(Math.E + Math.E ** 3), 0, -3, 2.5],
);
assert.equal(kindOf({ labels: ['value'] }), 'regression');
assert.equal(kindOf({ labels: ['a', 'b'], problem_type: null }), 'single_label');
assert.equal(kindOf({ labels: ['a', 'b'], problem_type: 'multi_label_classification' }), 'multi_label');

assert.equal(features().simd, true);
assert.equal(features().shared, true);
