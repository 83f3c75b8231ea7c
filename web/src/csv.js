// Tables as text: CSV with quotes, tab-separated values, or one text a line.

/** Rows of a CSV file; quotes as in RFC 4180, line ends of every system. */
export function parseCsv(text) {
  const rows = [];
  let row = [];
  let cell = '';
  let quoted = false;
  const endRow = () => {
    row.push(cell);
    if (row.length > 1 || row[0] !== '') rows.push(row);
    [row, cell] = [[], ''];
  };
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') cell += text[i++];
      else quoted = false;
    } else if (c === '"' && cell === '') quoted = true;
    else if (c === ',') {
      row.push(cell);
      cell = '';
    } else if (c === '\n') endRow();
    else if (c !== '\r' || text[i + 1] !== '\n') cell += c;
  }
  if (cell !== '' || row.length > 0) endRow();
  return rows;
}

/**
 * A file's rows under its column names.
 * @returns {{columns: string[], rows: string[][]}} columns: empty where the file is one text a line
 */
export function readTable(name, text) {
  const content = text.replace(/^\ufeff/, '');
  const kind = name.toLowerCase().split('.').pop();
  if (kind === 'csv' || kind === 'tsv') {
    const [columns, ...rows] = kind === 'csv' ? parseCsv(content) : linesOf(content).map((line) => line.split('\t'));
    if (columns === undefined || rows.length === 0) throw new Error(`${name}: no rows below the line of column names`);
    const bad = rows.findIndex((row) => row.length !== columns.length);
    if (bad >= 0)
      throw new Error(`${name}: row ${bad + 1} has ${rows[bad].length} cells, but there are ${columns.length} columns`);
    return { columns, rows };
  }
  const rows = linesOf(content).map((line) => [line]);
  if (rows.length === 0) throw new Error(`${name}: no text in it`);
  return { columns: [], rows };
}

/** Lines that hold more than blanks. */
export function linesOf(text) {
  return text.split(/\r\n|\n|\r/).filter((line) => line.trim() !== '');
}

/** The column that texts most likely stand in. */
export function guessColumn(columns, names) {
  const found = names.map((name) => columns.findIndex((column) => column.trim().toLowerCase() === name));
  return found.find((index) => index >= 0) ?? -1;
}

/** One line of CSV. */
export function csvLine(cells) {
  return cells.map((cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join(',') + '\r\n';
}
