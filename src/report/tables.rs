//! The tables of a report as data, which are written as HTML, Markdown, JSON or CSV.

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::{digits, values};
use crate::metric::{Estimate, Measurement};

/// A table with a name by which it can be asked for.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// What it shows.
    pub(super) caption: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A column of a table.
#[derive(Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What the cells of a column hold.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Text,
    Number,
    /// Numbers with intervals.
    Estimate,
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Empty,
    Text(String),
    /// A number, and how it is shown.
    Number(f64, String),
    /// A number with the ends of its interval, and its unit.
    Estimate(f64, Option<f64>, Option<f64>, &'static str),
}

impl Column {
    pub(super) fn text(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Text }
    }

    pub(super) fn number(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Number }
    }

    pub(super) fn estimate(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Estimate }
    }
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn number(value: impl Into<f64>, shown: impl Into<String>) -> Self {
        Self::Number(value.into(), shown.into())
    }

    /// An estimate in percent, if there is one.
    pub(super) fn percent(of: Option<&Estimate>) -> Self {
        of.map_or(Self::Empty, |of| Self::Estimate(of.value, of.low, of.high, "%"))
    }

    /// The value of a measurement. One without an interval may be a count, a time or an amount of memory.
    pub(super) fn value(of: &Measurement) -> Self {
        match of.low {
            Some(_) => Self::Estimate(of.value, of.low, of.high, if of.unit == "s" { "s" } else { "" }),
            None => Self::Number(of.value, values::value(of.value, &of.unit)),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) | Self::Number(_, text) => text.clone(),
            Self::Estimate(value, low, high, unit) => digits::estimate(*value, *low, *high, unit),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Text(text) => json!(text),
            Self::Number(value, _) => json!(value),
            Self::Estimate(value, low, high, _) => json!({ "value": value, "low": low, "high": high }),
        }
    }

    /// The value and the two ends of its interval, as far as they are there.
    fn numbers(&self) -> [String; 3] {
        let number = |value: &Option<f64>| value.map_or(String::new(), |value| value.to_string());
        match self {
            Self::Estimate(value, low, high, _) => [value.to_string(), number(low), number(high)],
            Self::Number(value, _) => [value.to_string(), String::new(), String::new()],
            _ => [self.shown(), String::new(), String::new()],
        }
    }
}

impl Table {
    pub(super) fn html(&self) -> Markup {
        html! {
            (scroll(&self.caption, &html! {
                table class=(self.name) {
                    tr { @for column in &self.columns { th class=[(column.kind != Kind::Text).then_some("number")] { (column.name) } } }
                    @for row in &self.rows {
                        tr {
                            @for (cell, column) in row.iter().zip(&self.columns) {
                                td class=[(column.kind != Kind::Text).then_some("number")] { (cell.shown()) }
                            }
                        }
                    }
                }
            }))
        }
    }

    pub(super) fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', " ");
        let rule = |column: &Column| if column.kind == Kind::Text { "---" } else { "---:" }.to_owned();
        let mut text = format!("**{}**\n\n", escaped(&self.caption));
        text += &line(self.columns.iter().map(|column| escaped(&column.name)).collect());
        text += &line(self.columns.iter().map(rule).collect());
        text.extend(
            self.rows.iter().map(|row| line(row.iter().map(|cell| escaped(&cell.shown())).collect())),
        );
        text
    }

    pub(super) fn json(&self) -> Value {
        let row = |row: &Vec<Cell>| -> Map<String, Value> {
            self.columns.iter().zip(row).map(|(column, cell)| (column.name.clone(), cell.json())).collect()
        };
        Value::Array(self.rows.iter().map(|one| Value::Object(row(one))).collect())
    }

    /// Comma-separated values: an estimate takes three columns, for the value and the ends of its interval.
    pub(super) fn csv(&self) -> String {
        let spread = |kind: Kind, values: [String; 3]| -> Vec<String> {
            values.into_iter().take(if kind == Kind::Estimate { 3 } else { 1 }).collect()
        };
        let head = |column: &Column| {
            let name = &column.name;
            spread(column.kind, [name.clone(), format!("{name} low"), format!("{name} high")])
        };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut write = |row: Vec<String>| writer.write_record(row).expect("writing into memory cannot fail");
        write(self.columns.iter().flat_map(head).collect());
        for row in &self.rows {
            let cells = self.columns.iter().zip(row);
            write(cells.flat_map(|(column, cell)| spread(column.kind, cell.numbers())).collect());
        }
        let bytes = writer.into_inner().expect("writing into memory cannot fail");
        String::from_utf8(bytes).expect("the rows are text")
    }
}

/// A wide part of the page in a frame of its own that scrolls, also by the keys.
pub(super) fn scroll(label: &str, part: &Markup) -> Markup {
    html! { div class="scroll" tabindex="0" role="region" aria-label=(label) { (part) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            name: "results",
            caption: "What was found".to_owned(),
            columns: vec![Column::text("model"), Column::estimate("value"), Column::number("n")],
            rows: vec![
                vec![
                    Cell::text("a|b, \"c\""),
                    Cell::Estimate(20.312, Some(20.1), Some(20.5), ""),
                    Cell::number(96.0, "96"),
                ],
                vec![Cell::text("d"), Cell::number(1e6, "1.0 M"), Cell::Empty],
            ],
        }
    }

    #[test]
    fn a_table_has_the_same_content_in_every_format() {
        assert_eq!(
            table().markdown(),
            "**What was found**\n\n| model | value | n |\n| --- | ---: | ---: |\n| a\\|b, \"c\" | 20.31 [20.10, 20.50] | 96 |\n| d | 1.0 M |  |\n"
        );
        assert_eq!(
            table().csv(),
            "model,value,value low,value high,n\n\"a|b, \"\"c\"\"\",20.312,20.1,20.5,96\nd,1000000,,,\n"
        );
        assert_eq!(
            table().json(),
            json!([
                { "model": "a|b, \"c\"", "value": { "value": 20.312, "low": 20.1, "high": 20.5 }, "n": 96.0 },
                { "model": "d", "value": 1e6, "n": null },
            ])
        );
        let page = table().html().into_string();
        assert!(page.contains("<td class=\"number\">20.31 [20.10, 20.50]</td>"), "{page}");
    }
}
