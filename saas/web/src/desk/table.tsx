/** Rows as a table; on a narrow screen each row is a block, in which a value stands under its heading. */

import type { ReactNode } from "react";

import { d } from "./strings";

export interface Column<Row> {
  head: string;
  cell: (row: Row) => ReactNode;
  /** It stands at the right, with figures of equal width. */
  number?: boolean;
  /** On a narrow screen it takes the whole line. */
  wide?: boolean;
}

interface Props<Row> {
  /** Its name for those who do not see it. */
  label: string;
  rows: Row[];
  columns: Column<Row>[];
  id: (row: Row) => string | number;
}

export function Table<Row>({ label, rows, columns, id }: Props<Row>) {
  if (!rows.length) return <p className="lead">{d.none}</p>;
  // The roles are said because blocks of a narrow screen are no table to a browser.
  return (
    <div className="scroll">
      <table role="table" aria-label={label}>
        <thead role="rowgroup">
          <tr role="row">
            {columns.map((column) => (
              <th key={column.head} role="columnheader" scope="col" className={column.number ? "number" : undefined}>
                {column.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row) => (
            <tr key={id(row)} role="row">
              {columns.map((column) => (
                <td key={column.head} role="cell" data-head={column.head} className={[column.number && "number", column.wide && "line"].filter(Boolean).join(" ") || undefined}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Facts, each under its name; those that are null are left out. */
export function Facts({ of }: { of: [string, ReactNode][] }) {
  return (
    <dl className="facts">
      {of.map(([name, value]) =>
        value === null || value === undefined || value === "" ? null : (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ),
      )}
    </dl>
  );
}
