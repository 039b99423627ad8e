//! Tables for people and the same numbers as JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// What was found, by section.
#[derive(Debug, Default)]
pub(crate) struct Report {
    sections: Vec<Section>,
    failures: usize,
}

#[derive(Debug)]
struct Section {
    name: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// One cell of a table.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Text(String),
    Number(f64),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Cell {
    #[expect(clippy::cast_precision_loss, reason = "a count to be read by people")]
    fn from(number: usize) -> Self {
        Self::Number(number as f64)
    }
}

impl Report {
    /// Begins a table.
    pub(crate) fn section(&mut self, name: &'static str, columns: &'static [&'static str]) {
        line(&format!("\n## {name}\n"));
        line(&format!("| {} |", columns.join(" | ")));
        line(&format!("|{}", "---|".repeat(columns.len())));
        self.sections.push(Section { name, columns, rows: Vec::new() });
    }

    /// Adds a row to the table that was begun last.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        let shown: Vec<String> = cells.iter().map(Cell::shown).collect();
        line(&format!("| {} |", shown.join(" | ")));
        if let Some(section) = self.sections.last_mut() {
            section.rows.push(cells);
        }
    }

    /// Counts what is not as it should be.
    pub(crate) fn fail(&mut self, is_wrong: bool) -> &'static str {
        self.failures += usize::from(is_wrong);
        if is_wrong { "WRONG" } else { "ok" }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        line(&format!("\n{} of all checks failed", self.failures));
        if self.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// One object: each section is a list of rows, each an object by column.
    pub(crate) fn json(&self) -> String {
        let mut text = String::from("{\n");
        for section in &self.sections {
            let rows: Vec<String> = section
                .rows
                .iter()
                .map(|row| {
                    let fields = section.columns.iter().zip(row);
                    let fields: Vec<String> =
                        fields.map(|(name, cell)| format!("{}: {}", quoted(name), cell.json())).collect();
                    format!("    {{{}}}", fields.join(", "))
                })
                .collect();
            let _ = writeln!(text, "  {}: [\n{}\n  ],", quoted(section.name), rows.join(",\n"));
        }
        let _ = write!(text, "  \"failures\": {}\n}}\n", self.failures);
        text
    }
}

impl Cell {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) if *number == number.trunc() && number.abs() < 1e9 => format!("{number}"),
            Self::Number(number) if number.abs() >= 100.0 => format!("{number:.0}"),
            Self::Number(number) if number.abs() >= 0.01 => format!("{number:.3}"),
            Self::Number(number) => format!("{number:.1e}"),
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Number(number) if number.is_finite() => format!("{number}"),
            Self::Number(_) => "null".to_owned(),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => quoted.push(' '),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Prints a line; there is nobody to tell when standard output is gone.
pub(crate) fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
