//! Tables as kubectl prints them: a header, columns three blanks apart, nothing behind the last. A [`Watched`] table
//! prints its rows once and then each row again that has changed.

use std::collections::BTreeMap;
use std::fmt;

const GAP: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// Ages and rates: always on the move, so a row has not changed because they have.
    pub volatile: bool,
}

impl Column {
    pub const fn new(name: &'static str) -> Column {
        Column { name, volatile: false }
    }

    pub const fn volatile(name: &'static str) -> Column {
        Column { name, volatile: true }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Tells which thing of the cluster it shows, however that changes.
    pub key: String,
    pub cells: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(columns: Vec<Column>) -> Table {
        Table { columns, rows: vec![] }
    }

    /// A table that is printed once.
    pub fn plain(names: &[&'static str]) -> Table {
        Table::new(names.iter().map(|name| Column::new(name)).collect())
    }

    /// Cells are text of others (names, reasons): a line break in one would break the table.
    pub fn push(&mut self, key: impl Into<String>, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        let cells = cells.into_iter().map(|cell| cell.replace(char::is_control, " ")).collect();
        self.rows.push(Row { key: key.into(), cells });
    }

    fn widths(&self) -> Vec<usize> {
        let width = |i: usize, column: &Column| {
            let cells = self.rows.iter().map(|row| row.cells[i].chars().count());
            cells.chain([column.name.chars().count()]).max().unwrap_or(0)
        };
        self.columns.iter().enumerate().map(|(i, column)| width(i, column)).collect()
    }

    fn header(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.to_string()).collect()
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + GAP));
    }
    format!("{}\n", text.trim_end())
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        f.write_str(&line(&self.header(), &widths))?;
        self.rows.iter().try_for_each(|row| f.write_str(&line(&row.cells, &widths)))
    }
}

/// What has been printed of a table that changes.
#[derive(Debug, Default)]
pub struct Watched {
    headed: bool,
    widths: Vec<usize>,
    shown: BTreeMap<String, Vec<String>>,
}

impl Watched {
    /// What to print now: everything at first, later the rows that are new or differ in a column that is not volatile,
    /// and once more those that have gone, with `GONE` for their state.
    pub fn update(&mut self, table: &Table) -> String {
        let mut text = String::new();
        let now = table.widths();
        // Columns never get narrower, so that later lines stand below the first.
        self.widths.resize(now.len(), 0);
        for (width, now) in self.widths.iter_mut().zip(now) {
            *width = now.max(*width);
        }
        if !self.headed && !table.rows.is_empty() {
            text.push_str(&line(&table.header(), &self.widths));
            self.headed = true;
        }
        let mut gone = std::mem::take(&mut self.shown);
        for row in &table.rows {
            let before = gone.remove(&row.key);
            if before.is_none_or(|before| differs(&table.columns, &before, &row.cells)) {
                text.push_str(&line(&row.cells, &self.widths));
            }
            self.shown.insert(row.key.clone(), row.cells.clone());
        }
        let state = table.columns.iter().position(|column| column.name == "STATE");
        for mut cells in gone.into_values() {
            if let Some(cell) = state.and_then(|i| cells.get_mut(i)) {
                *cell = "GONE".into();
            }
            text.push_str(&line(&cells, &self.widths));
        }
        text
    }
}

fn differs(columns: &[Column], before: &[String], after: &[String]) -> bool {
    let mut cells = columns.iter().zip(before.iter().zip(after));
    cells.any(|(column, (before, after))| !column.volatile && before != after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(rows: &[[&str; 3]]) -> Table {
        let mut table = Table::new(vec![Column::new("ID"), Column::new("STATE"), Column::volatile("AGE")]);
        for row in rows {
            table.push(row[0], row.iter().map(|cell| cell.to_string()).collect());
        }
        table
    }

    #[test]
    fn columns_are_aligned_by_characters_and_lines_end_with_their_text() {
        let table = jobs(&[["pümp", "RUNNING", "5s"], ["a-longer-name", "", "1m"], ["x", "FAILED", ""]]);
        let expected = "\
ID              STATE     AGE
pümp            RUNNING   5s
a-longer-name             1m
x               FAILED
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_line_break_in_a_cell_does_not_break_the_table() {
        let table = jobs(&[["a\nb\tc\u{1b}[2J", "S", "1s"]]);
        assert_eq!(table.to_string(), "ID          STATE   AGE\na b c [2J   S       1s\n");
    }

    #[test]
    fn empty_table_is_its_header() {
        assert_eq!(jobs(&[]).to_string(), "ID   STATE   AGE\n");
    }

    #[test]
    fn watched_table_prints_a_row_again_only_when_it_has_changed() {
        let mut watched = Watched::default();
        let first = watched.update(&jobs(&[["a", "RUNNING", "1s"], ["b", "RUNNING", "1s"]]));
        assert_eq!(first, "ID   STATE     AGE\na    RUNNING   1s\nb    RUNNING   1s\n");
        assert_eq!(watched.update(&jobs(&[["a", "RUNNING", "2s"], ["b", "RUNNING", "2s"]])), "", "only the age did");
        assert_eq!(watched.update(&jobs(&[["a", "FAILED", "3s"], ["b", "RUNNING", "3s"]])), "a    FAILED    3s\n");
        let with_new = watched.update(&jobs(&[["a", "FAILED", "4s"], ["b", "RUNNING", "4s"], ["c", "PENDING", "0s"]]));
        assert_eq!(with_new, "c    PENDING   0s\n");
        assert_eq!(watched.update(&jobs(&[["b", "RUNNING", "5s"], ["c", "PENDING", "1s"]])), "a    GONE      4s\n");
        assert_eq!(watched.update(&jobs(&[["b", "RUNNING", "6s"], ["c", "PENDING", "2s"]])), "", "it is gone once");
    }

    #[test]
    fn watched_table_that_was_empty_prints_its_header_with_the_first_row() {
        let mut watched = Watched::default();
        assert_eq!(watched.update(&jobs(&[])), "");
        assert_eq!(watched.update(&jobs(&[["a", "NEW", "1s"]])), "ID   STATE   AGE\na    NEW     1s\n");
        assert_eq!(watched.update(&jobs(&[["a", "RUNNING", "1s"]])), "a    RUNNING   1s\n");
        assert_eq!(watched.update(&jobs(&[["a", "END", "1s"]])), "a    END       1s\n", "columns keep their width");
    }
}
