//! Tables whose columns stand below each other.

use std::io;

use crate::screen::{Screen, on_one_line};

/// Which way a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// Rows below a heading. It is printed in parts: columns only grow.
pub(crate) struct Table {
    columns: Vec<Column>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    is_begun: bool,
}

impl Table {
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        let columns = columns.into();
        let widths = columns.iter().map(|column| column.name().chars().count()).collect();
        Self { columns, widths, rows: Vec::new(), is_begun: false }
    }

    /// Adds a row, with as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().map(|cell| on_one_line(&cell)).collect();
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(row);
    }

    /// Whether there is no row that was not printed, and none was.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && !self.is_begun
    }

    /// Prints the rows that were added, below the heading the first time.
    pub(crate) fn print(&mut self, screen: &mut Screen) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.is_begun, true) {
            let names: Vec<String> = self.columns.iter().map(|column| column.name().to_owned()).collect();
            screen.heading(&self.laid_out(&names))?;
        }
        for row in std::mem::take(&mut self.rows) {
            screen.line(&self.laid_out(&row))?;
        }
        Ok(())
    }

    fn laid_out(&self, row: &[String]) -> String {
        let mut line = String::new();
        for ((column, width), cell) in self.columns.iter().zip(&self.widths).zip(row) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let missing = " ".repeat(width.saturating_sub(cell.chars().count()));
            match column {
                Column::Left(_) => line.extend([cell.as_str(), &missing]),
                Column::Right(_) => line.extend([&missing, cell.as_str()]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Left(name) | Self::Right(name) => name,
        }
    }
}

/// Names with their values below each other.
pub(crate) fn pairs(screen: &mut Screen, pairs: &[(&str, String)]) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in pairs {
        screen.line(format!("{name:width$}  {}", on_one_line(value)).trim_end())?;
    }
    Ok(())
}
